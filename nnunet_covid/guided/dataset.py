"""The second stage's data set: the images and labels of a raw data set, and an infection map as one more channel."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import GUIDED_KEY, channel_names, has_regions, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import environment_folder, replacing_folder, write_json
from nnunet_covid.guided.maps import (
    MapKind,
    as_channel,
    channel_name,
    folds_of_maps,
    from_labels,
    from_probabilities,
    maps_of_folds,
)
from nnunet_covid.nnunet.dataset import RawDataset, Split, copy_image, open_raw_dataset, write_channel
from nnunet_covid.raw_dataset.destination import (
    dataset_folder_name,
    is_environments_raw_folder,
    place_splits,
    refuse_number_in_use,
)

Source = Literal["folds", "reference"]
SOURCES = ("folds", "reference")
REPORT = "guide.json"


@dataclass(frozen=True)
class Guidance:
    """Where the infection maps of the training images come from.

    Args:
        source: ``"folds"``, the validation predictions of ``stage_one``'s cross-validation, each from a model that has
            not seen the image; or ``"reference"``, the union of the data set's own labels.
        kind: ``"label"``, the segmentation that the paper speaks of, or ``"probability"``.
        stage_one: Model folder of the first stage; with ``"folds"`` and with that alone.

    Raises:
        UserError: If they do not go together.
    """

    source: Source = "folds"
    kind: MapKind = "label"
    stage_one: Path | None = None

    def __post_init__(self) -> None:
        if self.source == "reference" and self.kind == "probability":
            raise UserError("references hold no probabilities")
        if (self.source == "folds") != (self.stage_one is not None):
            raise UserError("maps from folds need a trained first stage, maps from references have none")


def build_guided_dataset(
    dataset: str,
    guidance: Guidance,
    *,
    number: int | None = None,
    name: str | None = None,
    tell: Callable[[str], None] = print,
) -> Path:
    """Write the raw data set of the second stage; it appears in one step when it is complete.

    Args:
        dataset: Number or name of the multi-class data set in ``nnUNet_raw``.
        guidance: Where the maps come from.
        number: Of the new data set; the next free one if not given.
        name: Of the new data set; the old one with ``Guided`` if not given.
        tell: Receives each message for the user.

    Returns:
        The folder of the raw data set.

    Raises:
        UserError: If the data set or the maps are not there or do not fit each other; before anything is written.
    """
    raw = open_raw_dataset(dataset)
    first = _checked_stage_one(raw, guidance)
    maps = maps_of_folds(guidance.stage_one, guidance.kind, raw.ending, list(raw.cases)) if guidance.stage_one else {}
    folder = _destination(raw, number, name)

    splits = folds_of_maps(maps) if maps else raw.splits()
    documents: dict[str, Any] = {
        "dataset.json": _dataset_json(raw, guidance, folder.name),
        REPORT: _report(raw, guidance, maps),
    }
    if splits:
        documents["splits_final.json"] = splits
    try:
        with replacing_folder(folder) as partial:
            _write(partial, raw, guidance, maps, has_regions=has_regions(first.get("labels", {})))
            for file, content in documents.items():
                write_json(partial / file, content)
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror or e}; nothing was written, put this right first") from e

    tell(f"{folder}: {len(raw.cases)} training cases, infection map in channel {raw.channels:04d}")
    for message in _notes(raw, folder, splits):
        tell(f"note: {message}")
    return folder


def _checked_stage_one(raw: RawDataset, guidance: Guidance) -> dict[str, Any]:
    """The dataset.json of stage 1, empty where no stage 1 takes part, after a check that all fits together."""
    if GUIDED_KEY in raw.dataset_json:
        raise UserError(f"{raw.folder} already has an infection map as its last channel; name the data set without one")
    if guidance.stage_one is None:
        return {}
    path = guidance.stage_one / "dataset.json"
    if not path.is_file():
        raise UserError(f"{guidance.stage_one} is no trained model: it has no dataset.json")
    first = read_dataset_json(path)
    if first["file_ending"] != raw.ending:
        raise UserError(f"stage 1 was trained on {first['file_ending']} images, {raw.folder} holds {raw.ending}")
    own, theirs = channel_names(raw.dataset_json), channel_names(first)
    if own[: len(theirs)] != theirs:
        raise UserError(
            f"stage 1 was trained on the channels {', '.join(theirs)}, but {raw.folder} begins with {', '.join(own)}"
        )
    return first


def _destination(raw: RawDataset, number: int | None, name: str | None) -> Path:
    base = raw.folder.parent
    own = re.fullmatch(r"Dataset(\d{3})_(.+)", raw.folder.name)
    if own is None:
        raise UserError(f"{raw.folder} is no folder of nnU-Net's: its name is not DatasetNNN_Name")
    if number is None:
        number = next_free_number(int(own[1]) + 1, base)
    folder = base / dataset_folder_name(number, name or f"{own[2]}Guided")
    refuse_number_in_use(folder, search_environment=is_environments_raw_folder(base))
    if folder.exists():
        raise UserError(f"{folder} exists; delete it to build it again, or choose another number", about="number")
    return folder


def next_free_number(start: int, raw: Path) -> int:
    """The first data set number from ``start`` on that none of nnU-Net's folders uses.

    Raises:
        UserError: If there is none.
    """
    variables = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
    bases = {raw, *(folder for variable in variables if (folder := environment_folder(variable)))}
    used = {path.name[:10] for base in bases for path in base.glob("Dataset*")}
    for number in range(start, 1000):
        if f"Dataset{number:03d}" not in used:
            return number
    raise UserError(f"no data set number from {start} on is free; choose one yourself", about="number")


def _write(
    folder: Path, raw: RawDataset, guidance: Guidance, maps: dict[str, tuple[int, Path]], *, has_regions: bool
) -> None:
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    for name, case in tqdm(raw.cases.items(), desc=folder.name.strip(".").partition(".")[0], unit="case", disable=None):
        assert case.label is not None
        labels, properties = raw.read_labels(case.label)
        infection = (
            _predicted(raw, guidance.kind, maps[name][1], has_regions=has_regions)
            if maps
            else from_labels(labels, raw.ignore_label)
        )
        if infection.shape != labels.shape:
            raise UserError(
                f"the map of case {name} has {infection.shape} voxels, its image in {raw.folder} {labels.shape}; "
                "stage 1 was trained on another image of that name"
            )
        for number, path in enumerate(case.files):
            copy_image(path, folder / "imagesTr" / f"{name}_{number:04d}{raw.ending}")
        copy_image(case.label, folder / "labelsTr" / f"{name}{raw.ending}")
        target = folder / "imagesTr" / f"{name}_{raw.channels:04d}{raw.ending}"
        write_channel(target, as_channel(infection, guidance.kind, raw.ending), properties, raw.reader)


def _predicted(raw: RawDataset, kind: MapKind, path: Path, *, has_regions: bool) -> NDArray[Any]:
    if kind == "label":
        return from_labels(raw.read_labels(path)[0])
    return from_probabilities(np.load(path)["probabilities"].astype(np.float32), has_regions)


def _dataset_json(raw: RawDataset, guidance: Guidance, folder_name: str) -> dict[str, Any]:
    """The old one with one channel more and the key that tells prediction how the channel is made."""
    entries = {key: value for key, value in raw.dataset_json.items() if key not in ("dataset", "converted_by")}
    channels = {**raw.dataset_json["channel_names"], str(raw.channels): channel_name(guidance.kind, raw.ending)}
    return {
        **entries,
        "name": folder_name.partition("_")[2],
        "channel_names": channels,
        "numTraining": len(raw.cases),
        GUIDED_KEY: {
            "map": guidance.kind,
            "maps_from": guidance.source,
            "guided_by": guidance.stage_one.resolve().name if guidance.stage_one else None,
            "data_set": raw.folder.name,
        },
    }


def _report(raw: RawDataset, guidance: Guidance, maps: dict[str, tuple[int, Path]]) -> dict[str, Any]:
    return {
        "data_set": raw.folder.name,
        "stage_one": f"{guidance.stage_one.resolve().parent.name}/{guidance.stage_one.resolve().name}"
        if guidance.stage_one
        else None,
        "maps_from": guidance.source,
        "map": guidance.kind,
        "fold_of_map": {case: fold for case, (fold, _) in maps.items()},
    }


def _notes(raw: RawDataset, folder: Path, splits: list[Split] | None) -> list[str]:
    notes = []
    if message := place_splits(folder, use_environment=is_environments_raw_folder(folder.parent)):
        notes.append(message)
    own = raw.splits()
    if splits and own and [sorted(s["val"]) for s in splits] != [sorted(s["val"]) for s in own]:
        notes.append(f"the folds are those of stage 1; {raw.folder.name} itself has others")
    return notes
