"""Inf-Net's losses as pure functions of tensors, in two or three spatial dimensions.

Throughout, ``reference`` holds one channel per foreground class with values 0 and 1, ``valid`` is 1 where a voxel
counts and 0 where it is ignored, and both have the spatial size of the logits. An ignored voxel changes neither the
loss nor the gradient: its reference is read as background wherever a neighbourhood looks at it, like the zero padding
around the image, and it is left out of every sum.
"""

from __future__ import annotations

import torch
from torch.nn import functional

NEIGHBOURHOOD = 31
"""Side of the square of the pixel weight (Inf-Net's released loss; the same as in F3Net)."""
WEIGHT_GAIN = 5.0
"""Factor of the pixel weight (ibid.)."""

_MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


def neighbourhood_mean(x: torch.Tensor, size: int = NEIGHBOURHOOD) -> torch.Tensor:
    """Mean over a square of ``size`` in the last two axes, zeros beyond the border, (B, C, *spatial) to the same.

    In 3D the window stays in the plane of the last two axes: it then covers what it covers in the paper's slices.
    The square is separable, so two passes with one-axis windows are exact and fifteen times cheaper.
    """
    planes = x.reshape(-1, 1, *x.shape[-2:])
    pad = size // 2
    rows = functional.avg_pool2d(planes, (size, 1), stride=1, padding=(pad, 0))
    return functional.avg_pool2d(rows, (1, size), stride=1, padding=(0, pad)).reshape(x.shape)


def pixel_weight(reference: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    r"""Weight :math:`1 + 5 \cdot |\mathrm{avgpool}_{31 \times 31}(G) - G|`: heavier where the neighbourhood differs.

    Args:
        reference: (B, classes, *spatial).
        valid: (B, 1, *spatial); the weight is 0 where it is 0.
    """
    if valid is not None:
        reference = reference * valid
    weight = 1 + WEIGHT_GAIN * (neighbourhood_mean(reference) - reference).abs()
    return weight if valid is None else weight * valid


def weighted_bce(logits: torch.Tensor, reference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    r"""Weighted binary cross entropy :math:`\sum w \cdot \mathrm{bce} / \sum w` per image and class.

    Source: Inf-Net (Fan et al., TMI 2020), eq. (4), "weighted BCE" of its references [67], [68]. The released code
    averages the cross entropy before weighting it, which cancels the weights; this follows the formula.

    Returns:
        (B, classes); 0 for an image without a single valid voxel.
    """
    bce = functional.binary_cross_entropy_with_logits(logits, reference, reduction="none")
    axes = tuple(range(2, logits.ndim))
    return (weight * bce).sum(axes) / weight.sum(axes).clamp_min(torch.finfo(weight.dtype).tiny)


def weighted_iou_loss(logits: torch.Tensor, reference: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    r"""Weighted soft IoU loss per image and class.

    .. math:: 1 - \frac{\sum w p g + 1}{\sum w (p + g) - \sum w p g + 1}

    Source: as :func:`weighted_bce`.

    Returns:
        (B, classes).
    """
    probability = torch.sigmoid(logits)
    axes = tuple(range(2, logits.ndim))
    intersection = (weight * probability * reference).sum(axes)
    total = (weight * (probability + reference)).sum(axes)
    return 1 - (intersection + 1) / (total - intersection + 1)


def structure_loss(
    logits: torch.Tensor,
    reference: torch.Tensor,
    weight: torch.Tensor,
    bce_weight: float = 1.0,
) -> torch.Tensor:
    r"""Scalar :math:`L_{seg} = L_{IoU}^w + \lambda L_{BCE}^w`, eq. (4) of Inf-Net, mean over images and classes."""
    iou = weighted_iou_loss(logits, reference, weight)
    return (iou + bce_weight * weighted_bce(logits, reference, weight)).mean()


def edge_map(reference: torch.Tensor) -> torch.Tensor:
    """Morphological gradient with the smallest cross: dilation minus erosion over the direct neighbours.

    A voxel is edge where it differs from one of its direct neighbours along any spatial axis; the image border is no
    edge. On COVID-SemiSeg this gives the data set's own ``Edge`` pictures (Dice 0.998 and more).

    Args:
        reference: (B, classes, *spatial), values 0 and 1.
    """
    return _cross_maximum(reference) + _cross_maximum(-reference)


def edge_valid(valid: torch.Tensor) -> torch.Tensor:
    """Where the edge map is known: neither the voxel nor a direct neighbour is ignored; (B, 1, *spatial)."""
    return -_cross_maximum(-valid)


def edge_bce(edge_logits: torch.Tensor, reference: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """Scalar binary cross entropy against the edge map of the reference, mean over valid voxels.

    Source: Inf-Net (Fan et al., TMI 2020), eq. (1), as a mean instead of a sum (as in the released code).
    """
    if valid is None:
        return functional.binary_cross_entropy_with_logits(edge_logits, edge_map(reference))
    known = edge_valid(valid).expand_as(edge_logits)
    bce = functional.binary_cross_entropy_with_logits(edge_logits, edge_map(reference * valid), reduction="none")
    return (known * bce).sum() / known.sum().clamp_min(1)


def _cross_maximum(x: torch.Tensor) -> torch.Tensor:
    """Maximum over a voxel and its direct neighbours."""
    dims = x.ndim - 2
    result = x
    for axis in range(dims):
        kernel = [3 if a == axis else 1 for a in range(dims)]
        padding = [size // 2 for size in kernel]
        result = torch.maximum(result, _MAX_POOL[dims](x, kernel, stride=1, padding=padding))
    return result
