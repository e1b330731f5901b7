"""A trained model on one volume in memory: bring the volume into the directions and values it knows, label it, go back.

The networks run through :class:`nnunet_covid.nnunet.predictor.TrainedModel`, that is, through nnU-Net's own predictor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from numpy.typing import NDArray

from nnunet_covid.dataset_json import foreground_values
from nnunet_covid.errors import UserError
from nnunet_covid.figures.scan_views import grey
from nnunet_covid.files import digest_of, sha256_of
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.report.document import ModelFacts

PICTURE_ENDINGS = (".png", ".bmp", ".jpg", ".jpeg")
TRAINED_AS = "LPS"
"""Storage order that a volume is brought to where a model's profile does not say another."""


@dataclass(frozen=True)
class Labelled:
    """What a model says of a volume.

    Attributes:
        labels: Label map on the volume's grid, in its storage order.
        disagreement: Share of the voxels that any fold calls infected on which the folds differ; None with one fold or
            without infection.
        notes: What was done to the volume before the network saw it, one sentence each.
    """

    labels: sitk.Image
    disagreement: float | None
    notes: tuple[str, ...]


class ReportModel:
    """A model that labels volumes.

    Args:
        model: Loaded; needs one channel and no previous stage.
        orientation: Storage order of its training images, three letters as in DICOM.

    Raises:
        UserError: If it needs more than a CT volume.
    """

    def __init__(self, model: TrainedModel, orientation: str = TRAINED_AS) -> None:
        if model.channels != 1:
            raise UserError(
                f"{model.folder} was trained on {model.channels} channels; a report has the CT alone: train on one channel"
            )
        if model.previous_stage is not None:
            raise UserError(f"{model.folder} is the second stage of a cascade; use its full-resolution or 2d model")
        self.model = model
        self.orientation = orientation
        self.takes_pictures = model.ending.lower() in PICTURE_ENDINGS

    @property
    def classes(self) -> dict[str, int | tuple[int, ...]]:
        """Name of each foreground class or region to its label values."""
        return {name: tuple(values) for name, values in foreground_values(self.model.dataset_json["labels"]).items()}

    def facts(self) -> ModelFacts:
        """What a report says of the model; the digest is of plans, data set and weights."""
        folder = self.model.folder
        weights = [folder / f"fold_{fold}" / self.model.checkpoint for fold in self.model.folds]
        digests = [sha256_of(path) for path in (folder / "plans.json", folder / "dataset.json", *weights)]
        return ModelFacts(
            name=folder.name,
            dataset=self.model.predictor.plans_manager.dataset_name,
            folds=tuple(str(fold) for fold in self.model.folds),
            classes=tuple(self.classes),
            digest=digest_of(digests, 16),
        )

    def label(self, image: sitk.Image) -> Labelled:
        """Label a volume in Hounsfield units."""
        oriented = sitk.DICOMOrient(image, self.orientation)
        notes = []
        if self.takes_pictures:
            values = grey(sitk.GetArrayFromImage(oriented)).astype(np.float32)
            notes.append("The model was trained on pictures: it saw each slice alone, HU -1250 to 250 as grey 0 to 255.")
            pieces = [(values[None, z : z + 1], (999.0, 1.0, 1.0)) for z in range(len(values))]
        else:
            values = sitk.GetArrayFromImage(oriented).astype(np.float32)
            pieces = [(values[None], tuple(float(s) for s in oriented.GetSpacing()[::-1]))]
        found = [self._label_piece(data, spacing) for data, spacing in pieces]
        label_map = np.concatenate([labels.reshape(-1, *labels.shape[-2:]) for labels, _ in found])
        differing, infected = (sum(counts[i] for _, counts in found) for i in (0, 1))
        labels = sitk.GetImageFromArray(label_map.astype(np.uint8))
        labels.CopyInformation(oriented)
        return Labelled(
            sitk.DICOMOrient(labels, sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())),
            differing / infected if len(self.model.folds) > 1 and infected else None,
            tuple(notes),
        )

    def _label_piece(
        self, data: NDArray[np.float32], spacing: tuple[float, ...]
    ) -> tuple[NDArray[Any], tuple[int, int]]:
        """Label map of a volume or slice, and how many voxels folds differ on and any fold calls infected."""
        case = self.model.prepare_image("scan", data, {"spacing": list(spacing)})
        folds = self.model.fold_logits(case)
        labels, _ = self.model.label_map(case, sum(folds[1:], folds[0]) / len(folds))
        infected = [logits.argmax(0) > 0 if not self._regions else (logits > 0).any(0) for logits in folds]
        union = torch.stack(infected).any(0)
        both = torch.stack(infected).all(0)
        return labels, (int((union & ~both).sum()), int(union.sum()))

    @property
    def _regions(self) -> bool:
        return bool(self.model.predictor.label_manager.has_regions)
