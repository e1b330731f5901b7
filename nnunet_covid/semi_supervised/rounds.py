"""The two strategies as sequences of units of work: which images a round takes, what it trains on, when it ends.

All that is trained, predicted and written is done by a :class:`nnunet_covid.semi_supervised.learner.Learner`; here are
neither networks nor files.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nnunet_covid.semi_supervised.state import RunState, kept_shares

if TYPE_CHECKING:
    from nnunet_covid.semi_supervised.learner import Learner


@dataclass(frozen=True)
class Training:
    """One training of a run.

    Attributes:
        name: What is trained, for file names and seeds.
        round_number: Of the round it belongs to.
        start: Name of the model whose weights it starts from; ``None`` starts a new model.
        labelled: Whether the labelled images take part.
        pseudo: Pseudo-labelled cases that take part, each with the round that labelled it.
        epochs: Length of a round's fine-tuning; ``None`` keeps the trainer's own length and iterations.
        iterations: Per epoch of it; ``None`` with epochs is one pass over the cases.
        learning_rate: Of Adam, constant; ``None`` keeps the trainer's optimiser and schedule.
        class_weights: Weight of each class in the cross entropy.
    """

    name: str
    round_number: int
    start: str | None = None
    labelled: bool = True
    pseudo: Mapping[str, int] = field(default_factory=dict)
    epochs: int | None = None
    iterations: int | None = None
    learning_rate: float | None = None
    class_weights: Sequence[float] | None = None


def seed_for(seed: int, round_number: int, phase: str) -> int:
    """A seed of 32 bits that depends on what is done, not on what was done before.

    A run that was killed and started again draws the same numbers as one that was not.

    Args:
        seed: Of the run.
        round_number: Of the unit of work.
        phase: What is done.
    """
    text = f"{seed}/{round_number}/{phase}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")


def draw_at_random(remaining: Iterable[str], count: int, seed: int) -> list[str]:
    """``count`` of the remaining cases, or all of them if there are fewer; sorted.

    The draw depends on the set of cases and the seed alone, not on their order.
    """
    cases = sorted(remaining)
    if len(cases) <= count:
        return cases
    chosen = np.random.default_rng(seed).choice(len(cases), size=count, replace=False)
    return sorted(cases[i] for i in chosen)


def most_confident(confidence: Mapping[str, float], count: int) -> list[str]:
    """The ``count`` cases of highest confidence, the earlier name first among equals; sorted."""
    ranked = sorted(confidence, key=lambda case: (-confidence[case], case))
    return sorted(ranked[:count])


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


class Rounds(ABC):
    """What both strategies share: a pool that shrinks, and models named after their rounds.

    Args:
        state: What is done already.
        learner: Does the work.
        pool: All unlabelled cases.
        tell: Receives a line for the person.
        after_round: Called when a round has ended.
    """

    def __init__(
        self,
        state: RunState,
        learner: Learner,
        pool: Iterable[str],
        tell: Callable[[str], None] = print,
        after_round: Callable[[], object] = lambda: None,
    ) -> None:
        self.state = state
        self.learner = learner
        self.pool = sorted(pool)
        self.tell = tell
        self.after_round = after_round
        self.options = state.options
        self.labelled_in: dict[str, int] = {}

    @abstractmethod
    def run(self) -> str:
        """Do what is left to do; returns the name of the resulting model."""

    @property
    def remaining(self) -> list[str]:
        """Cases that no round has taken yet."""
        return [case for case in self.pool if case not in self.labelled_in]

    def select(self, number: int, model: str) -> list[str]:
        """The cases that a round takes from the pool."""

        def work() -> list[str]:
            count = self.options.count_for(len(self.pool))
            if self.options.select == "confident" and len(self.remaining) > count:
                return most_confident(self.learner.confidence(number, self.remaining, model), count)
            return draw_at_random(self.remaining, count, seed_for(self.options.seed, number, "select"))

        return self.state.once(f"{number}/select", work)

    def label(self, number: int, cases: Sequence[str], model: str) -> None:
        """Label cases as one unit of work, and say if nothing that the model found is trusted."""
        result = self.state.once(f"{number}/label", lambda: self.learner.label(number, cases, model))
        lost = [name for name, share in kept_shares(result["predicted"], result["kept"]).items() if share == 0]
        if lost:
            self.tell(
                f"WARNING: round {number}: the model finds {' and '.join(lost)}, but is nowhere as sure of it as the "
                "threshold asks, so that no pseudo label holds any: lower `threshold`, train longer, or take "
                "`untrusted` ignore"
            )

    def train(self, training: Training) -> None:
        """Train as one unit of work."""
        self.state.once(f"{training.round_number}/{training.name}", lambda: self.learner.train(training))

    def validate(self, number: int, model: str) -> float:
        """Validation Dice of a model, as one unit of work."""
        result = self.state.once(f"{number}/validate {model}", lambda: self.learner.validate(model))
        self.tell(f"{model}: validation Dice {result['mean']:.4f}")
        if number == 0 and math.isnan(result["mean"]):
            self.tell(
                "WARNING: the validation cases of this fold hold no lesion and none is predicted, so that their Dice "
                "is no number: no round can be told from another by it; use a fold whose validation cases hold lesions"
            )
        return float(result["mean"])

    def end_round(self, number: int, models: Sequence[str]) -> None:
        """Delete the models that no later unit needs and show what has been reached."""

        def tidy() -> None:
            self.learner.forget_models_but(models)
            self.after_round()

        self.state.once(f"{number}/end", tidy)

    def rounds_left(self, number: int) -> bool:
        """Whether round ``number`` may still be done."""
        return self.options.max_rounds is None or number <= self.options.max_rounds

    def publish(self, model: str) -> str:
        """The last unit of a run."""
        self.state.once("publish", lambda: self.learner.publish(model))
        self.after_round()
        return model


class RandomRounds(Rounds):
    """Semi-Inf-Net, Algorithm 1 and the two-step training of §III-D (Fan et al., TMI 2020)."""

    def run(self) -> str:
        model = "base"
        self.train(Training(model, 0))
        self.validate(0, model)
        self.end_round(0, [model])
        number = 1
        while self.remaining and self.rounds_left(number):
            model = self.one_round(number, model)
            number += 1
        return self.publish(self.two_steps(number) if self.options.two_step else model)

    def one_round(self, number: int, model: str) -> str:
        """Label K images with the newest model and fine-tune the same weights on the enlarged set."""
        chosen = self.select(number, model)
        self.label(number, chosen, model)
        self.labelled_in.update(dict.fromkeys(chosen, number))
        self.tell(f"round {number}: {len(self.labelled_in)} pseudo-labelled, {len(self.remaining)} left")
        name, o = f"round_{number:03d}", self.options
        training = Training(name, number, start=model, pseudo=dict(self.labelled_in), epochs=o.round_epochs)
        self.train(replace(training, iterations=o.round_iterations, learning_rate=o.learning_rate))
        self.validate(number, name)
        self.end_round(number, ["base", name])
        return name

    def two_steps(self, number: int) -> str:
        """A new model on all pseudo labels, then fine-tuned on the labelled images."""
        self.train(Training("pre_trained", number, labelled=False, pseudo=dict(self.labelled_in)))
        self.validate(number, "pre_trained")
        self.train(Training("fine_tuned", number, start="pre_trained"))
        self.validate(number, "fine_tuned")
        return "fine_tuned"


class IterativeRounds(Rounds):
    """SSA-Net's few-shot iteration (Wang et al., Medical Image Analysis 2022, §3.2.2)."""

    def run(self) -> str:
        models, dice = ["base"], list[float]()
        weights = self.weights(0)
        if weights is None and self.options.reweight == "auto":
            self.tell("no re-weighting: the trainer's loss has no cross entropy that could weight every class")
        self.train(Training("base", 0, class_weights=weights))
        dice.append(self.validate(0, "base"))
        self.end_round(0, models)
        number = 1
        while self.rounds_left(number):
            wait = self.options.until_pool_empty and self.remaining
            if not wait and no_longer_improves(dice, self.options.patience):
                break
            models.append(self.one_round(number, models[-1]))
            dice.append(self.validate(number, models[-1]))
            self.end_round(number, ["base", models[-1], models[best_round(dice)]])
            number += 1
        best = best_round(dice)
        self.tell(f"best validation Dice in round {best}")
        return self.publish(models[best])

    def one_round(self, number: int, model: str) -> str:
        """Add t images, renew all pseudo labels with the newest model, and train a new model."""
        chosen = self.select(number, model) if self.remaining else []
        cases = sorted([*self.labelled_in, *chosen])
        self.label(number, cases, model)
        self.labelled_in = dict.fromkeys(cases, number)
        self.state.once(f"{number}/renewed", lambda: self.learner.forget_labels_of(number - 1))
        self.tell(f"round {number}: {len(cases)} pseudo-labelled, {len(self.remaining)} left")
        name = f"round_{number:03d}"
        start = model if self.options.warm_start else None
        self.train(Training(name, number, start=start, pseudo=self.labelled_in, class_weights=self.weights(number)))
        return name

    def weights(self, number: int) -> list[float] | None:
        """Eq. (8) over the labelled and the current pseudo set."""
        if self.options.reweight == "off":
            return None
        counts = Counter(self.state.once("0/counts", self.learner.labelled_counts))
        if number:
            counts.update(self.state.units[f"{number}/label"]["result"]["counts"])
        return self.state.once(f"{number}/weights", lambda: self.learner.class_weights(counts))


KINDS: dict[str, type[Rounds]] = {"random": RandomRounds, "iterative": IterativeRounds}
