"""nnU-Net's dataset.json, its labels and its channels, and splits_final.json, read by one set of rules.

Stands at the bottom, beside :mod:`nnunet_covid.files`, because evaluation reads labels without nnU-Net. The images and
label maps of a data set are listed and read in :mod:`nnunet_covid.nnunet.dataset`; converters write the document.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import stays_below

BACKGROUND = "background"
IGNORE = "ignore"
IMAGES = ("channel_names", "file_ending")
"""What the document says of images."""
GUIDED_KEY = "nnunet_covid_guided"
"""Entry of a guided data set that says how its last channel, the infection map, was made."""
GREY = "grey_ct"
"""The channel name that our converters give grey values: nnU-Net normalises each image on its own."""
WINDOW_KEY = "nnunet_covid_window"
"""Entry of a data set whose Hounsfield units became grey values from 0 to 255: those of 0 and of 255."""
UNTOUCHED = "nonorm"
"""The channel name that our converters give a lung mask: nnU-Net leaves its values 0 and 1 alone."""

ORGANS = frozenset({"lung", "lungs", "lobe", "lobes", "liver", "heart", "trachea", "airway", "airways"})
LESIONS = re.compile(
    "lesion|infect|disease|pneumonia|covid|consolidation|opacit|glass|ggo|atelectas|effusion|tumou?r|cancer|nodul|metasta"
)
"""In a label's name beside which an organ's name tells where a lesion lies: ``lung_infection``."""

Labels = Mapping[str, int | Sequence[int]]
"""The entry ``labels``: a value per name, or several for a region."""
Split = dict[str, list[str]]
"""One fold: ``train`` and ``val``, each a list of case names."""
SPLITS = 'a JSON list of {"train": [names], "val": [names]}'


def splits_of(text: str) -> list[Split]:
    """The folds that the text of a splits_final.json holds.

    Raises:
        ValueError: If it is not :data:`SPLITS`.
    """
    folds = json.loads(text)
    sides = ("train", "val")
    whole = isinstance(folds, list) and all(
        isinstance(fold, dict) and all(isinstance(fold.get(side), list) for side in sides) for fold in folds
    )
    if not whole:
        raise ValueError(f"not {SPLITS}")
    return [{side: [str(name) for name in fold[side]] for side in sides} for fold in folds]


def fold_of(splits: Sequence[Split], number: str) -> Split | None:
    """A fold by its number, as behind ``fold_``; none of ``all``, nor of a number that is not listed."""
    return splits[int(number)] if number.isdecimal() and int(number) < len(splits) else None


def other_folds(preprocessed: Path, raw: Path) -> str:
    """A line where nnU-Net will not plan, because the split below ``nnUNet_preprocessed`` does not go on with the raw
    data set's, or one of the files is no split; empty where it does, or one is not there.

    Args:
        preprocessed, raw: The two files; the first may have more folds than the second.
    """
    as_sets = []
    for path in (preprocessed, raw):
        try:
            folds = splits_of(path.read_text(encoding="utf-8"))
        except OSError:
            return ""
        except ValueError:
            return f"{path} holds no splits, but nnU-Net plans with them; expected is {SPLITS}: mend or delete it"
        as_sets.append([{side: set(names) for side, names in fold.items()} for fold in folds])
    there, own = as_sets
    if there[: len(own)] == own:
        return ""
    return f"{preprocessed} has other folds than {raw}, and nnU-Net will not plan with both: delete one of them"


def read_dataset_json(path: Path, *, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The content of a dataset.json, of which labels, channels and file ending are what nnU-Net expects.

    Args:
        path: The file.
        needed: Entries that it must have beside the labels, ``channel_names`` or ``file_ending``.

    Raises:
        UserError: If the file cannot be read, an entry is missing or has another form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{path}: is not valid JSON ({e}); write it again") from e
    if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
        raise UserError(f"{path}: has no 'labels'; it must name each class and its value, as background and 0")
    if fault := _fault_of(content, needed):
        raise UserError(f"{path}: {fault}")
    return content


def _fault_of(content: Mapping[str, Any], needed: Sequence[str]) -> str | None:
    """What is wrong with the entries, with the remedy."""
    channels = next((content[name] for name in ("channel_names", "modality") if content.get(name) is not None), None)
    present = {name for name in content if name != "channel_names"} | (
        {"channel_names"} if channels is not None else set()
    )
    if missing := [name for name in needed if name not in present]:
        return f"is incomplete, it has no {missing[0]!r}; convert the data set again, or write it there"
    labels = content["labels"]
    if labels and all(name.isdecimal() and isinstance(value, str) for name, value in labels.items()):
        name, value = next(iter(labels.items()))
        return f"names and values of 'labels' are swapped; write {json.dumps({value: int(name)})}, not the reverse"
    try:
        label_values(labels)
        ignore_label(labels)
    except UserError as e:
        return str(e)
    if channels is not None and not _are_channels(channels):
        return f'\'channel_names\' is {channels!r}; it must be {{"0": NAME, "1": NAME}} and so on, as {{"0": "CT"}}'
    ending = content.get("file_ending", ".")
    if not (isinstance(ending, str) and ending.startswith(".") and stays_below(f"a{ending}", one_name=True)):
        return f"'file_ending' is {ending!r}; it must be the ending of the images with its dot, as \".nii.gz\""
    return None


def _are_channels(names: object) -> bool:
    if not (isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values())):
        return False
    return all(number.isdecimal() for number in names)


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


def is_organ(name: str) -> bool:
    """Whether a label is a part of the body by its name, as ``left_lung`` or ``liver``, and no lesion of it."""
    lower = name.lower()
    return not ORGANS.isdisjoint(re.split(r"[_\-\s]+", lower)) and LESIONS.search(lower) is None


def lesion_values(labels: Labels) -> dict[str, tuple[int, ...]]:
    """Those of :func:`foreground_values` that are no organs by their names; all where there are no others."""
    offered = foreground_values(labels)
    return {name: values for name, values in offered.items() if not is_organ(name)} or offered


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


def window_of(dataset_json: Mapping[str, Any]) -> tuple[float, float] | None:
    """The Hounsfield units that became the grey values 0 and 255; ``None`` where the document does not say.

    Raises:
        UserError: If they are not two numbers, the lower first.
    """
    recorded = dataset_json.get(WINDOW_KEY)
    if recorded is None:
        return None
    try:
        low, high = recorded
        fits = -math.inf < low < high < math.inf
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"{WINDOW_KEY!r} in dataset.json is {recorded!r}; write two numbers, the lower end first")
    return float(low), float(high)


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
    if not parts or not all(isinstance(part, numbers.Integral) and not isinstance(part, bool) for part in parts):
        raise UserError(
            f"label '{name}' is {value!r}, but must be a whole number, or several in brackets; write it without quotes"
        )
    return tuple(int(part) for part in parts)
