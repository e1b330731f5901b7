"""The table of a round's pseudo labels, and its sums."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_covid.semi_supervised.state import write_durably

FILE = "manifest.csv"


def write_manifest(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Image, round, model checksum, mean confidence and share of voxels kept, one row per image."""
    classes = list(records[0]["predicted"]) if records else []
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", "round", "model", "confidence", "kept", *(f"kept_{name}" for name in classes)])
    for r in records:
        shares = kept_shares(r["predicted"], r["kept"])
        total = _share(sum(r["kept"].values()), sum(r["predicted"].values()))
        cells = [total, *(shares[name] for name in classes)]
        writer.writerow(
            [r["image"], r["round"], r["model"], f"{r['confidence']:.6f}"]
            + ["" if c is None else f"{c:.6f}" for c in cells]
        )
    write_durably(folder / FILE, text.getvalue())


def summarise(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over a round: voxels by label value, predicted and kept voxels by class, mean confidence."""
    result: dict[str, Any] = {"counts": {}, "predicted": {}, "kept": {}}
    for record in records:
        for part, total in result.items():
            for name, voxels in record[part].items():
                total[name] = total.get(name, 0) + voxels
    result["confidence"] = sum(r["confidence"] for r in records) / len(records) if records else None
    result["images"] = len(records)
    return result


def kept_shares(predicted: Mapping[str, int], kept: Mapping[str, int]) -> dict[str, float | None]:
    """Share of the predicted voxels of each class that are trusted; ``None`` where nothing was predicted."""
    return {name: _share(kept[name], voxels) for name, voxels in predicted.items()}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
