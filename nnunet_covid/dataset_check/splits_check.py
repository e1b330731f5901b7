"""Patients on both sides of a split, and splits that do not fit the data set."""

from __future__ import annotations

from collections.abc import Iterator

from nnunet_covid.dataset_check.finding import Finding
from nnunet_covid.dataset_check.raw_data_set import RawDataSet
from nnunet_covid.raw_dataset import Part


def check_splits(data_set: RawDataSet) -> Iterator[Finding]:
    """Compare every fold's sides, and training with test cases, by patient."""
    patients = {case.name: case.patient for case in data_set.cases if case.part is Part.TRAINING}
    source = " (patients guessed from the case names)" if data_set.patients_are_guessed else ""
    for index, fold in enumerate(data_set.splits):
        unknown = sorted((set(fold["train"]) | set(fold["val"])) - set(patients))
        if unknown:
            message = f"fold {index} names {len(unknown)} cases that are not in imagesTr; nnU-Net will stop there"
            yield Finding("splits", message, tuple(unknown))
        on_both = {patients.get(name, name) for name in fold["train"]} & {patients.get(n, n) for n in fold["val"]}
        if on_both:
            message = (
                f"fold {index} trains and validates on {len(on_both)} patients{source}: {_listed(on_both)}; "
                "its score will be too good, split by patient"
            )
            cases = tuple(n for side in ("train", "val") for n in fold[side] if patients.get(n, n) in on_both)
            yield Finding("patients", message, cases)
    test = {case.patient for case in data_set.cases if case.part is Part.TEST}
    if in_both := test & set(patients.values()):
        message = f"{len(in_both)} patients are in imagesTr as well as in imagesTs{source}: {_listed(in_both)}"
        cases = tuple(c.name for c in data_set.cases if c.patient in in_both and c.part is not Part.UNLABELLED)
        yield Finding("patients", message, cases)


def _listed(names: set[str], at_most: int = 5) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:at_most]) + (", …" if len(ordered) > at_most else "")
