"""nnU-Net's dataset.json: its labels and its channels, read by one set of rules.

Stands at the bottom, beside :mod:`nnunet_covid.files`, because evaluation reads labels without nnU-Net. The images and
label maps of a data set are listed and read in :mod:`nnunet_covid.nnunet.dataset`; converters write the document.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import stays_below

BACKGROUND = "background"
IGNORE = "ignore"
GUIDED_KEY = "nnunet_covid_guided"
"""Entry of a guided data set that says how its last channel, the infection map, was made."""
UNTOUCHED = "nonorm"
"""The channel name that our converters give a lung mask: nnU-Net leaves its values 0 and 1 alone."""

Labels = Mapping[str, int | Sequence[int]]
"""The entry ``labels``: a value per name, or several for a region."""


def read_dataset_json(path: Path) -> dict[str, Any]:
    """The content of a dataset.json.

    Raises:
        UserError: If the file cannot be read, has no labels, or its ``file_ending`` would lead to other folders.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except ValueError as e:
        raise UserError(f"{path}: is not valid JSON ({e})") from e
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise UserError(f"{path}: has no 'labels'")
    ending = content.get("file_ending", ".png")
    if not stays_below(ending, one_name=True):
        raise UserError(f"{path}: the 'file_ending' {ending!r} is none; write one such as .nii.gz or .png")
    return content


def label_values(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Name of each label or region to its values, in the order of the document, background and ignore included.

    Raises:
        UserError: If a value is no integer.
    """
    return {name: _as_values(name, value) for name, value in labels.items()}


def foreground_values(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Name of each foreground class or region to its values, in the order of the document.

    Raises:
        UserError: If a value is no integer.
    """
    return {name: values for name, values in label_values(labels).items() if name != IGNORE and set(values) != {0}}


def ignore_label(labels: Labels) -> int | None:
    """The value of voxels that do not count; ``None`` if there is no such label.

    Raises:
        UserError: If it is not a single value.
    """
    if IGNORE not in labels:
        return None
    values = _as_values(IGNORE, labels[IGNORE])
    if len(values) != 1:
        raise UserError("the ignore label must be a single value")
    return values[0]


def has_regions(labels: Labels) -> bool:
    """Whether any class is a union of labels; nnU-Net then trains one sigmoid per region."""
    return any(len(values) > 1 for values in foreground_values(labels).values())


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """Names of the input channels in order; older documents call them modalities."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def lung_mask_channel(dataset_json: Mapping[str, Any]) -> int | None:
    """Index of the lung mask: the last of several channels, by our converters' name or by a name with "lung" in it.

    The infection map of a guided data set, which is the last of all, does not count. ``None`` if there is no mask.
    """
    names = channel_names(dataset_json)
    if GUIDED_KEY in dataset_json:
        names.pop()
    last = names[-1].lower()
    return len(names) - 1 if len(names) > 1 and (last == UNTOUCHED or "lung" in last) else None


def _as_values(name: str, value: object) -> tuple[int, ...]:
    parts: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        numbers = tuple(int(v) for v in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers:
        raise UserError(f"label '{name}': {value!r} is neither an integer nor a list of integers")
    return numbers
