"""The second stage's data set: the images and labels of a raw data set, and an infection map as one more channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import GUIDED_KEY, IMAGES, channel_names, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.probability_maps import require_own
from nnunet_covid.files import environment_folders, replacing_folder, write_json
from nnunet_covid.guided.maps import (
    Infection,
    Map,
    MapKind,
    as_channel,
    channel_name,
    folds_of_maps,
    maps_of_folds,
)
from nnunet_covid.header_claims import read_probabilities
from nnunet_covid.nnunet.dataset import RawDataset, open_raw_dataset
from nnunet_covid.nnunet.written_images import copy_image, write_channel
from nnunet_covid.raw_dataset.destination import (
    dataset_folder_name,
    is_environments_raw_folder,
    place_splits,
    refuse_number_in_use,
)

SOURCES = ("folds", "reference")


def build_guided_dataset(
    dataset: str,
    stage_one: Path | None,
    *,
    kind: MapKind = "label",
    number: int | None = None,
    name: str | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Write the raw data set of the second stage; it appears in one step when it is complete.

    Args:
        dataset: Number or name of the multi-class data set in ``nnUNet_raw``.
        stage_one: Model folder of the first stage. The map of a training image is the validation prediction of its
            cross-validation, from a model that has not seen the image; without a first stage, the union of the data
            set's own labels.
        kind: ``"label"``, the segmentation that the paper speaks of, or with a first stage ``"probability"``.
        number: Of the new data set; the next free one if not given.
        name: Of the new data set; the old one with ``Guided`` if not given.
        tell: Receives each message for the user.

    Returns:
        The folder of the raw data set.

    Raises:
        UserError: If the data set or the maps are not there or do not fit each other, or another process is at work on
            the same folder; before anything is written.
    """
    if stage_one is None and kind == "probability":
        raise UserError("references hold no probabilities")
    raw = open_raw_dataset(dataset)
    first = _checked_stage_one(raw, stage_one)
    maps = maps_of_folds(stage_one, kind, raw.ending, list(raw.cases)) if stage_one else {}
    folder = _destination(raw, number, name)
    own_splits = raw.splits()
    splits = folds_of_maps(maps) if maps else own_splits
    documents = _documents(raw, stage_one, kind, maps, folder.name)
    if splits:
        documents["splits_final.json"] = splits
    try:
        with replacing_folder(folder) as partial:
            _write(partial, raw, maps, kind, first)
            for file, content in documents.items():
                write_json(partial / file, content)
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror or e}; nothing was written, put this right first") from e

    tell(f"{folder}: {len(raw.cases)} training cases, infection map in channel {raw.channels:04d}")
    if message := place_splits(folder, use_environment=is_environments_raw_folder(folder.parent)):
        tell(f"note: {message}")
    if splits and own_splits and [sorted(s["val"]) for s in splits] != [sorted(s["val"]) for s in own_splits]:
        tell(f"note: the folds are those of stage 1; {raw.name} itself has others")
    return folder


def _checked_stage_one(raw: RawDataset, stage_one: Path | None) -> Infection:
    """What is infection in the maps of stage 1, after a check that it fits the data set, or in the data set's own."""
    if GUIDED_KEY in raw.dataset_json:
        raise UserError(f"{raw.folder} already has an infection map as its last channel; name the data set without one")
    if stage_one is None:
        return Infection.among(raw.dataset_json["labels"])
    path = stage_one / "dataset.json"
    if not path.is_file():
        raise UserError(f"{stage_one} is no trained model: it has no dataset.json")
    first = read_dataset_json(path, needed=IMAGES)
    if first["file_ending"] != raw.ending:
        raise UserError(f"stage 1 was trained on {first['file_ending']} images, {raw.folder} holds {raw.ending}")
    own, theirs = channel_names(raw.dataset_json), channel_names(first)
    if own[: len(theirs)] != theirs:
        raise UserError(
            f"stage 1 was trained on the channels {', '.join(theirs)}, but {raw.folder} begins with {', '.join(own)}"
        )
    return Infection.among(first["labels"])


def _destination(raw: RawDataset, number: int | None, name: str | None) -> Path:
    """The new data set's folder; its number, where none is given, is the next that none of nnU-Net's folders uses."""
    base = raw.folder.parent
    own = re.fullmatch(r"Dataset(\d{3})_(.+)", raw.name)
    if own is None:
        raise UserError(f"{raw.folder} is no folder of nnU-Net's: its name is not DatasetNNN_Name")
    if number is None:
        used = {path.name[:10] for each in {base, *environment_folders()} for path in each.glob("Dataset*")}
        start = int(own[1]) + 1
        number = next((n for n in range(start, 1000) if f"Dataset{n:03d}" not in used), None)
        if number is None:
            raise UserError(f"no data set number from {start} on is free; choose one yourself", about="number")
    folder = base / dataset_folder_name(number, name or f"{own[2]}Guided")
    refuse_number_in_use(folder, search_environment=is_environments_raw_folder(base))
    if folder.exists():
        raise UserError(f"{folder} exists; delete it to build it again, or choose another number", about="number")
    return folder


def _documents(
    raw: RawDataset, stage_one: Path | None, kind: MapKind, maps: dict[str, Map], folder_name: str
) -> dict[str, Any]:
    """dataset.json, the old one with one channel more and how prediction makes it, and guide.json, the maps' origin."""
    model, source = stage_one.resolve() if stage_one else None, SOURCES[stage_one is None]
    others = ("dataset", "converted_by", "modality")
    entries = {key: value for key, value in raw.dataset_json.items() if key not in others}
    channels = [*channel_names(raw.dataset_json), channel_name(kind, raw.ending)]
    dataset_json = {
        **entries,
        "name": folder_name.partition("_")[2],
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "numTraining": len(raw.cases),
        GUIDED_KEY: {
            "map": kind,
            "maps_from": source,
            "guided_by": model.name if model else None,
            "data_set": raw.name,
        },
    }
    report = {
        "data_set": raw.name,
        "stage_one": f"{model.parent.name}/{model.name}" if model else None,
        "maps_from": source,
        "map": kind,
        "fold_of_map": {case: fold for case, (fold, _) in maps.items()},
    }
    return {"dataset.json": dataset_json, "guide.json": report}


def _write(folder: Path, raw: RawDataset, maps: dict[str, Map], kind: MapKind, first: Infection) -> None:
    """Copy images and labels and write the infection map of each case beside them."""
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    for name, case in tqdm(raw.cases.items(), desc=folder.name.strip(".").partition(".")[0], unit="case", disable=None):
        assert case.label is not None
        labels, properties = raw.read_labels(case.label)
        infection: NDArray[Any]
        if not maps:
            infection = first.in_labels(labels)
        elif kind == "label":
            infection = first.in_labels(raw.read_labels(maps[name][1])[0])
        else:
            infection = first.probability(_probabilities(raw, name, maps[name][1], regions=first.has_regions))
        if infection.shape != labels.shape:
            raise UserError(
                f"the map of case {name} has {infection.shape} voxels, its image in {raw.folder} {labels.shape}; "
                "stage 1 was trained on another image of that name"
            )
        for number, path in enumerate(case.files):
            copy_image(path, folder / "imagesTr" / f"{name}_{number:04d}{raw.ending}")
        copy_image(case.label, folder / "labelsTr" / f"{name}{raw.ending}", image=False)
        target = folder / "imagesTr" / f"{name}_{raw.channels:04d}{raw.ending}"
        write_channel(target, as_channel(infection, kind, raw.ending), properties, raw.reader, image=True)


def _probabilities(raw: RawDataset, name: str, path: Path, *, regions: bool) -> NDArray[np.float32]:
    """Those of a case by stage 1, which must be of the label map beside them."""
    probabilities = read_probabilities(path).astype(np.float32)
    beside = path.with_name(f"{name}{raw.ending}")
    if beside.is_file():
        require_own(path, probabilities, raw.read_labels(beside)[0], regions=regions)
    return probabilities
