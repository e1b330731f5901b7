"""The settings of a run, their values in the papers, and which strategy each belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from nnunet_covid.errors import UserError

Strategy = Literal["random", "iterative"]
STRATEGIES = ("random", "iterative")

DEFAULTS: dict[str, dict[str, Any]] = {
    "random": {"per_round": 5, "threshold": 0.0},
    "iterative": {"per_round": None, "threshold": 0.95},
}
"""Fan et al. 2020, §III-D: K = 5, no threshold. Wang et al. 2022, §3.2.2: η = 0.95, t is not given."""

ONLY_FOR: dict[str, Strategy] = {
    "round_epochs": "random",
    "round_iterations": "random",
    "learning_rate": "random",
    "two_step": "random",
    "patience": "iterative",
    "warm_start": "iterative",
    "reweight": "iterative",
    "until_pool_empty": "iterative",
}
"""Options that mean nothing to the other strategy."""


@dataclass(frozen=True)
class RoundOptions:
    """Everything that decides what a run does; a run goes on only with the same.

    Attributes:
        strategy: ``"random"``: Inf-Net, Algorithm 1. ``"iterative"``: SSA-Net, §3.2.2.
        per_round: K or t, images per round; ``None`` is a tenth of the pool.
        seed: Of everything drawn at random.
        threshold: η of SSA-Net's eq. (9); 0 keeps every voxel.
        class_thresholds: η of single classes, by name.
        untrusted: What an untrusted voxel becomes.
        soft: Soft pseudo labels instead of thresholded ones.
        confidence: What η is compared with and images are chosen by: the probability, or the share of mirrored
            predictions that agree.
        select: Images drawn at random, or the most confident ones.
        mirroring: Whether predictions average over mirrored inputs, as nnU-Net's do.
        max_rounds: No more rounds than this.
        round_epochs: Epochs of each fine-tuning.
        round_iterations: Steps per epoch of it; ``None`` is one pass over the enlarged training set.
        learning_rate: Of Adam in each fine-tuning; ``None`` keeps the trainer's own optimiser and schedule.
        two_step: Whether a new model is pre-trained on the pseudo labels and fine-tuned on the labelled images.
        patience: Rounds without a better validation Dice after which the iteration ends.
        warm_start: Each round goes on with the weights of the one before.
        reweight: Class weights of eq. (8) in the trainer's cross entropy; ``"auto"`` where it has one.
        until_pool_empty: Whether the iteration goes on until the pool is empty, whatever the validation Dice.
        export: Whether each round's labels are also written in the images' own geometry.
    """

    strategy: Strategy
    per_round: int | None
    seed: int = 0
    threshold: float = 0.0
    class_thresholds: dict[str, float] = field(default_factory=dict)
    untrusted: Literal["background", "ignore"] = "background"
    soft: bool = False
    confidence: Literal["probability", "mirroring"] = "probability"
    select: Literal["random", "confident"] = "random"
    mirroring: bool = True
    max_rounds: int | None = None
    round_epochs: int = 10
    round_iterations: int | None = None
    learning_rate: float | None = 3e-4
    two_step: bool = True
    patience: int = 1
    warm_start: bool = False
    reweight: Literal["auto", "on", "off"] = "auto"
    until_pool_empty: bool = False
    export: bool = True

    def to_json(self) -> dict[str, Any]:
        """As it is written into the state."""
        return asdict(self)

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
    for name in chosen:
        if ONLY_FOR.get(name, strategy) != strategy:
            raise UserError(f"{flag(name)} belongs to --strategy {ONLY_FOR[name]} and means nothing to {strategy}")
    if chosen.get("soft"):
        for name in ("threshold", "class_thresholds", "untrusted"):
            if chosen.get(name):
                raise UserError(f"{flag(name)} makes hard labels: leave it out, or leave out --soft")
        chosen["threshold"] = 0.0
    if chosen.get("confidence") == "mirroring" and chosen.get("mirroring") is False:
        raise UserError("--confidence mirroring compares mirrored predictions: leave out --no-mirroring")
    if chosen.get("learning_rate") == 0:
        chosen["learning_rate"] = None
    options = RoundOptions(strategy=strategy, **{**DEFAULTS[strategy], **chosen})
    _check_ranges(options)
    if options.untrusted == "ignore" and not any((options.threshold, *options.class_thresholds.values())):
        raise UserError("--untrusted ignore: with η = 0 every voxel is trusted; give a --threshold above 0")
    return options


def _check_ranges(options: RoundOptions) -> None:
    for name in ("per_round", "max_rounds", "round_epochs", "round_iterations", "patience"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} {value}: must be 1 or more")
    for name, value in {"η": options.threshold, **options.class_thresholds}.items():
        if not 0 <= value <= 1:
            raise UserError(f"{flag('threshold')}: η of {name} is {value}, but must lie between 0 and 1")
    if options.seed < 0:
        raise UserError(f"--seed {options.seed}: must be 0 or more")
    if options.learning_rate is not None and options.learning_rate < 0:
        raise UserError(f"--learning-rate {options.learning_rate}: must be positive, or 0 for the trainer's own")


def flag(name: str) -> str:
    """How an attribute is called on the command line."""
    special = {"class_thresholds": "--threshold NAME=…", "two_step": "--no-two-step", "mirroring": "--no-mirroring"}
    return special.get(name, "--" + name.replace("_", "-"))


def differences(before: Mapping[str, Any], now: RoundOptions) -> list[str]:
    """What has changed since the run began, one phrase each."""
    current = now.to_json()
    return [
        f"{flag(f.name)} was {before.get(f.name)!r} and is {current[f.name]!r}"
        for f in fields(RoundOptions)
        if before.get(f.name) != current[f.name]
    ]
