"""Predictions in pre-processed space with nnU-Net's sliding window."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray

from nnunet_covid.semi_supervised.experiment import quiet
from nnunet_covid.semi_supervised.trust import certainty_of_prediction, mean_confidence, votes


@dataclass(frozen=True)
class Prediction:
    """Of one case.

    Attributes:
        probabilities: (heads, *spatial), float32.
        certainty: In the same shape: the probabilities, or the share of mirrored predictions for each head.
        confidence: Mean certainty of what is predicted over the predicted foreground.
        seconds: Spent in forward passes.
    """

    probabilities: NDArray[np.float32]
    certainty: NDArray[np.float32]
    confidence: float
    seconds: float


class CasePredictor:
    """Predicts pre-processed cases with the network of a trainer.

    Args:
        trainer: Initialised, with the weights to predict with.
        mirroring: Average over mirrored inputs, along the axes that the trainer mirrors in training.
        compare: Take the certainty from how far the mirrored predictions agree.
    """

    def __init__(self, trainer: nnUNetTrainer, *, mirroring: bool = True, compare: bool = False) -> None:
        with quiet():
            on_device = trainer.device.type == "cuda"
            self._predictor = nnUNetPredictor(
                use_mirroring=mirroring and not compare,
                perform_everything_on_device=on_device,
                device=trainer.device,
                allow_tqdm=False,
            )
            axes = trainer.inference_allowed_mirroring_axes
            self._predictor.manual_initialization(
                trainer.network,
                trainer.plans_manager,
                trainer.configuration_manager,
                None,
                trainer.dataset_json,
                type(trainer).__name__,
                axes,
            )
        trainer.set_deep_supervision_enabled(False)
        trainer.network.eval()
        self._labels = trainer.label_manager
        self._compare = compare
        self._mirrored: list[tuple[int, ...]] = [()]
        if compare and axes:
            # the image has a channel axis in front, and in 2D a slice axis
            first = 4 - len(trainer.configuration_manager.patch_size)
            axes = [a + first for a in axes]
            self._mirrored = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]

    def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Predict an image (C, *spatial) as nnU-Net does."""
        start = time.perf_counter()
        data = torch.from_numpy(np.ascontiguousarray(image))
        all_logits = [self._logits(torch.flip(data, axes)).flip(axes) for axes in self._mirrored]
        mean = torch.stack(all_logits).mean(0) if len(all_logits) > 1 else all_logits[0]
        seconds = time.perf_counter() - start
        probabilities = self._labels.apply_inference_nonlin(mean).numpy()
        regions = self._labels.has_regions
        certainty = votes([one.numpy() for one in all_logits], regions=regions) if self._compare else probabilities
        sure = certainty_of_prediction(probabilities, certainty, regions=regions)
        return Prediction(probabilities, certainty, mean_confidence(sure, self.labels_of(probabilities)), seconds)

    def labels_of(self, probabilities: NDArray[np.float32]) -> NDArray[np.integer]:
        """The label map that nnU-Net makes of probabilities."""
        return np.asarray(self._labels.convert_probabilities_to_segmentation(probabilities))

    def _logits(self, data: torch.Tensor) -> Any:
        return self._predictor.predict_sliding_window_return_logits(data).float().cpu()
