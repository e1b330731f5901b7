r"""How far several predictions of one image disagree, and which of their differences makes how much of it.

Each voxel's disagreement is the mutual information between its class and the prediction that is asked,
:math:`H(\bar p) - \overline{H(p)}` in bits: zero where all predictions say the same, however unsure they are.
Source: Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning", 2011 (BALD).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

PARTS = ("folds", "teacher_student", "mirrorings")
"""What predictions differ in; by the chain rule of mutual information the parts add up to the whole."""
LN_2 = math.log(2)


def entropy(probabilities: torch.Tensor, *, exclusive: bool) -> torch.Tensor:
    """Shannon entropy in bits, (*spatial).

    Args:
        probabilities: (heads, *spatial).
        exclusive: Whether heads are classes of which each voxel has one; else regions, and the mean over them is taken.
    """
    if exclusive:
        return torch.special.entr(probabilities).sum(0) / LN_2
    return (torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)).mean(0) / LN_2


class Disagreement:
    """The predictions of one image, taken in network by network; only their sums are kept.

    Args:
        exclusive: As for :func:`entropy`.
        networks_of_a_fold: 2 where student and teacher of each fold predict, which come one after the other; else 1.
    """

    def __init__(self, *, exclusive: bool, networks_of_a_fold: int = 1) -> None:
        self._exclusive = exclusive
        self._networks_of_a_fold = networks_of_a_fold
        self._fold: list[torch.Tensor] = []
        self._folds = self._networks = 0
        self._sum: torch.Tensor | float = 0.0
        self._entropies: dict[str, torch.Tensor | float] = dict.fromkeys(("fold", "network", "mirroring"), 0.0)

    def add(self, mirrored: Iterable[torch.Tensor]) -> None:
        """What one network says of the image and of its mirrorings, turned back; probabilities (heads, *spatial)."""
        total: torch.Tensor | float = 0.0
        each: torch.Tensor | float = 0.0
        count = 0
        for one in mirrored:
            total, each, count = total + one, each + self._entropy(one), count + 1
        mean = torch.as_tensor(total / count)
        self._networks += 1
        self._entropies["mirroring"] = self._entropies["mirroring"] + each / count
        self._entropies["network"] = self._entropies["network"] + self._entropy(mean)
        self._fold.append(mean)
        if len(self._fold) == self._networks_of_a_fold:
            of_fold = self._fold[0] if len(self._fold) == 1 else torch.stack(self._fold).mean(0)
            self._folds += 1
            self._entropies["fold"] = self._entropies["fold"] + self._entropy(of_fold)
            self._sum = self._sum + of_fold
            self._fold.clear()

    @property
    def mean(self) -> torch.Tensor:
        """Probabilities (heads, *spatial), the mean of all predictions."""
        assert isinstance(self._sum, torch.Tensor)
        return self._sum / self._folds

    def parts(self) -> dict[str, torch.Tensor]:
        """Of each of :data:`PARTS`, bits (*spatial), none below zero."""
        levels = [
            self._entropy(self.mean),
            self._entropies["fold"] / self._folds,
            self._entropies["network"] / self._networks,
            self._entropies["mirroring"] / self._networks,
        ]
        pairs = zip(PARTS, levels[:-1], levels[1:], strict=True)
        return {part: torch.clamp(torch.as_tensor(above - below), min=0) for part, above, below in pairs}

    def _entropy(self, probabilities: torch.Tensor) -> torch.Tensor:
        return entropy(probabilities, exclusive=self._exclusive)
