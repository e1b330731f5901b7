r"""Grad-CAM (Selvaraju et al., ICCV 2017) for segmentation networks, in two or three spatial dimensions.

The class score :math:`y^c` of a classifier becomes the sum of the class's logits over a set of voxels (Vinogradova et
al., "Towards interpretable semantic segmentation via gradient-weighted class activation mapping", AAAI 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional


def class_score(logits: torch.Tensor, head: int, weight: torch.Tensor) -> torch.Tensor:
    r"""Scalar :math:`y^c = \sum_v w_v s_{c,v}` of logits (1, heads, *spatial) and voxel weights (*spatial)."""
    return (logits[0, head] * weight).sum()


def channel_weights(score: torch.Tensor, stages: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    r"""Eq. (1) of Grad-CAM, :math:`\alpha_k = \frac{1}{Z} \sum_v \partial y / \partial A_{k,v}`, for several stages.

    Args:
        score: Scalar that depends on the features.
        stages: Features (1, C, *spatial) in the score's graph.

    Returns:
        For every stage (C,); zeros where the score does not depend on it. The graph is kept for further scores.
    """
    gradients = torch.autograd.grad(score, list(stages), retain_graph=True, allow_unused=True)
    return [
        features.new_zeros(features.shape[1]) if gradient is None else gradient[0].flatten(1).mean(dim=1)
        for features, gradient in zip(stages, gradients, strict=True)
    ]


def class_activation_map(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    r"""Eq. (2), :math:`\mathrm{ReLU}(\sum_k \alpha_k A_k)`: (1, C, *spatial) and (C,) to (1, 1, *spatial)."""
    combined = torch.einsum("bc...,c->b...", features, weights)
    return functional.relu(combined)[:, None]
