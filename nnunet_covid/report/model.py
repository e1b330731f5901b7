"""A trained model on one volume in memory: bring the volume into the directions and values it knows, label it, go back.

The networks run through :class:`nnunet_covid.nnunet.predictor.TrainedModel`, that is, through nnU-Net's own predictor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from nnunet_covid.dataset_json import foreground_values
from nnunet_covid.endings import PICTURE_ENDINGS
from nnunet_covid.errors import UserError
from nnunet_covid.figures.slices import LUNG_WINDOW
from nnunet_covid.files import own_name
from nnunet_covid.nnunet.encoder import deepest_features, mean_over_positions
from nnunet_covid.nnunet.predictor import PreparedCase, TrainedModel
from nnunet_covid.nnunet.written_images import SLICE_SPACING
from nnunet_covid.prediction.folder import digest_of_model
from nnunet_covid.raw_dataset.scan import to_8_bit
from nnunet_covid.report.clock import Clock
from nnunet_covid.report.document import ModelFacts
from nnunet_covid.report.regions import storage_order

TRAINED_AS = "LPS"
"""Storage order that a volume is brought to where a model's profile does not say another."""
PERCENTILES = (1, 25, 50, 75, 99)
TURNED = "RAS"
"""Storage order to which nnU-Net's readers ``…WithReorient`` bring every image."""
Piece = tuple[NDArray[np.float32], tuple[float, ...]]
"""Values (1, z, y, x) and spacing in millimetres along z, y, x."""
Group = list[Piece]
TOGETHER = 16
"""Slices between two changes of a fold's weights."""


@dataclass(frozen=True)
class Observed:
    """What is seen of an image while it is labelled, for the flags.

    Attributes:
        intensities: Percentiles 1, 25, 50, 75 and 99 of the values that the model was given.
        disagreement: Share, 0 to 1, of the voxels that any of several predictions calls infected on which they differ:
            the folds', or with one fold that with mirroring and that without; None without infection or mirroring.
        features: Mean of the deepest encoder stage over positions and passes (channels,); None without an encoder.
    """

    intensities: tuple[float, ...]
    disagreement: float | None = None
    features: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Labelled:
    """What a model says of a volume.

    Attributes:
        labels: Label map on the volume's grid, in its storage order.
        observed: On the way.
        notes: What was done to the volume before the network saw it, one sentence each.
    """

    labels: sitk.Image
    observed: Observed
    notes: tuple[str, ...] = ()


@dataclass
class _Tally:
    """Counts over the pieces of a volume."""

    clock: Clock
    differing: int = 0
    infected: int = 0
    passes: int = 0
    features: torch.Tensor | None = None

    def add_features(self, deepest: torch.Tensor) -> None:
        """The features (B, C, *spatial) of one pass."""
        mean = mean_over_positions(deepest)
        self.features = mean if self.features is None else self.features + mean
        self.passes += 1


class ReportModel:
    """A model that labels volumes.

    Args:
        model: Loaded; needs one channel and no previous stage.

    Attributes:
        turned: Storage order to which its reader brings every image; None where images stay as they are stored.
        orientation: Storage order that the network knows, three letters as in DICOM; a profile may tell another where
            images stay as they are stored.

    Raises:
        UserError: If it needs more than a CT volume.
    """

    def __init__(self, model: TrainedModel) -> None:
        if model.channels != 1:
            raise UserError(
                f"{model.folder} was trained on {model.channels} channels, a report has the CT alone; "
                "use a model of one channel"
            )
        if model.previous_stage is not None:
            raise UserError(f"{model.folder} is the second stage of a cascade; use its full-resolution or 2d model")
        self.model = model
        self.turned = TURNED if type(model.reader).__name__.endswith("WithReorient") else None
        self.orientation = self.turned or TRAINED_AS
        self.takes_pictures = model.ending.lower() in PICTURE_ENDINGS

    @property
    def classes(self) -> dict[str, tuple[int, ...]]:
        """Name of each foreground class or region to its label values."""
        return foreground_values(self.model.dataset_json["labels"])

    @cached_property
    def facts(self) -> ModelFacts:
        """What a report says of the model; its digest is computed once."""
        return ModelFacts(
            name=own_name(self.model.folder),
            dataset=self.model.predictor.plans_manager.dataset_name,
            folds=tuple(str(fold) for fold in self.model.folds),
            classes=tuple(self.classes),
            digest=digest_of_model(self.model),
        )

    def label(
        self,
        image: sitk.Image,
        progress: Callable[[list[Group]], Iterable[Group]] = iter,
        clock: Clock | None = None,
    ) -> Labelled:
        """Label a volume in Hounsfield units.

        Args:
            image: In any storage order.
            progress: Wraps the list of groups of slices, or of the one volume, as tqdm does.
            clock: Told what the network takes.
        """
        oriented = sitk.DICOMOrient(image, self.orientation)
        values = sitk.GetArrayFromImage(oriented).astype(np.float32)
        notes: tuple[str, ...] = ()
        if self.takes_pictures:
            notes = ("The model was trained on pictures: it saw each slice alone, HU -1250 to 250 as grey 0 to 255.",)
            shown, spacing = to_8_bit(values, *LUNG_WINDOW).astype(np.float32), (float(SLICE_SPACING), 1.0, 1.0)
            pieces: list[Piece] = [(shown[None, z : z + 1], spacing) for z in range(len(shown))]
        else:
            pieces = [(values[None], tuple(float(s) for s in oriented.GetSpacing()[::-1]))]
        maps, observed = self.observe(pieces, progress, clock)
        labels = sitk.GetImageFromArray(np.concatenate(maps).astype(np.uint8))
        labels.CopyInformation(oriented)
        return Labelled(sitk.DICOMOrient(labels, storage_order(image)), observed, notes)

    def observe(
        self,
        pieces: list[Piece],
        progress: Callable[[list[Group]], Iterable[Group]] = iter,
        clock: Clock | None = None,
    ) -> tuple[list[NDArray[Any]], Observed]:
        """The label maps (z, y, x) of pieces of one image, and what was seen of them."""
        tally = _Tally(clock or Clock())
        with deepest_features(self.model.network, tally.add_features):
            groups = [pieces[i : i + TOGETHER] for i in range(0, len(pieces), TOGETHER)]
            maps = [labels for group in progress(groups) for labels in self._label_group(group, tally)]
        values = np.concatenate([data.ravel() for data, _ in pieces])
        return maps, Observed(
            intensities=tuple(np.percentile(values, PERCENTILES).tolist()),
            disagreement=tally.differing / tally.infected if self._compares and tally.infected else None,
            features=None if tally.features is None else tuple((tally.features / tally.passes).tolist()),
        )

    @property
    def _compares(self) -> bool:
        """Whether there are several predictions of one image."""
        predictor = self.model.predictor
        return len(self.model.folds) > 1 or bool(predictor.use_mirroring and predictor.allowed_mirroring_axes)

    def _label_group(self, group: Group, tally: _Tally) -> list[NDArray[Any]]:
        """Label maps (z, y, x) of volumes or slices (1, z, y, x)."""
        cases = [self.model.prepare_image("scan", data, {"spacing": list(spacing)}) for data, spacing in group]
        with tally.clock.on("network"):
            several = self.model.fold_logits(cases)
        means = [sum(folds[1:], folds[0]) / len(folds) for folds in zip(*several, strict=True)]
        if len(several) == 1 and self._compares:
            with tally.clock.on("network"):
                several.append(self._without_mirroring(cases))
        for predictions in zip(*several, strict=True):
            infected = torch.stack([self._infected(logits) for logits in predictions])
            union = infected.any(0)
            tally.infected += int(union.sum())
            tally.differing += int((union & ~infected.all(0)).sum())
        return [self.model.labels(case, mean) for case, mean in zip(cases, means, strict=True)]

    def _without_mirroring(self, cases: list[PreparedCase]) -> list[torch.Tensor]:
        predictor = self.model.predictor
        predictor.use_mirroring = False
        try:
            return self.model.fold_logits(cases)[0]
        finally:
            predictor.use_mirroring = True

    def _infected(self, logits: torch.Tensor) -> torch.Tensor:
        """Where any class is predicted, (*spatial)."""
        return (logits > 0).any(0) if self.model.predictor.label_manager.has_regions else logits.argmax(0) > 0
