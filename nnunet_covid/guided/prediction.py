"""Both stages on every image of a folder, one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import GUIDED_KEY, channel_names
from nnunet_covid.errors import UserError
from nnunet_covid.files import remove_abandoned, replacing, writable_folder, write_json
from nnunet_covid.guided.maps import MapKind, as_channel, from_labels, from_probabilities
from nnunet_covid.nnunet.dataset import CaseFiles, list_cases, write_channel, write_labels
from nnunet_covid.nnunet.predictor import TrainedModel

INFECTION_FOLDER = "infection"


@dataclass(frozen=True)
class Output:
    """What is written.

    Args:
        folder: Receives the label maps.
        overwrite: Predict again what is there.
        probabilities: Write ``CASE.npz`` too.
        infection: Write stage 1's map into the folder ``infection``.
    """

    folder: Path
    overwrite: bool = False
    probabilities: bool = False
    infection: bool = False

    def files(self, case: str, ending: str) -> list[Path]:
        """Everything a finished case has."""
        paths = [self.folder / f"{case}{ending}"]
        paths += [self.folder / f"{case}.npz"] if self.probabilities else []
        return paths + ([self.folder / INFECTION_FOLDER / f"{case}{ending}"] if self.infection else [])


def predict_guided(
    stage_one: TrainedModel,
    stage_two: TrainedModel,
    images: Path,
    output: Output,
    *,
    tell: Callable[[str], None] = print,
) -> list[Path]:
    """Predict the infection map of every image and, guided by it, its classes.

    A file appears under its name only when it is complete, and the label map of a case last, so that a run that was
    stopped goes on where it stopped.

    Args:
        stage_one: Finds the infection.
        stage_two: Trained on a data set of ``nnunet-covid guide``.
        images: Folder in nnU-Net's naming, without the infection map.
        output: What to write where.
        tell: Receives each message for the user.

    Returns:
        The label maps, those that were there before included.

    Raises:
        UserError: If the stages or images do not fit each other; before anything is written.
    """
    kind = _checked_kind(stage_one, stage_two)
    ending = stage_two.ending
    cases = list_cases(images, ending, stage_two.channels - 1)
    missing = [
        case
        for case in cases
        if output.overwrite or not all(path.is_file() for path in output.files(case.name, ending))
    ]
    if missing:
        stage_two.read(missing[0], channels=stage_two.channels - 1)
    _open_folder(output, stage_two)
    if len(missing) < len(cases):
        tell(f"{len(cases) - len(missing)} of {len(cases)} cases are there already")
    for case in tqdm(missing, desc="predict-guided", unit="case", disable=None):
        _predict_case(stage_one, stage_two, case, kind, output)
    return [output.folder / f"{case.name}{ending}" for case in cases]


def infection_channel(
    stage_one: TrainedModel, name: str, image: NDArray[np.float32], properties: dict[str, Any], kind: MapKind
) -> NDArray[Any]:
    """Stage 1's map of an image (channels, z, y, x), as it is stored in the second stage's data set."""
    case = stage_one.prepare_image(name, image[: stage_one.channels], properties)
    labels, probabilities = stage_one.label_map(case, stage_one.predict_logits(case))
    infection = (
        from_labels(labels)
        if kind == "label"
        else from_probabilities(probabilities, stage_one.predictor.label_manager.has_regions)
    )
    return as_channel(infection, kind, stage_one.ending)


def _predict_case(
    stage_one: TrainedModel, stage_two: TrainedModel, case: CaseFiles, kind: MapKind, output: Output
) -> None:
    image, properties = stage_two.read(case, channels=stage_two.channels - 1)
    channel = infection_channel(stage_one, case.name, image, properties, kind)
    guided = np.concatenate([image, channel[None].astype(np.float32)])
    prepared = stage_two.prepare_image(case.name, guided, properties)
    labels, probabilities = stage_two.label_map(prepared, stage_two.predict_logits(prepared))

    ending = stage_two.ending
    if output.infection:
        folder = output.folder / INFECTION_FOLDER
        folder.mkdir(exist_ok=True)
        write_channel(folder / f"{case.name}{ending}", channel, properties, stage_two.reader)
    if output.probabilities:
        with replacing(output.folder / f"{case.name}.npz") as unfinished:
            np.savez_compressed(unfinished, probabilities=probabilities)
    write_labels(output.folder / f"{case.name}{ending}", labels, properties, stage_two.reader)


def _checked_kind(stage_one: TrainedModel, stage_two: TrainedModel) -> MapKind:
    """How stage 2 wants its map, after a check that the stages fit."""
    made = stage_two.dataset_json.get(GUIDED_KEY)
    if made is None:
        raise UserError(
            f"{stage_two.folder} was not trained on a data set of 'nnunet-covid guide'; "
            "stage 1 comes first, then stage 2"
        )
    for model in (stage_one, stage_two):
        if model.previous_stage is not None:
            raise UserError(f"{model.folder} is the second stage of a cascade; name one with a single configuration")
    if stage_one.ending != stage_two.ending:
        raise UserError(
            f"stage 1 reads {stage_one.ending} images, stage 2 {stage_two.ending}; train both on one format"
        )
    first, second = channel_names(stage_one.dataset_json), channel_names(stage_two.dataset_json)[:-1]
    if second[: len(first)] != first:
        raise UserError(
            f"stage 1 reads the channels {', '.join(first)}, stage 2's images have {', '.join(second)} and the map"
        )
    if type(stage_one.reader) is not type(stage_two.reader):
        names = (type(model.reader).__name__ for model in (stage_one, stage_two))
        raise UserError("the stages read images with different readers, {} and {}: plan both alike".format(*names))
    return made["map"]


def _open_folder(output: Output, stage_two: TrainedModel) -> None:
    """The folder with the two documents that nnU-Net and ``nnunet-covid evaluate`` look for beside predictions."""
    writable_folder(output.folder)
    remove_abandoned(output.folder, age=0)
    write_json(output.folder / "dataset.json", stage_two.dataset_json)
    write_json(output.folder / "plans.json", stage_two.predictor.plans_manager.plans)
