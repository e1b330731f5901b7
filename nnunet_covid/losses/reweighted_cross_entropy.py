"""Cross entropy that is re-weighted by the share of every class in the training set.

Source: SSA-Net (Wang et al., Medical Image Analysis 2022), §3.2.2, eq. (8).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


def class_weights(counts: Sequence[float]) -> torch.Tensor:
    r"""Weights :math:`1 / (C \cdot P_c)` from voxel counts, eq. (8).

    Background is one of the C classes, so that a voxel of it weighs little but never nothing, and the weight of an
    average voxel of the training set is 1.

    Args:
        counts: Voxels of every class in the training set, background first; ignored voxels are not counted.

    Returns:
        (C,), float32.

    Raises:
        ValueError: If a class has no voxel: its weight would be infinite.
    """
    missing = [str(c) for c, count in enumerate(counts) if count <= 0]
    if not counts or missing:
        msg = f"no voxel of class {', '.join(missing)} in the training set" if counts else "no classes"
        raise ValueError(msg)
    shares = torch.tensor(list(counts), dtype=torch.float64) / sum(counts)
    return (1 / (len(counts) * shares)).float()


def reweighted_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, ignore_label: int | None = None
) -> torch.Tensor:
    r"""Scalar :math:`-\frac{1}{n} \sum_i \sum_c \frac{1}{C P_c} y_{ic} \log p_{ic}` over the n voxels that count.

    Torch's own weighted mean divides by the sum of the weights; eq. (8) divides by the number of voxels.

    Args:
        logits: (B, C, *spatial).
        labels: (B, *spatial) or (B, 1, *spatial).
        weights: (C,), of :func:`class_weights`.
        ignore_label: Voxels with this label take no part; without one that counts the loss is zero.
    """
    if labels.ndim == logits.ndim:
        labels = labels[:, 0]
    skipped = -100 if ignore_label is None else ignore_label
    weights = weights.to(logits.device, torch.promote_types(logits.dtype, torch.float32))
    loss = functional.cross_entropy(
        logits.to(weights.dtype), labels.long(), weights, ignore_index=skipped, reduction="sum"
    )
    return loss / (labels != skipped).sum().clamp_min(1)


class ReweightedCrossEntropy(nn.Module):
    """:func:`reweighted_cross_entropy` with weights that are set when the training set is known, and may change.

    Args:
        ignore_label: Label of voxels that take no part.
    """

    def __init__(self, ignore_label: int | None = None) -> None:
        super().__init__()
        self.ignore_label = ignore_label
        self.weights: torch.Tensor | None = None

    def set_counts(self, counts: Sequence[int]) -> None:
        """Take the weights from new voxel counts, as in :func:`class_weights`."""
        self.weights = class_weights(counts)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if self.weights is None:
            raise RuntimeError("the class shares of the training set are not known yet: call set_counts first")
        return reweighted_cross_entropy(logits, labels, self.weights, self.ignore_label)
