"""Feature relation matrices, the two relation consistency losses and their ramp-up.

Source: Zhang et al., "Exploiting Shared Knowledge from Non-COVID Lesions for Annotation-Efficient COVID-19 CT Lung
Infection Segmentation" (relation-driven collaborative learning), §III-B and §IV-C.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any, Literal

import torch
from torch import distributed

Reduction = Literal["sum", "rows", "mean"]
REDUCTIONS = ("sum", "rows", "mean")

LARGEST_WEIGHT = 0.1
"""The weight at the end of the ramp-up (§IV-C)."""
STEEPNESS = 5.0
"""Factor in the exponent of the ramp-up (§IV-C)."""
DEAD = 1e-10
"""A channel whose row of G is this much weaker than the strongest one has no relations that could be normalised."""


class _SumOverProcesses(torch.autograd.Function):
    """Sum over all processes, forward and backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        total = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total


def _no_autocast(device: str) -> contextlib.AbstractContextManager[Any]:
    """Keeps float32 inside autocast, on devices that have one."""
    available = torch.amp.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else contextlib.nullcontext()


def mean_feature(features: torch.Tensor, *, over_processes: bool = False) -> torch.Tensor:
    """Mean over the batch, (B, C, *spatial) to (C, *spatial), float32.

    Args:
        features: Feature maps of any floating type.
        over_processes: The batch is spread over the processes of ``torch.distributed``, in shares of any size. The
            gradient is the one that DistributedDataParallel, which averages over processes, turns into that of the
            whole batch.
    """
    with _no_autocast(features.device.type):
        if not over_processes:
            return features.float().mean(0)
        count = torch.tensor(float(len(features)), device=features.device)
        distributed.all_reduce(count)
        total: torch.Tensor = _SumOverProcesses.apply(features.float().sum(0))
        return total / count


def relation_matrix(feature: torch.Tensor) -> torch.Tensor:
    r"""Channel-wise Gram matrix with rows of norm 1, eqs. (1) and (2).

    .. math:: G = A A^T, \qquad R_m = G_m / \lVert G_m \rVert_2

    Computed in float32, inside autocast too. A dead channel's row, which has no direction, is zero and so is its
    gradient.

    Args:
        feature: Mean feature (C, *spatial); A is its (C, N) form.

    Returns:
        (C, C), float32.
    """
    with _no_autocast(feature.device.type):
        a = feature.float().flatten(1)  # (C, N)
        gram = a @ a.T
        norm = torch.linalg.vector_norm(gram, dim=1, keepdim=True)
        alive = norm > DEAD * norm.detach().max()
        return torch.where(alive, gram / torch.where(alive, norm, 1.0), 0.0)


def relation_distance(a: torch.Tensor, b: torch.Tensor, reduction: Reduction = "sum") -> torch.Tensor:
    r"""Scalar :math:`\lVert R - R' \rVert^2` of two relation matrices (C, C).

    Args:
        reduction: ``"sum"`` over all entries is the squared Frobenius norm that eqs. (4) and (5) write. ``"rows"``
            divides it by C, so that it is at most 4 for any number of channels, ``"mean"`` by C².
    """
    divisor = {"sum": 1, "rows": len(a), "mean": a.numel()}[reduction]
    return (a - b).square().sum() / divisor


def general_relation_loss(
    general_other: torch.Tensor, general_covid: torch.Tensor, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Eq. (4) without its weight: :math:`\lVert R_G(X^n) - R_G(X^c) \rVert^2`, with a gradient to both."""
    return relation_distance(general_other, general_covid, reduction)


def target_relation_loss(
    general_covid: torch.Tensor, target_covid: torch.Tensor, reduction: Reduction = "sum"
) -> torch.Tensor:
    r"""Eq. (5) without its weight: :math:`-\lVert R_G(X^c) - R_T(X^c) \rVert^2`.

    The general encoder learns nothing from it (Algorithm 1, line 9), so its matrix counts as a constant.
    """
    return -relation_distance(general_covid.detach(), target_covid, reduction)


def ramp_up(step: int, steps: int, *, squared: bool = False, largest: float = LARGEST_WEIGHT) -> float:
    r"""Weight of the relation losses, :math:`\lambda(t) = 0.1 \cdot e^{-5 (1 - t / T)}`.

    Args:
        step: Steps taken so far, t.
        steps: Steps of the whole training, T; beyond them the weight stays.
        squared: Square the bracket, as Laine & Aila ("Temporal ensembling", 2016) do, whom the paper cites for a
            ramp-up that it writes without the square.
        largest: The weight at the end.
    """
    rest = 1 - min(step / steps, 1.0)
    return largest * math.exp(-STEEPNESS * (rest**2 if squared else rest))
