"""What is to be linked: raw data sets of other diseases and folders of unlabelled images, read and checked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.reader_writer_registry import (
    determine_reader_writer_from_dataset_json,
    recursive_find_reader_writer_by_name,
)
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.link.preprocess import SourceFiles


@dataclass(frozen=True)
class RawDataSet:
    """A data set of ``nnUNet_raw``.

    Attributes:
        reader: Name of nnU-Net's reader for its files.
        lesions: Label values that count as lesion.
    """

    name: str
    sources: tuple[SourceFiles, ...]
    dataset_json: dict[str, Any]
    reader: str
    lesions: tuple[int, ...]


def folder_of(variable: str) -> Path:
    """One of nnU-Net's folders.

    Raises:
        UserError: If the variable is not set or names no folder.
    """
    value = {"nnUNet_raw": nnUNet_raw, "nnUNet_preprocessed": nnUNet_preprocessed}[variable].get()
    if not value or not Path(value).is_dir():
        raise UserError(f"{variable} is {value or 'not set'}: export {variable}=/your/folder; see nnunet-covid doctor")
    return Path(value)


def data_set_name(number_or_name: str) -> str:
    """``DatasetNNN_Name`` of a number or name.

    Raises:
        UserError: If there is no such data set, or several.
    """
    try:
        return str(maybe_convert_to_dataset_name(number_or_name))
    except (RuntimeError, ValueError) as e:
        folders = [folder_of(variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed")]
        where = " or ".join(map(str, folders))
        raise UserError(f"data set {number_or_name!r}: {_reason(str(e))} in {where}") from e


def _reason(text: str) -> str:
    return "there are several" if text.startswith("More than one") else "there is none"


def read_raw_data_set(number_or_name: str, lesion_names: Sequence[str] = ()) -> RawDataSet:
    """Files and labels of a data set of another disease.

    Args:
        lesion_names: Labels that are lesions; none given means every label but background and ignore.

    Raises:
        UserError: If it is not there, has no label that is a lesion, or no training case.
    """
    name = data_set_name(number_or_name)
    folder = folder_of("nnUNet_raw") / name
    try:
        dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        files = get_filenames_of_train_images_and_targets(str(folder), dataset_json)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(
            f"{folder} is no raw nnU-Net data set with a dataset.json and imagesTr; convert it first"
        ) from e
    if not files:
        raise UserError(f"{folder / 'imagesTr'} holds no image; convert the data set again")
    sources = tuple(SourceFiles(case, tuple(f["images"]), f["label"]) for case, f in sorted(files.items()))
    missing = [path for s in sources for path in (*s.images, s.label) if path and not Path(path).is_file()]
    if missing:
        raise UserError(f"{missing[0]} is missing; convert {name} again")
    reader = determine_reader_writer_from_dataset_json(dataset_json, sources[0].images[0], True, False)
    lesions = _lesion_values(dataset_json["labels"], lesion_names, folder / "dataset.json")
    return RawDataSet(name, sources, dataset_json, reader.__name__, lesions)


def _lesion_values(labels: dict[str, Any], wanted: Sequence[str], file: Path) -> tuple[int, ...]:
    offered = {name: value for name, value in labels.items() if name not in ("background", "ignore")}
    chosen = {name: value for name, value in offered.items() if not wanted or name in wanted}
    values = {v for value in chosen.values() for v in (value if isinstance(value, list) else [value])} - {0}
    if not values:
        known = ", ".join(offered) or "none but background"
        asked = f"none of the labels {', '.join(wanted)}" if wanted else "no label that could be a lesion"
        raise UserError(f"{file} has {asked} (it has: {known}); link another data set, or name labels with --lesions")
    return tuple(sorted(int(v) for v in values))


def check_lesions(data_set: RawDataSet) -> None:
    """Look for one case with a lesion.

    Raises:
        UserError: If no label map holds one.
    """
    reader = recursive_find_reader_writer_by_name(data_set.reader)()
    for source in data_set.sources:
        if source.label and np.isin(reader.read_seg(source.label)[0], data_set.lesions).any():
            return
    values = ", ".join(map(str, data_set.lesions))
    raise UserError(
        f"{data_set.name} has no lesion: none of its {len(data_set.sources)} label maps holds the value {values}; "
        "link a data set with lesions"
    )


def holds_slices(source: SourceFiles, reader: str) -> bool:
    """Whether this case is a single slice."""
    data, _ = recursive_find_reader_writer_by_name(reader)().read_images(list(source.images))
    return bool(data.shape[1] == 1)


def unlabelled_sources(
    folder: Path, file_ending: str, channels: int, at_most: int | None = None, seed: int = 12345
) -> tuple[SourceFiles, ...]:
    """Images named as nnU-Net names them, ``CASE_0000`` and so on.

    Args:
        at_most: Keep this many, drawn at random.

    Raises:
        UserError: If there is none, or a channel is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; --unlabelled takes a folder of images named CASE_0000{file_ending}")
    if at_most is not None and at_most < 1:
        raise UserError(f"--at-most {at_most}: at least one image must be left")
    pattern = re.compile(rf"(.+)_(\d{{4}}){re.escape(file_ending)}")
    found: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        if match := pattern.fullmatch(path.name):
            found.setdefault(match[1], []).append(str(path))
    if not found:
        raise UserError(
            f"{folder} holds no image named CASE_0000{file_ending}, as the COVID data set's images are named"
        )
    for name, images in found.items():
        if len(images) != channels:
            raise UserError(f"{folder}: {name} has {len(images)} channel(s), but the COVID data set has {channels}")
    names = sorted(found)
    if at_most is not None and at_most < len(names):
        names = sorted(np.random.RandomState(seed).choice(names, at_most, replace=False).tolist())
    return tuple(SourceFiles(name, tuple(found[name]), None) for name in names)
