r"""Eq. (2) of SSA-Net (Wang et al.), :math:`\Phi(A) = S(B(G(A)))`, for a whole image that was looked at in tiles.

Eq. (1), G, is :func:`nnunet_covid.losses.self_attention_distillation.attention_map`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

MODES = {2: "bilinear", 3: "trilinear"}


def resized(maps: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Linear interpolation of (B, C, *spatial) to another size: the operator B of eq. (2)."""
    return functional.interpolate(maps, size=size, mode=MODES[len(size)], align_corners=False)


def spatial_softmax(activation: NDArray[np.float32], inside: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """The operator S of eq. (2): softmax over all positions of an image.

    Args:
        activation: (*image axes).
        inside: Positions that count; the others, where the network never looked, get 0.

    Returns:
        Positive inside (down to the smallest float), sums to 1.
    """
    inside = np.ones(activation.shape, bool) if inside is None else inside
    values = activation[inside].astype(np.float64)
    weights = np.exp(values - values.max())
    result = np.zeros(activation.shape, np.float32)
    result[inside] = weights / weights.sum()
    return result
