"""nnU-Net's files on disk: a data set's name, cases and folds, images and label maps read and written, a model's folds.

Which cases a folder holds stands in :mod:`nnunet_covid.nnunet.cases`, what dataset.json says in
:mod:`nnunet_covid.dataset_json`, which needs no nnU-Net. Images are read with nnU-Net's own readers; how label maps and
maps are written stands in :mod:`nnunet_covid.nnunet.written_images`.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets
from numpy.typing import NDArray

from nnunet_covid.dataset_json import (
    IMAGES,
    SPLITS,
    Split,
    channel_names,
    ignore_label,
    read_dataset_json,
    splits_of,
)
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import environment_folder, environment_folders, stays_below
from nnunet_covid.header_claims import false_claim
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.volume_files import NOT_FINITE, header_fault, known_refusal, loses_values

NIFTI = ".nii.gz"
LISTED = "dataset"
"""Entry of dataset.json, in which the training cases may be listed, wherever their files are."""


@dataclass(frozen=True)
class RawDataset:
    """A raw data set with labels.

    Attributes:
        folder: ``DatasetNNN_Name`` below ``nnUNet_raw``.
        dataset_json: Its description.
        cases: The training cases by name; every one has a label map.
        reader: An instance of nnU-Net's reader and writer for it.
    """

    folder: Path
    dataset_json: dict[str, Any]
    cases: dict[str, CaseFiles]
    reader: Any

    @property
    def name(self) -> str:
        """``DatasetNNN_Name``."""
        return self.folder.name

    @property
    def ending(self) -> str:
        """Of image and label files."""
        return self.dataset_json["file_ending"]

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(channel_names(self.dataset_json))

    @property
    def ignore_label(self) -> int | None:
        """The value of voxels that do not count."""
        return ignore_label(self.dataset_json["labels"])

    def read_labels(self, path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
        """A label map (z, y, x) of this data set's format and its properties.

        Raises:
            UserError: If it cannot be read.
        """
        labels, properties = read_labels(self.reader, path)
        return labels[0], properties

    def splits(self) -> list[Split] | None:
        """The folds in use: those below ``nnUNet_preprocessed``, else those beside the images, else none."""
        return read_splits(self.name, self.folder)


def dataset_name(number_or_name: str) -> str:
    """``DatasetNNN_Name`` of a number or name, looked for in nnU-Net's three folders.

    Raises:
        UserError: If there is no such data set, or several.
    """
    try:
        return str(maybe_convert_to_dataset_name(number_or_name))
    except (RuntimeError, ValueError) as e:
        several = str(e).startswith("More than one")
        count, remedy = ("there are several", "; give one by its name") if several else ("there is none", "")
        raise UserError(f"data set {number_or_name!r}: {count} in {_present_datasets()}{remedy}") from e


def _present_datasets() -> str:
    """nnU-Net's folders and the names of the data sets in them."""
    if not any(environment_folder(name) for name in ("nnUNet_raw", "nnUNet_preprocessed")):
        nnunet_folder("nnUNet_raw")
    folders = environment_folders()
    present = sorted({path.name for folder in folders for path in folder.glob("Dataset*_*")})
    return f"{' or '.join(map(str, folders))}; there are {', '.join(present) or 'none'}"


def nnunet_folder(variable: str) -> Path:
    """One of nnU-Net's three folders.

    Raises:
        UserError: If the variable is not set or names no folder.
    """
    folder = environment_folder(variable)
    if folder is None or not folder.is_dir():
        state = f"{folder}, which is no folder" if folder else "not set"
        raise UserError(f"{variable} is {state}: export {variable}=/your/folder; see nnunet-covid doctor")
    return folder


def raw_dataset_folder(text: str) -> Path:
    """The folder of a raw data set that a number, a name or a path stands for.

    Raises:
        UserError: If there is none, or more than one.
    """
    if (Path(text) / "dataset.json").is_file():
        return Path(text).resolve()
    folder = nnunet_folder("nnUNet_raw") / dataset_name(text)
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; data sets are in {_present_datasets()}")
    return folder


def open_raw_dataset(text: str) -> RawDataset:
    """Find a raw data set by number, name or path and list its training cases.

    Raises:
        UserError: If there is no such data set, or its images or labels are incomplete.
    """
    folder = raw_dataset_folder(text)
    dataset_json = read_dataset_json(folder / "dataset.json", needed=IMAGES)
    try:
        cases = _training_cases(folder, dataset_json)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{folder} is no raw nnU-Net data set with dataset.json and imagesTr: {e}") from e
    for case in cases:
        for path in (*case.files, case.label):
            if path is None or not path.is_file():
                raise UserError(f"{path} is missing: a file of case {case.name}; convert the data set again")
    example = str(cases[0].files[0])
    reader = determine_reader_writer_from_dataset_json(dataset_json, example, verbose=False)()
    return RawDataset(folder, dataset_json, {case.name: case for case in cases}, reader)


def _training_cases(folder: Path, dataset_json: dict[str, Any]) -> list[CaseFiles]:
    """Every training case, in the order of names; dataset.json may list them itself."""
    if LISTED in dataset_json:
        return listed_cases(folder, dataset_json)
    ending = dataset_json["file_ending"]
    found = list_cases(folder / "imagesTr", ending, len(channel_names(dataset_json)))
    return [replace(case, label=folder / "labelsTr" / f"{case.name}{ending}") for case in found]


def listed_cases(folder: Path, dataset_json: dict[str, Any]) -> list[CaseFiles]:
    """The training cases of a dataset.json with the entry ``dataset``, in the order of names; files may be missing.

    Raises:
        ValueError: If it lists none.
    """
    listed = dataset_json[LISTED]
    if not isinstance(listed, dict) or not listed or not all(map(_is_entry, listed.values())):
        what = '{CASE: {"images": [FILE, …], "label": FILE}}'
        raise ValueError(f"'dataset' in dataset.json lists no cases; write {what}, or leave it out to take all")
    if outside := [name for name in listed if not stays_below(name, one_name=True)]:
        raise ValueError(f"'dataset' in dataset.json has a case named {outside[0]!r}, which leads to another folder")
    files = get_filenames_of_train_images_and_targets(str(folder), {LISTED: deepcopy(listed)})  # which changes it
    return [CaseFiles(k, tuple(map(Path, v["images"])), Path(v["label"])) for k, v in sorted(files.items())]


def _is_entry(entry: Any) -> bool:
    """Whether dataset.json names some images and a label map for a case."""
    images = entry.get("images") if isinstance(entry, dict) else None
    names = [*images, entry.get("label")] if isinstance(images, list) else []
    return len(names) > 1 and all(isinstance(name, str) for name in names)


def read_splits(dataset: str, *places: Path) -> list[Split] | None:
    """The folds of a data set below ``nnUNet_preprocessed``, else those in other places, else none.

    Raises:
        UserError: If a file is no list of folds.
    """
    base = environment_folder("nnUNet_preprocessed")
    candidates = [place / "splits_final.json" for place in (*([base / dataset] if base else []), *places)]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        return None
    try:
        return splits_of(path.read_text(encoding="utf-8"))  # a byte order mark would end nnU-Net
    except (OSError, ValueError) as e:
        message = f"{path} holds no splits; expected is {SPLITS}, in UTF-8 without a byte order mark"
        raise UserError(message) from e


def read_images(reader: Any, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
    """The image (channels, z, y, x) of the files of one case and its properties, from one of nnU-Net's readers.

    Raises:
        UserError: If a file cannot be read, its header cannot be believed, or a voxel is no finite number.
    """
    image, properties = _read(reader.read_images, [str(path) for path in files], files)
    if not np.isfinite(image).all() or any(map(loses_values, files, image)):
        raise UserError(f"{files[0]} {NOT_FINITE}")
    return image, properties


def refuse_slices_in_3d(case: CaseFiles, plans: PlansManager, configuration: str) -> None:
    """Look at one image of a folder: a slice alone has no neighbours for a network that works in 3D.

    Raises:
        UserError: If it is one, or cannot be read.
    """
    if len(plans.get_configuration(configuration).patch_size) < 3:
        return
    if read_images(plans.image_reader_writer_class(), case.files)[0].shape[1] == 1:
        raise UserError(f"{case.files[0]} is a slice, but {configuration} works in 3D: give volumes, or take 2d")


def read_labels(reader: Any, path: Path) -> tuple[NDArray[Any], dict[str, Any]]:
    """The label map (1, z, y, x) of a file and its properties, from one of nnU-Net's readers.

    Raises:
        UserError: If it cannot be read, its header cannot be believed, or it is not one label map.
    """
    labels, properties = _read(reader.read_seg, str(path), [path])
    if len(labels) != 1:
        raise UserError(f"{path} holds {len(labels)} label maps; export one of them")
    return labels, properties


_AGAIN = "copy it again, or export it anew"
_CAUGHT_OUTPUT = threading.Lock()  # the output that is caught is that of the whole process


def check_header(path: Path) -> None:
    """Look at the header of an image or label map, which takes no time beside reading it.

    Raises:
        UserError: If it cannot be believed.
    """
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path} is a link to a file that is not there; copy the file itself here")
    if fault := header_fault(path):
        raise UserError(f"{path} cannot be used, {fault}")
    if claim := false_claim(path):
        raise UserError(f"{path} cannot be read: {claim}")


def _read(read: Any, files: Any, paths: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
    for path in paths:
        check_header(path)
    said = io.StringIO()
    try:
        with _CAUGHT_OUTPUT, contextlib.redirect_stdout(said):
            return read(files)
    except Exception as e:  # every format has exceptions of its own
        lines = [line for line in said.getvalue().splitlines() if line.strip()]
        reason = known_refusal(e) or (lines[0] if lines else f"{reason_of(e)}; {_AGAIN}")
        raise UserError(f"{paths[0]} cannot be read: {reason}") from e
