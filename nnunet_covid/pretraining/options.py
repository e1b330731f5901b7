"""What decides a pre-training, each option once; how it is given stands in ``cli/``. Here it is written `` `so` ``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from nnunet_covid.errors import UserError

RATES = {"adamw": 1e-3, "sgd": 1e-2}
"""Learning rates: of AdamW, and nnU-Net's."""


@dataclass(frozen=True)
class PretrainingOptions:
    """Everything that decides what is learnt from some images; a run goes on only with the same.

    Attributes:
        steps: Of the optimiser.
        mask_share: Of the blocks of each patch that are hidden.
        skips: Whether the decoder sees the encoder's finer features.
        optimizer: AdamW, or nnU-Net's SGD with Nesterov momentum; both with warm-up and nnU-Net's decay.
        learning_rate: The highest; ``None`` is that of :data:`RATES`.
        seed: Of all random numbers.

    Raises:
        UserError: If one is out of range.
    """

    steps: int = 25_000
    mask_share: float = 0.7
    skips: bool = False
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"`steps` {self.steps}: must be 1 or more")
        if not 0 < self.mask_share < 1:
            raise UserError(f"`mask_share` {self.mask_share:g}: must lie between 0 and 1, both excluded; try 0.7")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UserError(f"`learning_rate` {self.learning_rate:g}: must be positive and finite")
        if self.seed < 0:
            raise UserError(f"`seed` {self.seed}: must be 0 or more")

    @property
    def rate(self) -> float:
        """The highest learning rate."""
        return self.learning_rate or RATES[self.optimizer]
