"""The options of a run, each stated once: its value in the papers, its strategy and its help on the command line.

Not here: how they are given. In texts for the person an option stands as `` `name` ``; a command line shows its flag.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from nnunet_covid.errors import UserError

Strategy = Literal["random", "iterative"]
STRATEGIES = ("random", "iterative")

DEFAULTS: dict[str, dict[str, Any]] = {
    "random": {"per_round": 5, "threshold": 0.0},
    "iterative": {"per_round": None, "threshold": 0.95},
}
"""Fan et al. 2020, §III-D: K = 5, no threshold. Wang et al. 2022, §3.2.2: η = 0.95, t is not given."""


def check_tag(tag: str) -> None:
    """Refuse a `name` that cannot stand in a model's."""
    if not re.fullmatch("[A-Za-z0-9]+", tag):
        raise UserError(f"`name` {tag}: letters and digits only, it becomes part of the model's name")


def _option(default: Any, text: str, *, metavar: str | None = None, only_for: Strategy | None = None) -> Any:
    return field(default=default, metadata={"help": text, "metavar": metavar, "only_for": only_for})


@dataclass(frozen=True)
class RoundOptions:
    """Everything that decides what a run does; a run goes on only with the same.

    The metadata of a field hold its help and, as ``only_for``, the one strategy in which it means something.

    Attributes:
        strategy: ``"random"``: Inf-Net, Algorithm 1. ``"iterative"``: SSA-Net, §3.2.2.
        class_thresholds: η of single classes, by name.
    """

    strategy: Strategy
    per_round: int | None = _option(
        None,
        "images per round: K (default: 5 [Inf, §III-D]) or t (default: a tenth of the pool; [SSA] gives none)",
        metavar="N",
    )
    max_rounds: int | None = _option(None, "no more rounds than this", metavar="N")
    seed: int = _option(0, "default: 0")
    threshold: float = _option(
        0.0,
        "trust threshold, eq. (9); CLASS=η for single classes (default: 0 [Inf] for random, 0.95 [SSA])",
        metavar="η",
    )
    class_thresholds: dict[str, float] = field(default_factory=dict)
    untrusted: Literal["background", "ignore"] = _option(
        "background", "what an untrusted voxel becomes: background [SSA] (default), or the ignore label"
    )
    soft: bool = _option(False, "soft pseudo labels (beyond the papers)")
    min_max: bool = _option(
        False, "soft labels of each image's map stretched from its smallest to its largest value to 0 … 1 [Inf, code]"
    )
    strong: bool = _option(
        False, "on pseudo-labelled images every change of intensity of the augmentation, always (beyond the papers)"
    )
    confidence: Literal["probability", "mirroring"] = _option(
        "probability",
        "what η is compared with and `select` goes by: the probability (default), or the share of mirrored "
        "predictions that agree (beyond the papers)",
    )
    select: Literal["random", "confident"] = _option(
        "random", "images drawn at random (both papers), or the surest ones"
    )
    mirroring: bool = _option(True, "predict faster")
    export: bool = _option(True, "no labels in the images' own geometry")
    round_epochs: int = _option(10, "of each fine-tuning (default: 10 [Inf, code])", metavar="N", only_for="random")
    round_iterations: int | None = _option(
        None,
        "steps per epoch of it (default: one pass over the enlarged set [Inf, code])",
        metavar="N",
        only_for="random",
    )
    learning_rate: float | None = _option(
        3e-4,
        "of Adam in each fine-tuning (default: 3e-4 [Inf, code]); 0 keeps the trainer's own optimiser",
        metavar="X",
        only_for="random",
    )
    two_step: bool = _option(
        True,
        "end after the last round, without pre-training and fine-tuning a new model [Inf, §III-D]",
        only_for="random",
    )
    patience: int = _option(1, "rounds without improvement (default: 1 [SSA])", metavar="N", only_for="iterative")
    warm_start: bool = _option(False, "go on with the last round's weights", only_for="iterative")
    reweight: Literal["auto", "on", "off"] = _option(
        "auto",
        "class weights of eq. (8) [SSA] in the trainer's cross entropy (default: auto, where it has one)",
        only_for="iterative",
    )
    until_pool_empty: bool = _option(False, "stop only when no image is left in the pool", only_for="iterative")

    def count_for(self, pool_size: int) -> int:
        """Images per round."""
        return self.per_round if self.per_round is not None else max(1, -(-pool_size // 10))


def make_options(strategy: Strategy, given: Mapping[str, Any]) -> RoundOptions:
    """Options from what was given, the papers' values elsewhere.

    Args:
        strategy: Which of the two.
        given: Values by attribute name; ``None`` means not given.

    Raises:
        UserError: If an option belongs to the other strategy, contradicts another or is out of range.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    for f in fields(RoundOptions):
        only_for = f.metadata.get("only_for") or strategy
        if f.name in chosen and only_for != strategy:
            raise UserError(f"{shown(f.name)} belongs to `strategy` {only_for} and means nothing to {strategy}")
    softening = next((name for name in ("min_max", "soft") if chosen.get(name)), None)
    if softening is not None:
        for name in ("threshold", "class_thresholds", "untrusted"):
            if chosen.get(name):
                raise UserError(f"{shown(name)} makes hard labels: leave it out, or leave out {shown(softening)}")
        chosen |= {"threshold": 0.0, "soft": True}
    if chosen.get("confidence") == "mirroring" and chosen.get("mirroring") is False:
        raise UserError("`confidence` mirroring compares mirrored predictions: leave out `mirroring`")
    if chosen.get("learning_rate") == 0:
        chosen["learning_rate"] = None
    options = RoundOptions(strategy=strategy, **{**DEFAULTS[strategy], **chosen})
    _check_ranges(options)
    if options.untrusted == "ignore" and not any((options.threshold, *options.class_thresholds.values())):
        raise UserError("`untrusted` ignore: with η = 0 every voxel is trusted; give a `threshold` above 0")
    return options


def _check_ranges(options: RoundOptions) -> None:
    for name in ("per_round", "max_rounds", "round_epochs", "round_iterations", "patience"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{shown(name)} {value}: must be 1 or more")
    of_classes = {f"η of {name}": eta for name, eta in options.class_thresholds.items()}
    for name, value in {"η": options.threshold, **of_classes}.items():
        if not 0 <= value <= 1:
            raise UserError(f"`threshold`: {name} is {value}, but must lie between 0 and 1")
    if options.seed < 0:
        raise UserError(f"`seed` {options.seed}: must be 0 or more")
    if options.learning_rate is not None and not 0 < options.learning_rate < math.inf:
        raise UserError(f"`learning_rate` {options.learning_rate}: must be positive, or 0 for the trainer's own")


def shown(name: str) -> str:
    """An option in a text for the person."""
    return "`threshold` NAME=…" if name == "class_thresholds" else f"`{name}`"
