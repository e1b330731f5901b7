"""Stock nnU-Net with a warm-up, for trainings that start from pre-trained weights."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_covid.nnunet.training import EpochSchedule, poly, warmed_up
from nnunet_covid.trainers.undisturbed import UndisturbedTrainer


class UNetWarmUpTrainer(UndisturbedTrainer):
    """``nnUNetTrainer`` whose learning rate rises over the first epochs, as its own would undo what was learnt before.

    Attributes:
        warm_up: Epochs over which the learning rate rises to the schedule's.
    """

    warm_up: int = 1

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """nnU-Net's optimiser, and its schedule with a rise in front."""
        optimizer, _ = super().configure_optimizers()
        return optimizer, EpochSchedule(optimizer, warmed_up(poly(self.num_epochs), self.warm_up))
