"""The folder of unlabelled images: what is in it, and whether any of it is known already."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.nnunet.rounds.setting import Setting

CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
SHOWN = 5
"""Names in an error message."""

Images = dict[str, tuple[Path, ...]]
"""Case name to the files of its channels."""


def unlabelled_images(folder: Path, setting: Setting) -> Images:
    """The cases of a folder, named as nnU-Net wants images: ``CASE_0000`` for the first channel.

    Raises:
        UserError: If there are none, or one has other channels than the data set.
    """
    if not folder.is_dir():
        raise UserError(f"-i {folder}: no such folder")
    ending = setting.dataset_json["file_ending"]
    channels = len(setting.dataset_json.get("channel_names", setting.dataset_json.get("modality", {})))
    images = images_in(folder, ending)
    if not images:
        raise UserError(f"-i {folder}: no images to label; nnU-Net's names are CASE_0000{ending}, one file per channel")
    wrong = [f"{case} ({len(files)})" for case, files in images.items() if len(files) != channels]
    if wrong:
        raise UserError(f"-i {folder}: images need {channels} channel(s), but the number differs in {_some(wrong)}")
    return images


def images_in(folder: Path, ending: str) -> Images:
    """All cases of a folder and the files of their channels, in order of names."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(folder.glob(f"*{ending}")):
        match = CHANNEL.match(path.name[: -len(ending)])
        if match:
            found.setdefault(match["case"], {})[int(match["channel"])] = path
    return {case: tuple(files[c] for c in sorted(files)) for case, files in sorted(found.items())}


class Checksum(NamedTuple):
    """SHA-256 of a case as nnU-Net reads it, so that a copy in another compression is the same.

    Attributes:
        voxels: Of the voxel values.
        whole: Of these and of spacing and geometry.
    """

    voxels: str
    whole: str


def checksums(images: Mapping[str, Iterable[Path]], setting: Setting, title: str) -> dict[str, Checksum]:
    """The checksums of each case.

    Raises:
        UserError: If a file cannot be read.
    """
    reader = setting.plans_manager.image_reader_writer_class()
    result = {}
    for case, files in tqdm(images.items(), desc=title, unit="image", leave=False):
        try:
            voxels, properties = reader.read_images([str(f) for f in files])
        except Exception as e:  # every reader has errors of its own
            raise UserError(f"{next(iter(files))}: cannot be read ({reason_of(e)})") from e
        voxels = np.ascontiguousarray(voxels)
        digest = hashlib.sha256(repr((voxels.shape, voxels.dtype.str)).encode() + voxels.tobytes())
        plain = digest.hexdigest()
        digest.update(json.dumps(properties, sort_keys=True, default=lambda o: np.asarray(o).tolist()).encode())
        result[case] = Checksum(plain, digest.hexdigest())
    return result


def known_images(own: Mapping[str, str], setting: Setting) -> dict[str, str]:
    """Unlabelled cases that are also labelled or test cases of the data set, or twice in the folder.

    Args:
        own: Checksum of the voxels of each unlabelled case.

    Returns:
        Case to where else it is.
    """
    seen: dict[str, str] = {}
    known: dict[str, str] = {}
    if setting.raw_folder is not None:
        for part in ("imagesTr", "imagesTs"):
            images = images_in(setting.raw_folder / part, setting.dataset_json["file_ending"])
            for case, digest in checksums(images, setting, f"read {part}").items():
                seen[digest.voxels] = f"{part}/{case}"
    for case, voxels in sorted(own.items()):
        if voxels in seen:
            known[case] = seen[voxels]
        else:
            seen[voxels] = f"{case} of the same folder"
    return known


def refuse_known(known: Mapping[str, str], folder: Path) -> None:
    """Stop if there are any.

    Raises:
        UserError: That names them.
    """
    if known:
        pairs = [f"{case} = {other}" for case, other in known.items()]
        raise UserError(
            f"-i {folder}: {len(known)} image(s) are known already ({_some(pairs)}). Remove them, or add "
            "--leave-out-duplicates"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
