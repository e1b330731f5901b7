"""An existing nnU-Net raw data set, read with nnU-Net's own readers."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.nnunet.case_files import list_cases
from nnunet_covid.nnunet.image_maps import TEMPORARY, write_map
from nnunet_covid.raw_dataset.splits import Split


@dataclass(frozen=True)
class RawDataSet:
    """A raw data set with labels.

    Attributes:
        cases: Training case to its image files, channel by channel.
        labels: Training case to its label file.
        reader: An instance of nnU-Net's reader and writer for it.
    """

    folder: Path
    dataset_json: dict[str, Any]
    cases: dict[str, tuple[Path, ...]]
    labels: dict[str, Path]
    reader: Any

    @property
    def ending(self) -> str:
        """Of image and label files."""
        return self.dataset_json["file_ending"]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(self.dataset_json["channel_names"])

    @property
    def ignore_label(self) -> int | None:
        """The value of voxels that do not count."""
        return self.dataset_json["labels"].get("ignore")

    def read_labels(self, case: str) -> tuple[NDArray[Any], dict[str, Any]]:
        """Label map (z, y, x) of a case and its properties."""
        return self.read_label_file(self.labels[case])

    def read_label_file(self, path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
        """Any label map of this data set's format.

        Raises:
            UserError: If it cannot be read.
        """
        try:
            labels, properties = self.reader.read_seg(str(path))
        except Exception as e:  # every format has exceptions of its own
            raise UserError(f"{path} cannot be read as a label map: {reason_of(e)}") from e
        return labels[0], properties

    def splits(self) -> list[Split] | None:
        """The folds in use: those below ``nnUNet_preprocessed``, else those beside the images, else none."""
        return read_splits(self.folder.name, self.folder)


def read_splits(data_set: str, *places: Path) -> list[Split] | None:
    """The folds of a data set below ``nnUNet_preprocessed``, else those in other places, else none."""
    base = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112, nnU-Net's spelling
    for place in (*([Path(base) / data_set] if base else []), *places):
        path = place / "splits_final.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def open_raw_data_set(base: Path, data_set: str) -> RawDataSet:
    """Find a raw data set by number or name and list its training cases.

    Raises:
        UserError: If there is no such data set, or its images or labels are incomplete.
    """
    folder = _find(base, data_set)
    try:
        dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        cases, labels = _training_files(folder, dataset_json)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{folder} is no raw nnU-Net data set with dataset.json and imagesTr: {e}") from e
    channels = len(dataset_json["channel_names"])
    for case, images in cases.items():
        if len(images) != channels:
            raise UserError(f"{folder}: case {case} has {len(images)} channel(s), dataset.json names {channels}")
        if not labels[case].is_file():
            raise UserError(f"{labels[case]} is missing: the label map of case {case}")
    example = str(next(iter(cases.values()))[0])
    reader = determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)()
    return RawDataSet(folder, dataset_json, cases, labels, reader)


def _training_files(folder: Path, dataset_json: dict[str, Any]) -> tuple[dict[str, tuple[Path, ...]], dict[str, Path]]:
    """Images and label map of every training case; dataset.json may list them itself."""
    if "dataset" in dataset_json:
        listed = get_filenames_of_train_images_and_targets(str(folder), dataset_json)
        images = {case: tuple(Path(path) for path in entry["images"]) for case, entry in listed.items()}
        return images, {case: Path(entry["label"]) for case, entry in listed.items()}
    ending = dataset_json["file_ending"]
    found = list_cases(folder / "imagesTr", ending, len(dataset_json["channel_names"]))
    images = {case.name: case.files for case in found}
    return images, {case: folder / "labelsTr" / f"{case}{ending}" for case in images}


def _find(base: Path, data_set: str) -> Path:
    pattern = f"Dataset{int(data_set):03d}_*" if data_set.isdecimal() else data_set
    found = sorted(path for path in base.glob(pattern) if path.is_dir())
    if len(found) == 1:
        return found[0]
    present = ", ".join(sorted(path.name for path in base.glob("Dataset*_*"))) or "none"
    raise UserError(f"{base} has {'no' if not found else 'more than one'} data set '{data_set}'; there are {present}")


def copy_image(source: Path, target: Path) -> None:
    """Copy an image or label map, with the file beside it in which a 3D TIFF has its spacing."""
    shutil.copyfile(source, target)
    spacing = _spacing_file(source)
    if spacing.is_file():
        shutil.copyfile(spacing, _spacing_file(target))


def _spacing_file(path: Path) -> Path:
    """``CASE.json`` of ``CASE_0000.tif`` and of ``CASE.tif``."""
    return path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")


def write_labels(path: Path, labels: NDArray[Any], properties: dict[str, Any], reader: Any) -> None:
    """Write whole numbers (z, y, x) with nnU-Net's writer, under a temporary name, then renamed."""
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    reader.write_seg(labels, str(temporary), properties)
    spacing = temporary.with_suffix(".json")  # nnU-Net's writer of 3D TIFF leaves it
    if spacing.is_file():
        spacing.replace(_spacing_file(path))
    temporary.replace(path)


def write_channel(path: Path, channel: NDArray[Any], properties: dict[str, Any], reader: Any) -> None:
    """Write one channel (z, y, x) in the format and geometry of an image, under a temporary name, then renamed.

    Whole numbers go into any format; fractions need one that ITK or nibabel reads.
    """
    if channel.dtype == np.uint8 and path.suffix == ".png":
        temporary = path.with_name(f"{TEMPORARY}{path.name}")
        Image.fromarray(channel[0]).save(temporary, format="PNG")  # nnU-Net's writer turns 255 into 16 bits
        temporary.replace(path)
    elif channel.dtype.kind in "ui":
        write_labels(path, channel, properties, reader)
    else:
        write_map(path, channel, properties)
