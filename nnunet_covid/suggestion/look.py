"""A trained model's look at one image: how far its predictions disagree, where, and what its encoder makes of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.errors import UserError
from nnunet_covid.figures.slices import shown_slice
from nnunet_covid.figures.suggestions import Thumbnail, thumbnail
from nnunet_covid.nnunet.encoder import deepest_features, mean_over_positions
from nnunet_covid.nnunet.export import to_image_grid
from nnunet_covid.nnunet.predictor import PreparedCase, TrainedModel
from nnunet_covid.nnunet.sliding_window import VOXELS_OF_A_FORWARD, mirrorings
from nnunet_covid.semi_supervised.consistency import ENTRY
from nnunet_covid.suggestion.disagreement import PARTS, Disagreement


@dataclass(frozen=True)
class Look:
    """What is kept of an image.

    Attributes:
        parts: Mean bits per voxel of the pre-processed image, by :data:`nnunet_covid.suggestion.disagreement.PARTS`.
        features: (channels,); None without an encoder.
        thumbnail: For the contact sheet.
    """

    parts: dict[str, float]
    features: NDArray[np.float32] | None
    thumbnail: Thumbnail

    @property
    def score(self) -> float:
        """All parts together."""
        return sum(self.parts.values())


Sight = tuple[PreparedCase, Disagreement, "NDArray[np.float32] | None"]


class Observer:
    """All predictions of a model, one by one: of each fold, of teacher and student, of each mirroring.

    Args:
        model: Opened without mirroring: its images are mirrored here, as wholes.
        mirroring: Whether to.

    Raises:
        UserError: If there is but one prediction of an image, or a checkpoint cannot be read.
    """

    def __init__(self, model: TrainedModel, *, mirroring: bool) -> None:
        self.model = model
        axes = tuple(model.predictor.allowed_mirroring_axes or ()) if mirroring else ()
        self.mirrorings = mirrorings(axes, 4 - len(model.patch_size))  # behind channels, and in 2D a slice axis
        self.networks = [[teacher, *students] for teacher, students in zip(*self._weights(), strict=True)]
        if self.predictions == 1:
            raise UserError(
                f"{model.folder}: one fold without mirroring gives one prediction, and nothing to compare it with; "
                "use more folds, or mirroring"
            )
        self.has_encoder = True

    def _weights(self) -> tuple[list[Any], list[list[Any]]]:
        """Of each fold what nnU-Net has loaded, and the student of ``TRAINER_consistency`` if every fold has one."""
        model = self.model
        paths = [model.folder / f"fold_{fold}" / model.checkpoint for fold in model.folds]
        students = [read_checkpoint(path).get(ENTRY, {}).get("student") for path in paths]
        teachers = model.predictor.list_of_parameters
        if any(student is None for student in students):
            return teachers, [[] for _ in teachers]
        return teachers, [[_as_loaded(student, teacher)] for student, teacher in zip(students, teachers, strict=True)]

    @property
    def predictions(self) -> int:
        """Of one image."""
        return sum(map(len, self.networks)) * len(self.mirrorings)

    def described(self) -> str:
        """How many predictions there are and of what."""
        folds, networks = len(self.networks), len(self.networks[0])
        students = ", each of teacher and student" if networks == 2 else ""
        made_of = f"{folds} fold(s){students}, {len(self.mirrorings)} mirroring(s)"
        return f"{self.predictions} predictions of each image: {made_of}"

    def observe(self, cases: Sequence[PreparedCase]) -> list[Sight]:
        """Predict some images; every network's weights are loaded once for all of them."""
        exclusive = not self.model.predictor.label_manager.has_regions
        seen = [Disagreement(exclusive=exclusive, networks_of_a_fold=len(self.networks[0])) for _ in cases]
        features: list[NDArray[np.float32] | None] = [None] * len(cases)
        for parameters in (each for fold in self.networks for each in fold):
            with self.model.alone(parameters):
                for number, case in enumerate(cases):
                    plain: list[torch.Tensor] = []
                    if parameters is self.networks[0][0]:
                        features[number], plain = self._heard(case)
                    seen[number].add(chain(plain, self._mirrored(case, self.mirrorings[len(plain) :])))
        return list(zip(cases, seen, features, strict=True))

    def features(self, case: PreparedCase) -> NDArray[np.float32] | None:
        """Of the first network alone."""
        with self.model.alone(self.networks[0][0]):
            return self._heard(case)[0]

    def _heard(self, case: PreparedCase) -> tuple[NDArray[np.float32] | None, list[torch.Tensor]]:
        """The encoder's deepest features, mean over positions and patches, and the unmirrored prediction."""
        heard: list[torch.Tensor] = []
        with deepest_features(self.model.network, lambda deepest: heard.append(mean_over_positions(deepest))) as found:
            predicted = list(self._mirrored(case, self.mirrorings[:1]))
        self.has_encoder = found and bool(heard)
        return (torch.stack(heard).mean(0).numpy() if self.has_encoder else None), predicted

    def _mirrored(self, case: PreparedCase, mirrorings: Sequence[tuple[int, ...]]) -> Iterator[torch.Tensor]:
        """Probabilities (heads, *spatial) of mirrored images, turned back."""
        small = case.data[0].numel() <= VOXELS_OF_A_FORWARD
        for group in [mirrorings] * bool(mirrorings) if small else [[some] for some in mirrorings]:
            logits = self.model.predictor.predict_logits_of([torch.flip(case.data, some) for some in group])
            for some, each in zip(group, logits, strict=True):
                yield self.model.predictor.label_manager.apply_inference_nonlin(torch.flip(each.float(), some))

    def look(self, sight: Sight) -> Look:
        """What is kept of an image that was observed."""
        case, disagreement, features = sight
        parts = disagreement.parts()
        whole = torch.stack([parts[name] for name in PARTS]).sum(0)
        on = disagreement.mean > 0.5 if self.model.predictor.label_manager.has_regions else None
        infected = on.any(0) if on is not None else disagreement.mean.argmax(0) > 0
        maps = torch.stack([whole, infected.float()])
        means = {name: float(part.mean()) for name, part in parts.items()}
        return Look(means, features, self._thumbnail(case, maps))

    def _thumbnail(self, case: PreparedCase, maps: torch.Tensor) -> Thumbnail:
        """The slice with most disagreement."""
        predictor = self.model.predictor
        plans, configuration = predictor.plans_manager, predictor.configuration_manager
        (bits, infected), _ = to_image_grid(maps.numpy(), case.properties, plans, configuration)
        return pictured(case.image, case.properties, bits, infected > 0.5)


def _as_loaded(student: Any, teacher: Any) -> Any:
    """The student's weights with what comes with the teacher's: its calibration, which else would be a disagreement."""
    weights: Any = OrderedDict(student)
    weights._metadata = getattr(teacher, "_metadata", None)
    return weights


def pictured(
    image: NDArray[np.float32],
    properties: dict[str, Any],
    bits: NDArray[np.float32] | None = None,
    infected: NDArray[np.bool_] | None = None,
) -> Thumbnail:
    """The slice with most disagreement of an image (channels, *axes) and maps (*axes); without them the middle one."""
    spacing = tuple(float(s) for s in properties["spacing"])
    high = np.zeros(image.shape[1:], bool) if bits is None else (bits >= bits.max() / 2) & (bits > 0)
    axis, index = shown_slice(high[None], spacing)
    rows, columns = (spacing[a] for a in range(3) if a != axis)
    flat = [None if each is None else np.take(each, index, axis) for each in (bits, infected)]
    return thumbnail(np.take(image[0], index, axis), flat[0], flat[1], (rows, columns))
