"""Both stages on every image of a folder, one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import GUIDED_KEY, channel_names
from nnunet_covid.errors import Unusable, UserError
from nnunet_covid.files import digest_of, remove_abandoned, replacing, write_json
from nnunet_covid.guided.maps import Infection, MapKind, as_channel
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.nnunet.written_images import fill_labels, write_channel
from nnunet_covid.prediction.finished import DIGITS, Files, Finished, described
from nnunet_covid.prediction.folder import alone_in, digest_of_model


def predict_guided(
    stage_one: TrainedModel,
    stage_two: TrainedModel,
    images: Path,
    output: Path,
    *,
    overwrite: bool = False,
    save_probabilities: bool = False,
    save_infection: bool = False,
    tell: Callable[[str], None] = print,
) -> list[Path]:
    """Predict the infection map of every image and, guided by it, its classes.

    A file appears under its name only when it is complete, and the label map of a case last. What is there and was made
    by these stages from these images is kept, so that a run that was stopped goes on where it stopped.

    Args:
        stage_one: Finds the infection.
        stage_two: Trained on a data set of ``nnunet-covid guide``.
        images: Folder in nnU-Net's naming, without the infection map.
        output: Receives the label maps.
        overwrite: Predict again what is there.
        save_probabilities: Write ``CASE.npz`` too.
        save_infection: Write stage 1's map into the folder ``infection``.
        tell: Receives each message for the user.

    Returns:
        The label maps, those that were there before included.

    Raises:
        UserError: If the stages do not fit each other, no image can be used, or another run is at work on the folder;
            before anything is written.
        PartlyDoneError: If some images could not be used, at the end.
    """
    kind = _checked_kind(stage_one, stage_two)
    # stage 2 has learnt from the maps of validations, in which no calibration takes part
    stage_one.network.uncalibrated = stage_two.dataset_json[GUIDED_KEY].get("maps_from") != "reference"
    finished = Finished(output, digest_of([digest_of_model(stage_one), digest_of_model(stage_two)], DIGITS))
    made = _Made(output, stage_two, save_probabilities, save_infection, finished)
    cases = list_cases(images, stage_two.ending, stage_two.channels - 1)
    missing = [case for case in cases if overwrite or not made.has(case)]
    unusable = Unusable()
    usable = _images(stage_two, missing, unusable)
    first = next(usable, None)
    if first is None:
        unusable.raise_if_any(len(missing))
    with alone_in(output):
        _begin(stage_two, output)
        if len(missing) < len(cases):
            tell(f"{len(cases) - len(missing)} of {len(cases)} cases are there already")
        found = chain([first] if first else [], usable)
        for case, *image in tqdm(found, desc="predict-guided", unit="case", total=len(missing), disable=None):
            inputs = described(case.sources)
            made.write(case, inputs, image[1], *_both_stages(stage_one, stage_two, case, image, kind))
    unusable.raise_if_any(len(missing))
    return [made.labels(case) for case in cases]


@dataclass(frozen=True)
class _Made:
    """What becomes of a case in the folder of predictions, and what is there already."""

    output: Path
    model: TrainedModel
    with_probabilities: bool
    with_infection: bool
    finished: Finished

    @property
    def endings(self) -> tuple[str, ...]:
        return (*((".npz",) if self.with_probabilities else ()), self.model.ending)

    def labels(self, case: CaseFiles) -> Path:
        return self.output / f"{case.name}{self.model.ending}"

    def infection(self, case: CaseFiles) -> Path:
        return self.output / "infection" / f"{case.name}{self.model.ending}"

    def has(self, case: CaseFiles) -> bool:
        there = not self.with_infection or self.infection(case).is_file()
        return there and self.finished.has(case.name, case.sources, self.endings)

    def write(
        self,
        case: CaseFiles,
        inputs: Files,
        properties: dict[str, Any],
        infection: NDArray[Any],
        labels: NDArray[Any],
        probabilities: NDArray[np.float32],
    ) -> None:
        """The infection map, then everything else under temporary names, the record, and the names."""
        if self.with_infection:
            self.labels(case).unlink(missing_ok=True)  # it belongs to another map
            self.infection(case).parent.mkdir(exist_ok=True)
            write_channel(self.infection(case), infection, properties, self.model.reader)
        with replacing(self.output / case.name, self.endings) as unfinished:
            if self.with_probabilities:
                np.savez_compressed(f"{unfinished}.npz", probabilities=probabilities)
            path = Path(f"{unfinished}{self.model.ending}")
            fill_labels(path, self.labels(case), labels, properties, self.model.reader)
            sizes = {ending: Path(f"{unfinished}{ending}").stat().st_size for ending in self.endings}
            self.finished.record(case.name, inputs, sizes)


def _begin(stage_two: TrainedModel, output: Path) -> None:
    """Nothing of a killed run, and what nnU-Net and ``nnunet-covid evaluate`` look for beside predictions."""
    for folder in (output, output / "infection"):
        remove_abandoned(folder, age=0)
    write_json(output / "dataset.json", stage_two.dataset_json)
    write_json(output / "plans.json", stage_two.predictor.plans_manager.plans)


def _images(stage_two: TrainedModel, cases: Sequence[CaseFiles], unusable: Unusable) -> Iterator[tuple[Any, ...]]:
    """Case, image and properties of those that can be read."""
    for case in cases:
        with unusable.going_on():
            image, properties = stage_two.read(case, channels=stage_two.channels - 1)
            yield case, image, properties


def _both_stages(
    stage_one: TrainedModel,
    stage_two: TrainedModel,
    case: CaseFiles,
    image_and_properties: Sequence[Any],
    kind: MapKind,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Stage 1's map as it is stored in the second stage's data set, and what stage 2 makes of image and map."""
    image, properties = image_and_properties
    first = stage_one.prepare_image(case.name, image[: stage_one.channels], properties)
    labels, probabilities = stage_one.label_map(first, stage_one.predict_logits(first))
    classes = Infection.among(stage_one.dataset_json["labels"])
    infection = classes.in_labels(labels) if kind == "label" else classes.probability(probabilities)
    channel = as_channel(infection, kind, stage_one.ending)

    guided = np.concatenate([image, channel[None].astype(np.float32)])
    second = stage_two.prepare_image(case.name, guided, properties)
    return channel, *stage_two.label_map(second, stage_two.predict_logits(second))


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
