"""An nnU-Net raw data set as it lies on disk: its cases, their files, patients and splits."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Part, Scan, UnusableFile, read_scan


@dataclass(frozen=True)
class RawCase:
    """One case: its first channel, its label map if it has one, its patient."""

    name: str
    part: Part
    image: Path
    label: Path | None
    patient: str

    def read(self) -> tuple[Scan, NDArray[Any] | None]:
        """The first channel and the label map.

        Raises:
            UserError: If a file cannot be read.
        """
        try:
            label = None if self.label is None else read_scan(self.label).image
            return read_scan(self.image), label
        except UnusableFile as e:
            raise UserError(f"{e.path}: {e.reason}") from e


@dataclass(frozen=True)
class RawDataSet:
    """A raw data set.

    Attributes:
        folder: Its folder.
        description: Its ``dataset.json``.
        cases: All cases, unlabelled ones included.
        splits: The folds nnU-Net would use, or an empty list.
        splits_file: Where they were found.
        patients_are_guessed: Whether patients were derived from the case names.
    """

    folder: Path
    description: dict[str, Any]
    cases: tuple[RawCase, ...]
    splits: list[dict[str, list[str]]]
    splits_file: Path | None
    patients_are_guessed: bool


def find_data_set(text: str) -> Path:
    """The folder that a number, a name or a path stands for.

    Raises:
        UserError: If there is none, or more than one.
    """
    if (Path(text) / "dataset.json").is_file():
        return Path(text).resolve()
    base = os.environ.get("nnUNet_raw")  # noqa: SIM112, nnU-Net's spelling
    if not base:
        raise UserError(f"{text} is no folder with a dataset.json, and nnUNet_raw is not set; export nnUNet_raw")
    pattern = f"Dataset{int(text):03d}_*" if text.isdigit() else text
    found = [path for path in sorted(Path(base).glob(pattern)) if (path / "dataset.json").is_file()]
    if len(found) != 1:
        raise UserError(f"{len(found)} data sets in {base} are called {text}; give a number, a name or a folder")
    return found[0]


def open_data_set(folder: Path) -> RawDataSet:
    """Read everything but the images.

    Raises:
        UserError: If ``dataset.json`` or the images are missing.
    """
    try:
        description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        ending, _ = description["file_ending"], description["labels"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{folder / 'dataset.json'} is missing or incomplete; convert the data set again") from e
    found = [
        (path.name[: -len(f"_0000{ending}")], part, path)
        for part in Part
        for path in sorted((folder / part.value).glob(f"*_0000{ending}"))
    ]
    if not found:
        raise UserError(f"{folder} holds no images named <case>_0000{ending}")
    recorded = _recorded_patients(folder)
    guessed = {} if recorded else _guessed_patients([name for name, _, _ in found])
    cases = tuple(
        RawCase(
            name,
            part,
            path,
            _existing(folder / part.label_folder / f"{name}{ending}"),
            recorded.get(name) or guessed.get(name, name),
        )
        for name, part, path in found
    )
    splits_file = _splits_file(folder)
    splits = _read_splits(splits_file) if splits_file else []
    return RawDataSet(folder, description, cases, splits, splits_file, not recorded)


def _read_splits(path: Path) -> list[dict[str, list[str]]]:
    try:
        folds = json.loads(path.read_text(encoding="utf-8"))
        return [{side: list(fold[side]) for side in ("train", "val")} for fold in folds]
    except (ValueError, KeyError, TypeError) as e:
        message = f'{path} holds no splits; expected is a JSON list of {{"train": [names], "val": [names]}}'
        raise UserError(message) from e


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _recorded_patients(folder: Path) -> dict[str, str]:
    """Case to patient from the ``conversion.json`` that our converters write."""
    path = folder / "conversion.json"
    if not path.is_file():
        return {}
    try:
        records = json.loads(path.read_text(encoding="utf-8"))["cases"]
        return {name: record["patient"] for record in records for name in record["outputs"]}
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is damaged; convert the data set again, or delete the file") from e


def _guessed_patients(names: list[str]) -> dict[str, str]:
    """``a_b_017`` belongs to ``a_b`` where more than one but not all cases do."""
    stems = {name: re.sub(r"[_-](slice|s)?\d+$", "", name) for name in names}
    counts = Counter(stems.values())
    return {name: stem for name, stem in stems.items() if 1 < counts[stem] < len(names)}


def _splits_file(folder: Path) -> Path | None:
    base = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112
    candidates = [Path(base) / folder.name / "splits_final.json"] if base else []
    return next((path for path in [*candidates, folder / "splits_final.json"] if path.is_file()), None)


def display_slice(image: NDArray[Any], label: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """One slice to show: the picture itself, or the volume's slice with most foreground (else its middle)."""
    if image.ndim == 2:
        return image.astype(np.float32)
    index = len(image) // 2
    if label is not None and label.any():
        index = int((label > 0).sum(axis=(1, 2)).argmax())
    return image[index].astype(np.float32)
