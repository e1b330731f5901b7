"""How many voxels of each label the training cases of a data set hold, counted once and kept beside the data.

What is counted is the pre-processed segmentation of the configuration that is trained: it is what the loss sees
(resampled, cropped), it exists for every training case whatever its file format, and pseudo labels pass through the
same pre-processing. A case is counted again when the file of its segmentation changes, so that new pseudo labels are
noticed without being announced.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

OUTSIDE = -1
"""nnU-Net's pre-processing writes this around the cropped image, and trains on it as background."""


def count_labels(dataset: Any, cases: Sequence[str], cache: Path) -> Counter[int]:
    """Voxels of every label value over some cases.

    Args:
        dataset: nnU-Net's data set of one pre-processed configuration.
        cases: Its cases that make up the training set.
        cache: JSON file with what has been counted; made or brought up to date.
    """
    known = _read(cache)
    total: Counter[int] = Counter()
    changed = False
    for case in tqdm(cases, desc="label counts", unit="case", leave=False):
        stamp = _stamp(Path(dataset.source_folder), case)
        entry = known.get(case)
        if entry is None or entry["stamp"] != stamp:
            counts = _count(dataset.load_case(case)[1])
            entry = known[case] = {"stamp": stamp, "counts": {str(label): n for label, n in counts.items()}}
            changed = True
        total.update({int(label): n for label, n in entry["counts"].items()})
    if changed:
        _write(cache, known)
    return total


def class_counts(counts: Counter[int], labels: Iterable[int]) -> list[int]:
    """Counts in the order of the labels, whatever lies outside the cropped image added to the background."""
    merged = counts.copy()
    merged[0] += merged.pop(OUTSIDE, 0)
    return [merged[label] for label in labels]


def _count(segmentation: Any) -> dict[int, int]:
    values, counts = np.unique(segmentation[0], return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def _stamp(folder: Path, case: str) -> list[list[Any]]:
    """Name, size and time of change of the files that may hold the segmentation of a case."""
    candidates = (folder / f"{case}{ending}" for ending in ("_seg.b2nd", "_seg.npy", ".npz"))
    stats = ((path.name, path.stat()) for path in candidates if path.is_file())
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _read(cache: Path) -> dict[str, Any]:
    try:
        return json.loads(cache.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _write(cache: Path, content: dict[str, Any]) -> None:
    """Through a file of this process, so that several processes of one training do not meet."""
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
    os.replace(temporary, cache)
