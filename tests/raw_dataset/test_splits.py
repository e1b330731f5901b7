"""Folds: nnU-Net's own where patients are single, patients together where they are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.splits import TrainingCase, few_training_folds, patient_folds, splits_from_file


def cases(patients: list[int]) -> list[TrainingCase]:
    return [TrainingCase(f"c{i:03d}", f"p{p:03d}", (f"c{i:03d}_0", f"c{i:03d}_1")) for i, p in enumerate(patients)]


@pytest.mark.parametrize("count", [2, 3, 5, 7, 50, 101])
def test_single_cases_are_split_as_by_nnunet(count: int) -> None:
    names = [f"case{i:03d}" for i in range(count)]
    expected = generate_crossval_split(names, seed=12345, n_splits=min(5, count))
    assert patient_folds([TrainingCase(name, name, (name,)) for name in names]) == [
        {side: [str(name) for name in fold[side]] for side in ("train", "val")} for fold in expected
    ]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40))
def test_every_case_is_validated_once_and_no_patient_twice(patients: list[int]) -> None:
    folds = patient_folds(cases(patients))
    owner = {name: case.patient for case in cases(patients) for name in case.outputs}
    if len(set(patients)) < 2:
        assert folds == []
        return
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(owner)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(owner)
        assert {owner[name] for name in fold["train"]}.isdisjoint({owner[name] for name in fold["val"]})


@given(st.lists(st.integers(0, 19), min_size=5, max_size=40))
@example([0, 0, 1, 2, 3, 4])
@example([0, 0, 0, 0, 0, 0, 1, 2, 3, 4])
@example([0, 1, 2, 3, 4, 4, 4, 4, 4, 4])
def test_few_training_folds_train_on_every_case_once(patients: list[int]) -> None:
    folds = few_training_folds(cases(patients))
    owner = {name: case.patient for case in cases(patients) for name in case.outputs}
    if len(set(patients)) < 5:
        assert folds == []
        return
    assert sorted(name for fold in folds for name in fold["train"]) == sorted(owner)
    assert all(fold["train"] for fold in folds)
    for fold in folds:
        assert sorted(fold["train"] + fold["val"]) == sorted(owner)
        assert {owner[name] for name in fold["train"]}.isdisjoint({owner[name] for name in fold["val"]})


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([{"train": ["c000", "c001"], "val": ["c001"]}], "fold 0 has c001 in train and in val; keep each in one"),
        ([{"train": ["c0", 7], "val": ["c001"]}], "cases that do not exist: 7, c0; known are c000, c001, c002"),
        ([], "holds no splits"),
        ({"train": ["c000"], "val": ["c001"]}, "holds no splits"),
    ],
)
def test_own_folds_are_checked(tmp_path: Path, folds: object, message: str) -> None:
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    with pytest.raises(UserError, match=message):
        splits_from_file(tmp_path / "folds.json", cases([0, 0, 1]))


def test_own_folds_of_which_one_side_has_no_slice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    cut = [TrainingCase("a", "a", ("a_001",)), TrainingCase("b", "b", ()), TrainingCase("c", "c", ())]
    with pytest.raises(UserError, match="none of the cases in val of fold 0 has a slice of the kind asked for"):
        splits_from_file(tmp_path / "folds.json", cut)
