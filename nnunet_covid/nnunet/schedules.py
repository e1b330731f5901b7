"""Learning-rate schedules with the interface of nnU-Net's: ``step(current_epoch)``."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class StepDecay(LRScheduler):
    """Multiply the learning rate by ``gamma`` after every ``period`` epochs.

    Args:
        period: Epochs between two steps.
        gamma: Factor of each step.
    """

    def __init__(self, optimizer: Optimizer, *, period: int, gamma: float = 0.1) -> None:
        self.period = max(1, period)
        self.gamma = gamma
        self.initial_lr = [group["lr"] for group in optimizer.param_groups]
        self.counter = 0
        super().__init__(optimizer)

    def step(self, current_step: int | None = None) -> None:  # type: ignore[override]
        """Set the learning rates of an epoch (the next one by default)."""
        if current_step is None or current_step == -1:
            current_step = self.counter
            self.counter += 1
        factor = self.gamma ** (current_step // self.period)
        for group, initial in zip(self.optimizer.param_groups, self.initial_lr, strict=True):
            group["lr"] = initial * factor
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
