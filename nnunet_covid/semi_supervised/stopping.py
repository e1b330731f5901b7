"""When the iteration ends."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_round(dice: Sequence[float]) -> int:
    """Index of the highest validation Dice, the earliest among equals; the last one if none is a number."""
    numbers = [(-d, i) for i, d in enumerate(dice) if not math.isnan(d)]
    return min(numbers)[1] if numbers else len(dice) - 1


def no_longer_improves(dice: Sequence[float], patience: int) -> bool:
    """Whether the last ``patience`` rounds all failed to beat the best one before them (SSA-Net, §3.2.2).

    A Dice that is not a number, of validation cases without any lesion, beats none.
    """
    best = 0 if all(math.isnan(d) for d in dice) else best_round(dice)
    return len(dice) - 1 - best >= patience
