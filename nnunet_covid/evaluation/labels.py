"""The classes that are scored: labels or regions (unions of labels), and where their probabilities lie.

What dataset.json says is read in ``nnunet_covid.dataset_json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.dataset_json import (
    BACKGROUND,
    Labels,
    foreground_values,
    has_regions,
    ignore_label,
    label_values,
    read_dataset_json,
)
from nnunet_covid.errors import UserError


@dataclass(frozen=True)
class EvaluatedClass:
    """A class: its name, the label values that belong to it, and its channel in saved probabilities."""

    name: str
    values: tuple[int, ...]
    channel: int

    def mask(self, label_map: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Where a label map shows this class."""
        first, *others = self.values
        mask: NDArray[np.bool_] = label_map == first
        for value in others:
            mask |= label_map == value
        return mask


@dataclass(frozen=True)
class LabelScheme:
    """All classes of a data set, the ignore label, and the number of channels of saved probabilities."""

    classes: tuple[EvaluatedClass, ...]
    channels: int
    ignore: int | None = None

    @property
    def has_regions(self) -> bool:
        """Whether any class is a union of labels; nnU-Net then trains one sigmoid per region."""
        return any(len(c.values) > 1 for c in self.classes)

    @property
    def known_values(self) -> frozenset[int]:
        """Every value a label map may hold, the ignore label included."""
        ignored = () if self.ignore is None else (self.ignore,)
        return frozenset({0, *ignored, *(v for c in self.classes for v in c.values)})


def scheme_of_labels(labels: Labels) -> LabelScheme:
    """The scheme of a ``labels`` entry of dataset.json, by nnU-Net's own rules.

    With any region of more than one label the channels are the regions in their order; otherwise they are all
    labels by value, background first. The background is not scored.

    Raises:
        UserError: if no background is declared, a value is no integer, or nothing is left to score.
    """
    if label_values(labels).get(BACKGROUND) != (0,):
        raise UserError("the labels must declare 'background': 0")
    ignore, scored = ignore_label(labels), foreground_values(labels)
    if not scored:
        raise UserError("the labels name no class besides background and ignore")
    by_value = sorted({0, *(values[0] for values in scored.values())})
    regions = has_regions(labels)
    classes = tuple(
        EvaluatedClass(name, values, position if regions else by_value.index(values[0]))
        for position, (name, values) in enumerate(scored.items())
    )
    return LabelScheme(classes, channels=len(scored if regions else by_value), ignore=ignore)


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """dataset.json beside the predictions (nnU-Net copies it there), else in or above the references.

    Raises:
        UserError: if there is none.
    """
    places = (predictions, references, references.parent, predictions.parent)
    if found := [folder / "dataset.json" for folder in places if (folder / "dataset.json").is_file()]:
        return found[0]
    raise UserError(
        f"no dataset.json in {predictions}, {references} or above them: name one from elsewhere, or give the labels",
        about="dataset_json",
    )


def require_same_meaning(file: Path, references: Path) -> None:
    """No label may have another value beside or above the references than in the dataset.json that is used.

    Raises:
        UserError: If one has.
    """
    for other in (references / "dataset.json", references.parent / "dataset.json"):
        if not other.is_file() or other.samefile(file):
            continue
        used, theirs = (label_values(read_dataset_json(path)["labels"]) for path in (file, other))
        for name in sorted(set(used) & set(theirs)):
            if set(used[name]) != set(theirs[name]):
                told = f"{_listed(used[name])} in {file}, and {_listed(theirs[name])} in {other}"
                raise UserError(f"'{name}' is {told}; name the file that is right for both", about="dataset_json")


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
