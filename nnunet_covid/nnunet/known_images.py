"""Images known by their content, whatever their names and compression; those of a data set that must stay unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.dataset_json import channel_names
from nnunet_covid.errors import Unusable, UserError
from nnunet_covid.files import files_in, some_of
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import LISTED, listed_cases, read_images, read_splits


class Checksum(NamedTuple):
    """SHA-256 of a case as nnU-Net reads it, so that a copy in another compression is the same.

    Attributes:
        voxels: Of the voxel values.
        whole: Of these and of spacing and geometry.
    """

    voxels: str
    whole: str


def checksum(voxels: NDArray[Any], properties: dict[str, Any]) -> Checksum:
    """Of an image as nnU-Net's reader gives it."""
    voxels = np.ascontiguousarray(voxels)
    digest = hashlib.sha256(repr((voxels.shape, voxels.dtype.str)).encode() + voxels.tobytes())
    plain = digest.hexdigest()
    digest.update(json.dumps(properties, sort_keys=True, default=lambda o: np.asarray(o).tolist()).encode())
    return Checksum(plain, digest.hexdigest())


def checksums(
    cases: Sequence[CaseFiles],
    plans: PlansManager,
    dataset_json: dict[str, Any],
    shown: str,
    unusable: Unusable | None = None,
) -> dict[str, Checksum]:
    """The checksums of each case, by its name.

    Args:
        cases: Files of images.
        plans: Say how the images are read.
        dataset_json: Says how many channels an image has.
        shown: Beside the progress bar.
        unusable: Receives why a case is left out, instead of an error.

    Raises:
        UserError: If a file cannot be read or holds another number of channels.
    """
    reader, expected = plans.image_reader_writer_class(), len(channel_names(dataset_json))
    result = {}
    for case in tqdm(cases, desc=f"read {shown}", unit="image", leave=False, disable=None):
        with nullcontext() if unusable is None else unusable.going_on():
            voxels, properties = read_images(reader, case.files)
            if len(voxels) != expected:
                raise UserError(f"{case.files[0]}: has {len(voxels)} channel(s), the data set's images have {expected}")
            result[case.name] = checksum(voxels, properties)
    return result


def own_images(raw: Path | None, dataset_json: dict[str, Any]) -> dict[Path, list[CaseFiles]]:
    """The images of a raw data set in ``imagesTr`` and ``imagesTs``; a folder that holds none is left out.

    Training images that dataset.json lists stand for those in ``imagesTr``, wherever they are.

    Raises:
        UserError: If a folder holds some that would be passed over, or dataset.json lists none.
    """
    if raw is None:
        return {}
    ending, channels = dataset_json["file_ending"], len(channel_names(dataset_json))
    training, test = raw / "imagesTr", raw / "imagesTs"
    places = [test] if LISTED in dataset_json else [training, test]
    found = {place: list_cases(place, ending, channels) for place in places if files_in(place, ending)}
    try:
        listed = listed_cases(raw, dataset_json) if LISTED in dataset_json else []
    except ValueError as e:
        raise UserError(f"{raw}: {e}") from e
    there = [case for case in listed if all(path.is_file() for path in case.files)]
    return {training: there, **found} if there else found


def not_compared(raw: Path | None, dataset_json: dict[str, Any], cases: Collection[str]) -> str:
    """A line about which of a data set's cases lack their image, so that none can be known by it; empty if none does.

    Args:
        raw, dataset_json: As for :func:`own_images`.
        cases: Of ``imagesTr``.
    """
    places = own_images(raw, dataset_json)
    there = {case.name for place, found in places.items() if place.name == "imagesTr" for case in found}
    if not there:
        return "nnUNet_raw does not hold the data set: unlabelled images were not compared with its own"
    if gone := set(cases) - there:
        return f"nnUNet_raw lacks {len(gone)} image(s), with which none was compared: imagesTr/{some_of(gone)}"
    return ""


def known_voxels(
    raw: Path | None, plans: PlansManager, dataset_json: dict[str, Any], training: Collection[str] | None = None
) -> dict[str, str]:
    """Checksum of the voxels of a data set's own images to where each is, ``imagesTr/CASE`` or ``imagesTs/CASE``.

    Args:
        raw: The raw data set; without one nothing is known.
        plans, dataset_json: As for :func:`checksums`.
        training: Of ``imagesTr`` only these; ``None`` means all.

    Raises:
        UserError: If an image cannot be read.
    """
    seen: dict[str, str] = {}
    for folder, cases in own_images(raw, dataset_json).items():
        wanted = training if folder.name == "imagesTr" else None
        chosen = [case for case in cases if wanted is None or case.name in wanted]
        found = checksums(chosen, plans, dataset_json, folder.name)
        seen |= {one.voxels: f"{folder.name}/{case}" for case, one in found.items()}
    return seen


def known_among(own: dict[str, str], seen: dict[str, str]) -> dict[str, str]:
    """The cases of a folder that are known already or twice in it, and where else each is.

    Args:
        own: Case to the checksum of its voxels.
        seen: As :func:`known_voxels` gives it.
    """
    places, known = dict(seen), {}
    for case, voxels in sorted(own.items()):
        if voxels in places:
            known[case] = places[voxels]
        else:
            places[voxels] = f"{case} of the same folder"
    return known


def require_unseen(path: Path, dataset: str, fold: int | str, name: str) -> None:
    """What a training starts from must not have learnt from the images that it is validated on.

    Args:
        path: A checkpoint of a training, or of ``nnunet-covid pretrain``.
        dataset, fold: Of the training that is to start from it.
        name: What the checkpoint is called in the message.

    Raises:
        UserError: If it cannot be read, or was made with the training images of another fold of the data set, which
            are validated on here.
    """
    content = read_checkpoint(path)
    if (made := content.get("pretraining")) is not None:
        source, seen = made.get("dataset", dataset), made.get("fold")
    else:
        made = content.get("init_args", {})
        source, seen = made.get("plans", {}).get("dataset_name"), made.get("fold")
    if seen is None or source != dataset or str(fold) in (str(seen), "all"):
        return
    folds = {str(number): split for number, split in enumerate(read_splits(dataset) or [])}
    theirs, own = folds.get(str(seen)), folds.get(str(fold))
    if theirs and own and set(theirs["train"]).isdisjoint(own["val"]):
        return  # such as the same validation images with fewer labelled ones
    raise UserError(
        f"{name} {path}: made with the training images of fold {seen}, validation images of fold {fold} among them; "
        f"take one that was made for fold {fold}"
    )
