"""The loss of SSA-Net: segmentation, and self-attention distillation.

By the distillation an earlier stage of an encoder learns where the next one looks.

Source: SSA-Net (Wang et al., Medical Image Analysis 2022), eqs. (1)–(4) and (7), after Hou et al. (ICCV 2019).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

PAPER_EXPONENT = 2
"""z of eq. (1) (SSA-Net, §3.1.1)."""

SMALLEST_DEVIATION = 1e-6
"""Added to the standard deviation of an attention map: a constant one is uniform."""

_LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def check_exponent(exponent: float) -> None:
    """Eq. (1) is written for natural z; anything from 1 on makes sense.

    Raises:
        ValueError: If z is less than 1 or no finite number.
    """
    if not 1 <= exponent < math.inf:
        msg = f"the exponent z of the attention maps must be at least 1 and finite, not {exponent}"
        raise ValueError(msg)


def attention_map(features: torch.Tensor, exponent: float = PAPER_EXPONENT) -> torch.Tensor:
    r"""Eq. (1), :math:`G(A) = \sum_c |A_c|^z`, (B, C, *spatial) to (B, *spatial), at least in float32.

    Raises:
        ValueError: If z is less than 1.
    """
    check_exponent(exponent)
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    powers = features.square() if exponent == 2 else features.abs().pow(exponent)
    return powers.sum(dim=1)


def attention_distribution(
    attention: torch.Tensor, size: Sequence[int] | None = None, *, standardise: bool = False
) -> torch.Tensor:
    r"""Eq. (2), :math:`\Phi = S(B(G))`: linear interpolation, then a softmax over all positions.

    Args:
        attention: Map of :func:`attention_map`, (B, *spatial).
        size: Spatial size of the result; ``None`` keeps that of the map.
        standardise: Bring each map to mean 0 and standard deviation 1 first. Sums of squares differ by so much that the
            softmax otherwise sits on one position and passes no gradient.

    Returns:
        (B, *size); every sample sums to 1.
    """
    if size is not None and tuple(size) != tuple(attention.shape[1:]):
        mode = _LINEAR[attention.ndim - 1]
        attention = functional.interpolate(attention[:, None], size=tuple(size), mode=mode, align_corners=False)[:, 0]
    flat = attention.flatten(1)
    if standardise:
        flat = (flat - flat.mean(dim=1, keepdim=True)) / (flat.std(dim=1, keepdim=True) + SMALLEST_DEVIATION)
    return flat.softmax(dim=1).view(attention.shape)


def distillation_loss(
    features: Sequence[torch.Tensor],
    exponent: float = PAPER_EXPONENT,
    *,
    detach: bool = True,
    standardise: bool = False,
) -> torch.Tensor:
    r"""Eqs. (3) and (4): mean squared difference of neighbouring distributions, summed over the pairs of stages.

    .. math:: \frac{1}{N} \sum_n \sum_{m=1}^{M-1} \mathrm{mse}(\Phi(A_{n,m}), \Phi(A_{n,m+1}))

    The mean runs over the positions of the earlier stage, to whose size the later map is interpolated.

    Args:
        features: At least two encoder stages, shallow to deep, each (B, C_m, *spatial_m).
        exponent: z of eq. (1).
        detach: Whether the later stage of a pair is a fixed target, so that only the earlier one learns.
        standardise: As in :func:`attention_distribution`; the loss is then multiplied by the positions of the earlier
            stage, so that it does not vanish with their number.

    Raises:
        ValueError: If there are fewer than two stages, or z is less than 1.
    """
    if len(features) < 2:
        msg = f"self-attention distillation needs at least two encoder stages, not {len(features)}"
        raise ValueError(msg)
    attention = [attention_map(f, exponent) for f in features]
    terms = []
    for earlier, later in itertools.pairwise(attention):
        given = later.detach() if detach else later
        target = attention_distribution(given, earlier.shape[1:], standardise=standardise)
        difference = attention_distribution(earlier, standardise=standardise) - target
        terms.append(difference.square().sum() / len(difference) if standardise else difference.square().mean())
    return torch.stack(terms).sum()


class SelfAttentionDistillation(nn.Module):
    """:func:`distillation_loss` from a certain epoch on.

    Args:
        exponent: z of eq. (1).
        detach: Whether the later stage of a pair is a fixed target.
        start_epoch: First epoch with this loss (Table 3 of the paper); before it the loss is zero.
        standardise: As in :func:`attention_distribution`.

    Attributes:
        epoch: The current epoch; whoever trains sets it.
    """

    def __init__(
        self, exponent: float = PAPER_EXPONENT, *, detach: bool = True, start_epoch: int = 0, standardise: bool = False
    ) -> None:
        super().__init__()
        check_exponent(exponent)
        self.exponent = exponent
        self.detach = detach
        self.start_epoch = start_epoch
        self.standardise = standardise
        self.epoch = 0

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scalar loss of stages as in :func:`distillation_loss`."""
        if self.epoch < self.start_epoch:
            return torch.zeros((), device=features[0].device)
        return distillation_loss(features, self.exponent, detach=self.detach, standardise=self.standardise)


PAPER_WEIGHT = 0.1
"""α of eq. (7) (SSA-Net, §3.1.4)."""


class SSANetLoss(nn.Module):
    r"""Segmentation and distillation, :math:`L = L_{seg} + \alpha L_{SA}`, eq. (7) of SSA-Net.

    Args:
        segmentation: Called with the list of maps and the list of targets.
        distillation: ``None`` leaves it out.
        weight: α.
    """

    def __init__(
        self,
        segmentation: nn.Module,
        distillation: SelfAttentionDistillation | None,
        weight: float = PAPER_WEIGHT,
    ) -> None:
        super().__init__()
        self.segmentation = segmentation
        self.distillation = distillation
        self.weight = weight

    def forward(self, outputs: Sequence[torch.Tensor], target: Sequence[torch.Tensor]) -> torch.Tensor:
        """Scalar loss.

        Args:
            outputs: As many segmentation maps as targets, and after them, with distillation, the encoder's stages.
            target: One target for every segmentation map.
        """
        maps, stages = list(outputs[: len(target)]), list(outputs[len(target) :])
        loss = self.segmentation(maps, list(target))
        return loss if self.distillation is None else loss + self.weight * self.distillation(stages)
