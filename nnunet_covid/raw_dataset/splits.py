"""Cross-validation splits in which all slices of a patient stay on one side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.dataset_json import SPLITS, Split, splits_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of

FOLDS = 5
NNUNET_SEED = 12345
"""The seed of nnU-Net's own split (``nnunetv2.training.nnUNetTrainer.nnUNetTrainer.do_split``)."""


@dataclass(frozen=True)
class TrainingCase:
    """One labelled case of the source and the cases that came out of it (several if it was cut into slices)."""

    name: str
    patient: str
    outputs: tuple[str, ...]


SplitRule = Callable[[Sequence[TrainingCase]], list[Split]]
"""From the training cases to the folds; an empty list where no split is possible."""


def patient_folds(cases: Sequence[TrainingCase]) -> list[Split]:
    """nnU-Net's own seeded k-fold split, drawn over patients.

    Where every case is its own patient this is exactly the split that nnU-Net would write. With fewer
    patients than folds there are as many folds as patients.
    """
    outputs: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        outputs[case.patient].extend(case.outputs)
    patients = sorted(patient for patient, names in outputs.items() if names)
    if len(patients) < 2:
        return []
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # imports scikit-learn

    drawn = generate_crossval_split(patients, seed=NNUNET_SEED, n_splits=min(FOLDS, len(patients)))
    return [{side: _outputs_of(fold[side], outputs) for side in ("train", "val")} for fold in drawn]


def few_training_folds(cases: Sequence[TrainingCase]) -> list[Split]:
    """Folds that train on one block of cases and validate on all others.

    The cases, ordered by patient, are cut into five blocks as equal as patients allow: 20 cases give five
    folds of 4 training and 16 validation cases, the protocol of Ma et al., Medical Physics 2021
    (COVID-19-CT-Seg).
    """
    ordered = sorted((case for case in cases if case.outputs), key=lambda case: (case.patient, case.name))
    starts = [i for i, case in enumerate(ordered) if i == 0 or case.patient != ordered[i - 1].patient]
    if len(starts) < FOLDS:
        return []
    cuts: list[int] = []
    for left in range(FOLDS, 0, -1):  # each block has a patient, and leaves one to each after it
        ideal = len(ordered) * (1 - left / FOLDS)
        free = [start for start in starts if not cuts or start > cuts[-1]]
        cuts.append(min((abs(start - ideal), start) for start in free[: len(free) - left + 1])[1])
    blocks = [ordered[start:end] for start, end in zip(cuts, [*cuts[1:], len(ordered)], strict=True)]
    return [
        {
            "train": sorted(name for case in block for name in case.outputs),
            "val": sorted(name for case in ordered if case not in block for name in case.outputs),
        }
        for block in blocks
    ]


def splits_from_file(path: Path, cases: Sequence[TrainingCase]) -> list[Split]:
    """The user's own folds: a JSON list of ``{"train": [...], "val": [...]}`` with names of source cases.

    Raises:
        UserError: If the file is no such list, names unknown cases, has a case on both sides of a fold, or nothing came
            out of the cases of one side.
    """
    try:
        named = splits_of(path.read_text(encoding="utf-8-sig"))
        if not named:
            raise ValueError
    except (OSError, ValueError) as e:
        raise UserError(f"{path} holds no splits; expected is {SPLITS}") from e
    outputs = {case.name: case.outputs for case in cases}
    unknown = {name for fold in named for names in fold.values() for name in names} - set(outputs)
    if unknown:
        raise UserError(f"{path} names cases that do not exist: {some_of(unknown)}; known are {some_of(outputs)}")
    for index, fold in enumerate(named):
        if not (fold["train"] and fold["val"]):
            raise UserError(f"{path}: fold {index} has no case in train or in val; name some, or take the fold out")
        if on_both := set(fold["train"]) & set(fold["val"]):
            raise UserError(
                f"{path}: fold {index} has {some_of(on_both)} in train and in val; keep each in one of them"
            )
    splits = [{side: _outputs_of(names, outputs) for side, names in fold.items()} for fold in named]
    for index, fold in enumerate(splits):
        if empty := [side for side, names in fold.items() if not names]:
            reason = f"none of the cases in {empty[0]} of fold {index} has a slice of the kind asked for"
            raise UserError(f"{path}: {reason}; name others there, or take the fold out")
    return splits


def _outputs_of(names: Iterable[str], outputs: Mapping[str, Sequence[str]]) -> list[str]:
    return sorted(output for name in names for output in outputs[name])


def patients_on_both_sides(split: Split, cases: Sequence[TrainingCase]) -> set[str]:
    """The patients whose cases a fold trains on as well as validates on."""
    patient_of = {output: case.patient for case in cases for output in case.outputs}
    return {patient_of[name] for name in split["train"]} & {patient_of[name] for name in split["val"]}
