"""What a state file says about each round, for the table and the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_covid.semi_supervised.manifest import kept_shares

PARTS = ("select", "label", "train", "validate", "other")
"""Of a round, for the time it took."""


@dataclass
class RoundHistory:
    """One round.

    Attributes:
        number: 0 is the training on labelled images alone.
        pseudo: Pseudo-labelled images at its end.
        left: Images that no round has taken yet.
        dice: Validation Dice of the last model it made, not a number before that.
        classes: The same by class.
        kept: Share of predicted voxels kept, by class.
        weights: Class weights of eq. (8), if any.
        seconds: Time of each part.
        computing: Seconds of gradient steps and forward passes.
        confidence: Mean of its pseudo labels.
    """

    number: int
    pseudo: int = 0
    left: int = 0
    dice: float = math.nan
    classes: dict[str, float] = field(default_factory=dict)
    kept: dict[str, float | None] = field(default_factory=dict)
    weights: list[float] | None = None
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    computing: float = 0.0
    confidence: float | None = None


def history(state: Mapping[str, Any]) -> list[RoundHistory]:
    """The rounds of a state file, in order.

    Args:
        state: Its content.
    """
    units = state["units"]
    pool = len(units.get("pool", {}).get("result", {}).get("cases", ()))
    rounds: dict[int, RoundHistory] = {}
    taken = 0
    for name, unit in units.items():
        number, _, what = name.partition("/")
        if not number.isdigit():
            continue
        one = rounds.setdefault(int(number), RoundHistory(int(number)))
        if what == "select":
            taken += len(unit["result"])
        one.pseudo, one.left = taken, pool - taken
        _take_in(one, what, unit)
    return [rounds[n] for n in sorted(rounds)]


def _take_in(one: RoundHistory, what: str, unit: Mapping[str, Any]) -> None:
    result = unit["result"]
    part = what.split()[0]
    if isinstance(result, dict) and "steps" in result:
        part = "train"
    one.seconds[part if part in PARTS else "other"] += unit["seconds"]
    if isinstance(result, dict):
        one.computing += result.get("forward_seconds", 0.0)
    if part == "label":
        one.kept = kept_shares(result["predicted"], result["kept"])
        one.confidence = result["confidence"]
    elif part == "validate":
        one.dice, one.classes = result["mean"], result["classes"]
    elif part == "weights":
        one.weights = result
