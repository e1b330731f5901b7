"""What the rounds need from whoever trains and predicts. nnU-Net's side of it is ``nnunet_covid.nnunet.rounds``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Training:
    """One training phase.

    Attributes:
        name: What is trained, for file names and seeds.
        round_number: Of the round it belongs to.
        start: Name of the model whose weights it starts from; ``None`` starts a new model.
        labelled: Whether the labelled images take part.
        pseudo: Pseudo-labelled cases that take part, each with the round that labelled it.
        short: Whether it is a round's fine-tuning rather than a whole training of the trainer's own length.
        class_weights: Weight of each class in the cross entropy.
    """

    name: str
    round_number: int
    start: str | None = None
    labelled: bool = True
    pseudo: Mapping[str, int] = field(default_factory=dict)
    short: bool = False
    class_weights: Sequence[float] | None = None


class Bench(Protocol):
    """Trains, predicts and validates; every method may be repeated from its start after a crash."""

    def train(self, training: Training) -> dict[str, Any]:
        """Train and keep the model under the name of the training; returns its checksum and the seconds of steps."""

    def label(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, Any]:
        """Write pseudo labels; returns voxel counts, what was kept, and the seconds of forward passes."""

    def confidence(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, float]:
        """Mean confidence of each case, without writing a label."""

    def validate(self, model: str) -> dict[str, Any]:
        """Validation Dice of each class and their mean."""

    def labelled_counts(self) -> dict[str, int]:
        """Voxels of each class in the labelled training cases."""

    def class_weights(self, counts: Mapping[str, int]) -> list[float] | None:
        """Weights of eq. (8) for these counts; ``None`` where the trainer has nothing to weight."""

    def forget_models_but(self, keep: Collection[str]) -> None:
        """Delete other models."""

    def forget_labels_of(self, round_number: int) -> None:
        """Delete the pre-processed pseudo labels of a round that a later one has renewed."""

    def publish(self, model: str) -> dict[str, Any]:
        """Make the model the result, an ordinary model folder, and validate it as nnU-Net does."""
