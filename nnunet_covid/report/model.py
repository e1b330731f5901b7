"""A trained model on one volume in memory: bring the volume into the directions and values it knows, label it, go back.

The networks run through :class:`nnunet_covid.nnunet.predictor.TrainedModel`, that is, through nnU-Net's own predictor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from nnunet_covid.dataset_json import GREY, channel_names, foreground_values, is_organ, window_of
from nnunet_covid.endings import PICTURE_ENDINGS
from nnunet_covid.errors import UserError, did_you_mean
from nnunet_covid.figures.slices import LUNG_WINDOW
from nnunet_covid.files import digest_of, own_name
from nnunet_covid.geometry import turned_by
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
    """

    labels: sitk.Image
    observed: Observed


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
        classes: Names of the classes or regions that count as infection; all that are no organ by their name
            (:func:`nnunet_covid.dataset_json.is_organ`) if not given.

    Attributes:
        classes: Name of each class or region that counts as infection to its label values.
        turned: Storage order to which its reader brings every image; None where images stay as they are stored.
        takes_pictures: Whether it was trained on pictures.
        takes_slices: Whether it was trained on images of one slice, pictures or not.
        window: Hounsfield units that its training images had as grey values 0 and 255; None where they had them as
            they are.
        notes: How a scan is brought to what it knows, and what of its labels does not count, one sentence each.
        orientation: Storage order that the network knows, three letters as in DICOM; a profile may tell another where
            images stay as they are stored.

    Raises:
        UserError: If it needs more than a CT volume, has no such class, or none that counts.
    """

    def __init__(self, model: TrainedModel, classes: Sequence[str] | None = None) -> None:
        if model.channels != 1:
            raise UserError(
                f"{model.folder} was trained on {model.channels} channels, a report has the CT alone; "
                "use a model of one channel"
            )
        if model.previous_stage is not None:
            raise UserError(f"{model.folder} is the second stage of a cascade; use its full-resolution or 2d model")
        self.model = model
        self.turned = turned_by(type(model.reader).__name__)
        self.orientation = self.turned or TRAINED_AS
        plans = model.predictor.plans_manager.plans
        self.takes_pictures = model.ending.lower() in PICTURE_ENDINGS
        self.takes_slices = self.takes_pictures or (plans.get("original_median_shape_after_transp") or [0])[0] == 1
        self.window, guess = self._window_of(plans.get("foreground_intensity_properties_per_channel") or {})
        offered = foreground_values(model.dataset_json["labels"])
        self.classes = {name: offered[name] for name in self._counted(offered, classes)}
        self._left_out = [name for name in offered if name not in self.classes]
        left_out = [f"Not counted as infection: {', '.join(self._left_out)}."] if self._left_out else []
        self.notes = (*self._as_trained(), *guess, *left_out)

    def _counted(self, offered: Collection[str], named: Sequence[str] | None) -> list[str]:
        """The classes that count as infection, in the order of dataset.json."""
        told = ", ".join(offered) or "none"
        for name in named or ():
            if name not in offered:
                guess = did_you_mean(name, offered)
                raise UserError(f"{self.model.folder} has no class {name!r}, it has {told}{guess}", about="classes")
        counted = [name for name in offered if (name in named if named else not is_organ(name))]
        if not counted:
            remedy = "name those that count as infection all the same"
            raise UserError(f"{self.model.folder} has no class of infection, it has {told}; {remedy}", about="classes")
        return counted

    def _window_of(self, intensities: Mapping[str, Any]) -> tuple[tuple[float, float] | None, list[str]]:
        """The window that a scan goes through, if any, and what is to be said where it is not recorded.

        Args:
            intensities: Of each channel's foreground in the training images, as the plans have them.
        """
        recorded = window_of(self.model.dataset_json)
        if recorded is not None or self.takes_pictures:
            return recorded or LUNG_WINDOW, []
        if channel_names(self.model.dataset_json) != [GREY]:
            return None, []
        known = intensities.get("0", {})
        if known.get("min", 0) < 0 or known.get("max", 255) > 255:
            return None, ["The model was trained on grey values of a scale that is not known: it saw Hounsfield units."]
        return LUNG_WINDOW, ["The model's dataset.json does not record this window: it is the usual one of lungs."]

    def _as_trained(self) -> list[str]:
        """What is done to a scan before the network sees it, if anything, in a sentence."""
        what = "pictures" if self.takes_pictures else "slices" if self.takes_slices else "volumes"
        done = ["each slice alone"] if self.takes_slices else []
        if self.window is not None:
            low, high = self.window
            done.append(f"HU {low:g} to {high:g} as grey 0 to 255")
        return [f"The model was trained on {what}: it saw {', '.join(done)}."] if done else []

    @cached_property
    def facts(self) -> ModelFacts:
        """What a report says of the model; its digest, which tells what is left out too, is computed once."""
        digest = digest_of_model(self.model)
        return ModelFacts(
            name=own_name(self.model.folder),
            dataset=self.model.predictor.plans_manager.dataset_name,
            folds=tuple(str(fold) for fold in self.model.folds),
            classes=tuple(self.classes),
            digest=digest_of([digest, self._left_out], 16) if self._left_out else digest,
            values={name: (of,) if isinstance(of, int) else tuple(of) for name, of in self.classes.items()},
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
        if self.window is not None:
            values = to_8_bit(values, *self.window).astype(np.float32)
        spacing = tuple(float(s) for s in oriented.GetSpacing()[::-1])
        pieces: list[Piece] = [(values[None], spacing)]
        if self.takes_slices:
            plane = (1.0, 1.0) if self.takes_pictures else spacing[1:]
            pieces = [(values[None, z : z + 1], (max(plane) * SLICE_SPACING, *plane)) for z in range(len(values))]
        maps, observed = self.observe(pieces, progress, clock)
        labels = sitk.GetImageFromArray(np.concatenate(maps).astype(np.uint8))
        labels.CopyInformation(oriented)
        return Labelled(sitk.DICOMOrient(labels, storage_order(image)), observed)

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
        """Where any class that counts is predicted, (*spatial)."""
        heads = [one.head for one in self.model.foreground_classes() if one.name in self.classes]
        if self.model.predictor.label_manager.has_regions:
            return (logits[heads] > 0).any(0)
        return torch.isin(logits.argmax(0), torch.tensor(heads, device=logits.device))
