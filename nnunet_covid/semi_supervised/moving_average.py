"""A teacher whose weights are the exponential moving average of its student's.

Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017.
"""

from __future__ import annotations

import torch
from torch import nn

AVERAGED_SHARE = 0.2
"""Of the steps so far, which the average reaches back over where the bounds of the decay allow it."""


def states(network: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers (statistics of batch norm among them), each once."""
    return [*network.parameters(), *network.buffers()]


def decay_at(step: int, first: float, last: float) -> float:
    """The decay α of a step, counted from 0: from ``first`` at the start to ``last``.

    An average with decay α reaches back over some 1 / (1 − α) steps: here a fifth of the steps so far, within the
    bounds, so that a short training does not end with a teacher that is mostly its beginning.
    """
    reach = min(max(AVERAGED_SHARE * step, 1 / (1 - first)), 1 / (1 - last))
    return 1 - 1 / reach


@torch.no_grad()
def move_towards(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    r"""One step of the average, :math:`\theta' \leftarrow \alpha \theta' + (1 - \alpha) \theta`, in place.

    Counters, which are whole numbers, are copied.
    """
    pairs = list(zip(states(teacher), states(student), strict=True))
    averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
    torch._foreach_lerp_([mine for mine, _ in averaged], [theirs for _, theirs in averaged], 1 - decay)
    for mine, theirs in pairs:
        if not mine.is_floating_point():
            mine.copy_(theirs)


@torch.no_grad()
def exchange(one: nn.Module, other: nn.Module) -> None:
    """Two networks of the same kind take each other's weights and buffers; whoever holds either goes on holding it."""
    for a, b in zip(states(one), states(other), strict=True):
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)
