"""What the checks know of a raw data set: its cases with their patients, its folds, what dataset.json says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from nnunet_covid.dataset_json import IMAGES, Split, channel_names, ignore_label, label_values, read_dataset_json
from nnunet_covid.endings import ending_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in
from nnunet_covid.geometry import Turn
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import LISTED, listed_cases, raw_dataset_folder, read_splits
from nnunet_covid.raw_dataset import Part, Scan, read_scan
from nnunet_covid.raw_dataset.patients import guessed_patients, recorded_patients


@dataclass(frozen=True)
class CheckedCase:
    """One case: its first channel, its label map if it has one, its patient, the value that marks nothing."""

    name: str
    part: Part
    image: Path
    label: Path | None
    patient: str
    ignore: int | None = None

    def read(self) -> tuple[Scan, NDArray[Any] | None]:
        """The first channel and the label map, both turned upright, in whatever order they are stored.

        Raises:
            UserError: If a file cannot be read.
        """
        label = None if self.label is None else read_scan(self.label).image
        scan = read_scan(self.image)
        turn = Turn.upright(scan.geometry)
        return replace(scan, image=turn(scan.image)), None if label is None else turn(label)


@dataclass(frozen=True)
class CheckedDataset:
    """A raw data set.

    Attributes:
        folder: Its folder.
        channel: Name of the first channel.
        labels: All values that dataset.json names.
        cases: All cases, unlabelled ones included.
        splits: The folds nnU-Net would use, or an empty list.
        guessed_patients: Those that were derived from the case names.
        unpaired: What else lies in labelsTr: names of files; none where dataset.json lists the cases.
    """

    folder: Path
    channel: str
    labels: frozenset[int]
    cases: tuple[CheckedCase, ...]
    splits: Sequence[Split]
    guessed_patients: frozenset[str]
    unpaired: tuple[str, ...] = ()


def open_dataset(number_or_name: str) -> CheckedDataset:
    """Read everything but the images.

    Args:
        number_or_name: Or the path of its folder.

    Raises:
        UserError: If there is no such data set, or a document or the images are missing or damaged.
    """
    folder = raw_dataset_folder(number_or_name)
    description = read_dataset_json(folder / "dataset.json", needed=IMAGES)
    names, lists = channel_names(description), LISTED in description
    found = [(part, case) for part in Part for case in _cases(folder, part, description)]
    if not found:
        raise UserError(f"{folder} holds no images named CASE_0000{description['file_ending']}")
    ignore = ignore_label(description["labels"])
    recorded = recorded_patients(folder)
    guessed = guessed_patients(case.name for _, case in found)
    guessed = {name: patient for name, patient in guessed.items() if name not in recorded}
    patients = {**guessed, **recorded}
    cases = tuple(
        CheckedCase(case.name, part, case.files[0], case.label, patients.get(case.name) or case.name, ignore)
        for part, case in found
    )
    labels = frozenset(value for values in label_values(description["labels"]).values() for value in values)
    splits = read_splits(folder.name, folder) or []
    used = {case.label.name for case in cases if case.part is Part.TRAINING and case.label is not None}
    unpaired = [path.name for path in files_in(folder / Part.TRAINING.label_folder) if ending_of(path)]
    others = () if lists else tuple(name for name in unpaired if name not in used)
    return CheckedDataset(folder, names[0], labels, cases, splits, frozenset(guessed.values()), others)


def _cases(folder: Path, part: Part, description: dict[str, Any]) -> list[CaseFiles]:
    """The cases of one part with their label maps, where there are any; dataset.json may list those of training."""
    if part is Part.TRAINING and LISTED in description:
        try:
            listed = listed_cases(folder, description)
        except ValueError as e:
            raise UserError(f"{folder}: {e}") from e
        if missing := [path for case in listed for path in case.all_files if not path.is_file()]:
            raise UserError(f"{missing[0]} is missing; dataset.json lists it: copy it there, or take its case out")
        return listed
    ending, channels = description["file_ending"], len(channel_names(description))
    if not files_in(folder / part.value, ending):
        return []
    labels = {path.name: path for path in files_in(folder / part.label_folder, ending)}
    cases = list_cases(folder / part.value, ending, channels)
    return [replace(case, label=labels.get(f"{case.name}{ending}")) for case in cases]
