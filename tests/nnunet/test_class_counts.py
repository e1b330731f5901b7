"""Label counts are those of the pre-processed segmentations, and are taken again when these change."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_covid.nnunet.preprocess import class_counts, count_labels


def write(folder: Path, case: str, labels: np.ndarray) -> None:
    for path in folder.glob(f"{case}*"):
        path.unlink()
    image = np.zeros((1, *labels.shape), np.float32)
    size = (1, *labels.shape)
    nnUNetDatasetBlosc2.save_case(image, labels[None].astype(np.int8), {}, str(folder / case), size, size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cases"
    made.mkdir()
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        write(made, case, rng.integers(-1, 3, (2, 6, 5)))
    return made


def expected(folder: Path, cases: list[str]) -> dict[int, int]:
    arrays = [np.asarray(nnUNetDatasetBlosc2(str(folder)).load_case(case)[1][:]) for case in cases]
    return {v: sum(int((a == v).sum()) for a in arrays) for v in range(-1, 3)}


def test_counts_are_those_of_the_cases_asked_for(folder: Path, tmp_path: Path) -> None:
    dataset = nnUNetDatasetBlosc2(str(folder))
    assert count_labels(dataset, ["a", "c"], tmp_path / "cache.json") == expected(folder, ["a", "c"])
    assert count_labels(dataset, ["b", "c"], tmp_path / "cache.json") == expected(folder, ["b", "c"])
    assert sorted(json.loads((tmp_path / "cache.json").read_text())) == ["a", "b", "c"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache.json", "cases"]


def test_a_case_is_read_once_and_again_when_it_changes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, cache, read = nnUNetDatasetBlosc2(str(folder)), tmp_path / "cache.json", []
    load_case = dataset.load_case
    monkeypatch.setattr(dataset, "load_case", lambda case: (read.append(case), load_case(case))[1])
    before = count_labels(dataset, ["a", "b"], cache)
    assert count_labels(dataset, ["a", "b"], cache) == before
    assert read == ["a", "b"]
    write(folder, "b", np.full((2, 6, 5), 2))
    after = count_labels(dataset, ["a", "b"], cache)
    assert read == ["a", "b", "b"]
    assert after == expected(folder, ["a", "b"]) != before


def test_a_case_of_the_same_size_and_time_is_counted_again(folder: Path, tmp_path: Path) -> None:
    dataset, cache = nnUNetDatasetBlosc2(str(folder)), tmp_path / "cache.json"
    path = folder / "b_seg.b2nd"
    count_labels(dataset, ["b"], cache)
    before = path.stat()
    write(folder, "b", np.full((2, 6, 5), 2))
    content = path.read_bytes()
    path.write_bytes(content + bytes(max(0, before.st_size - len(content))))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert count_labels(nnUNetDatasetBlosc2(str(folder)), ["b"], cache) == {2: 60}


def test_a_damaged_cache_is_made_again(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text("{")
    dataset = nnUNetDatasetBlosc2(str(folder))
    assert count_labels(dataset, ["a"], tmp_path / "cache.json") == expected(folder, ["a"])


def test_what_lies_outside_the_crop_is_background_and_ignored_voxels_do_not_count() -> None:
    counts = Counter({-1: 5, 0: 10, 1: 3, 3: 7})
    assert class_counts(counts, [0, 1, 2]) == [15, 3, 0]
    assert counts[-1] == 5
