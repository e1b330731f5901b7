r"""Attention maps and class activation maps as pure functions of tensors and arrays, in two or three dimensions.

Attention: eq. (2) of SSA-Net (Wang et al.), :math:`\Phi(A) = S(B(G(A)))`, for a whole image that was looked at in
tiles; eq. (1), G, is :func:`nnunet_covid.losses.ssa_net.attention_map`.

Class activation: Grad-CAM (Selvaraju et al., ICCV 2017) for segmentation networks. The class score :math:`y^c` of a
classifier becomes the sum of the class's logits over a set of voxels (Vinogradova et al., "Towards interpretable
semantic segmentation via gradient-weighted class activation mapping", AAAI 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional


def resized(maps: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Linear interpolation of (B, C, *spatial) to another size: the operator B of eq. (2)."""
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return functional.interpolate(maps, size=size, mode=mode, align_corners=False)


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


def class_score(logits: torch.Tensor, head: int, weight: torch.Tensor) -> torch.Tensor:
    r"""Scalar :math:`y^c = \sum_v w_v s_{c,v}` of logits (1, heads, *spatial) and voxel weights (*spatial)."""
    return (logits[0, head] * weight).sum()


def feature_gradients(score: torch.Tensor, stages: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    r""":math:`\partial y / \partial A` for the features of several stages; the graph is kept for further scores.

    Args:
        score: Scalar that depends on the features.
        stages: Features (1, C, *spatial) in the score's graph.

    Returns:
        For every stage a tensor of its shape; zeros where the score does not depend on it.
    """
    gradients = torch.autograd.grad(score, list(stages), retain_graph=True, allow_unused=True)
    return [
        torch.zeros_like(features) if gradient is None else gradient
        for features, gradient in zip(stages, gradients, strict=True)
    ]


def channel_weights(gradient: torch.Tensor) -> torch.Tensor:
    r"""Eq. (1), :math:`\alpha_k = \frac{1}{Z} \sum_v \partial y / \partial A_{k,v}`: (1, C, *spatial) to (C,).

    Where instance normalisation follows the features, adding a constant to a channel changes nothing but the border:
    the sum then cancels, and α says next to nothing. See :func:`attribution`.
    """
    return gradient[0].flatten(1).mean(dim=1)


def class_activation_map(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    r"""Eq. (2), :math:`\mathrm{ReLU}(\sum_k \alpha_k A_k)`: (1, C, *spatial) and (C,) to (1, 1, *spatial)."""
    combined = torch.einsum("bc...,c->b...", features, weights)
    return functional.relu(combined)[:, None]


def attribution(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    r"""HiResCAM before its ReLU, :math:`\sum_k (\partial y / \partial A_k) \odot A_k`.

    Features and gradient (1, C, *spatial) to (1, 1, *spatial). No mean over positions, so nothing cancels. Source:
    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv 2011.08891.
    """
    return (gradient * features).sum(dim=1, keepdim=True)


def share_left(gradient: torch.Tensor) -> float:
    r"""What the mean over positions leaves of a gradient, :math:`\sum_k |\sum_v g| / \sum_k \sum_v |g|`, 0 to 1."""
    total = gradient.abs().sum()
    return float(gradient[0].flatten(1).sum(dim=1).abs().sum() / total) if total > 0 else 0.0
