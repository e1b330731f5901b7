"""The classes that are scored: labels or regions (unions of labels), and where their probabilities lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def scheme_of_labels(labels: Mapping[str, int | Sequence[int]]) -> LabelScheme:
    """The scheme of a ``labels`` entry of dataset.json, by nnU-Net's own rules.

    With any region of more than one label the channels are the regions in their order; otherwise they are all
    labels by value, background first. The background is not scored.

    Raises:
        UserError: if no background is declared, a value is no integer, or nothing is left to score.
    """
    values = {name: _as_values(name, value) for name, value in labels.items()}
    if values.get("background") != (0,):
        raise UserError("the labels must declare 'background': 0")
    ignored = values.pop("ignore", None)
    if ignored is not None and len(ignored) != 1:
        raise UserError("the ignore label must be a single value")
    scored = {name: value for name, value in values.items() if set(value) != {0}}
    if not scored:
        raise UserError("the labels name no class besides background and ignore")
    if any(len(value) > 1 for value in scored.values()):
        ordered = list(scored)
        channels = {name: ordered.index(name) for name in scored}
        count = len(scored)
    else:
        by_value = sorted({0, *(value[0] for value in scored.values())})
        channels = {name: by_value.index(value[0]) for name, value in scored.items()}
        count = len(by_value)
    classes = tuple(EvaluatedClass(name, value, channels[name]) for name, value in scored.items())
    return LabelScheme(classes, channels=count, ignore=None if ignored is None else ignored[0])


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The content of a dataset.json.

    Raises:
        UserError: if the file cannot be read or has no labels.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except ValueError as e:
        raise UserError(f"{path}: is not valid JSON ({e})") from e
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise UserError(f"{path}: has no 'labels'")
    return content


def find_dataset_json(predictions: Path, references: Path) -> Path:
    """dataset.json beside the predictions (nnU-Net copies it there), else in or above the references.

    Raises:
        UserError: if there is none.
    """
    places = (predictions, references, references.parent, predictions.parent)
    for folder in places:
        candidate = folder / "dataset.json"
        if candidate.is_file():
            return candidate
    raise UserError(
        f"no dataset.json in {predictions}, {references} or above them: "
        "name it with --dataset-json, or give the labels, as in --labels infection=1"
    )


def _as_values(name: str, value: object) -> tuple[int, ...]:
    parts: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        numbers = tuple(int(v) for v in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers:
        raise UserError(f"label '{name}': {value!r} is neither an integer nor a list of integers")
    return numbers
