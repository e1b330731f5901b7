"""Inf-Net's losses, in two or three spatial dimensions: pure functions of tensors, and the whole over all maps.

Throughout, ``reference`` holds one channel per foreground class with values 0 and 1, ``valid`` is 1 where a voxel
counts and 0 where it is ignored, and both have the spatial size of the logits. An ignored voxel changes neither the
loss nor the gradient: its reference is read as background wherever a neighbourhood looks at it, like the zero padding
around the image, and it is left out of every sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

PixelWeight = Literal["paper", "label_free"]
PIXEL_WEIGHTS = ("paper", "label_free")
MapWeights = Literal["sum", "mean", "halving"]
MAP_WEIGHTS = ("sum", "mean", "halving")
SplitTarget = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | None]]

NEIGHBOURHOOD = 31
"""Side of the square of the pixel weight (Inf-Net's released loss; the same as in F3Net)."""
WEIGHT_GAIN = 5.0
"""Factor of the pixel weight (ibid.)."""

LABEL_FREE_GAIN = 10.0
"""Factor of the label-free pixel weight: 1 + 10 m (1 - m) reaches 3.5, as 1 + 5 |m - g| does on a straight border."""

_MAX_POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


def neighbourhood_mean(x: torch.Tensor) -> torch.Tensor:
    """Mean over a square in the last two axes, zeros beyond the border, (B, C, *spatial) to the same.

    In 3D the window stays in the plane of the last two axes: it then covers what it covers in the paper's slices.
    The square is separable, so two passes with one-axis windows are exact and fifteen times cheaper.
    """
    planes = x.reshape(-1, 1, *x.shape[-2:])
    pad = NEIGHBOURHOOD // 2
    rows = functional.avg_pool2d(planes, (NEIGHBOURHOOD, 1), stride=1, padding=(pad, 0))
    return functional.avg_pool2d(rows, (1, NEIGHBOURHOOD), stride=1, padding=(0, pad)).reshape(x.shape)


def pixel_weight(
    reference: torch.Tensor, valid: torch.Tensor | None = None, kind: PixelWeight = "paper"
) -> torch.Tensor:
    r"""Weight of each voxel, heavier near the border of a lesion, from the mean :math:`m` of its neighbourhood.

    ``"paper"`` is :math:`1 + 5 \cdot |m - g|`, which depends on the voxel's own label g: a voxel of a small lesion
    weighs up to 6 times one beside it, which draws the lesion too large. ``"label_free"`` is
    :math:`1 + 10 \cdot m (1 - m)`.

    Args:
        reference: (B, classes, *spatial).
        valid: (B, 1, *spatial); the weight is 0 where it is 0.
    """
    if valid is not None:
        reference = reference * valid
    mean = neighbourhood_mean(reference)
    if kind == "label_free":
        weight = 1 + LABEL_FREE_GAIN * mean * (1 - mean)
    else:
        weight = 1 + WEIGHT_GAIN * (mean - reference).abs()
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
    counted: torch.Tensor | None = None,
    iou_weight: float = 1.0,
) -> torch.Tensor:
    r"""Scalar :math:`L_{seg} = L_{IoU}^w + \lambda L_{BCE}^w`, eq. (4) of Inf-Net, mean over images and classes.

    Args:
        counted: Weight of the cross entropy where it is not that of the IoU: ones, or ``valid``, for the plain cross
            entropy that the released code comes to.
        iou_weight: Of the first term.
    """
    iou = weighted_iou_loss(logits, reference, weight)
    return (
        iou_weight * iou + bce_weight * weighted_bce(logits, reference, weight if counted is None else counted)
    ).mean()


def against_the_rest(logits: torch.Tensor) -> torch.Tensor:
    r"""Logits of each class against background and all other classes, :math:`s_k - \log(1 + \sum_{j \ne k} e^{s_j})`.

    Their sigmoid is the softmax over (0, s_1, ..., s_K), by which nnU-Net reads the network: what is trained is then
    what is exported, also with several classes. One class is left as it is. (B, classes, *spatial) to the same.
    """
    if logits.shape[1] == 1:
        return logits
    background = torch.zeros_like(logits[:, :1])
    rest = [
        torch.cat((background, logits[:, :k], logits[:, k + 1 :]), dim=1).logsumexp(dim=1, keepdim=True)
        for k in range(logits.shape[1])
    ]
    return logits - torch.cat(rest, dim=1)


def edge_map(reference: torch.Tensor, axes: Sequence[bool] | None = None) -> torch.Tensor:
    """Morphological gradient with the smallest cross: dilation minus erosion over the direct neighbours.

    A voxel is edge where it differs from one of its direct neighbours along the chosen axes; the image border is no
    edge. On COVID-SemiSeg this gives the data set's own ``Edge`` pictures (Dice 0.998 and more).

    Args:
        reference: (B, classes, *spatial), values 0 and 1.
        axes: Which spatial axes have neighbours; ``None`` for all. Across thick slices nearly all of a lesion would be
            edge.
    """
    return _cross_maximum(reference, axes) + _cross_maximum(-reference, axes)


def edge_valid(valid: torch.Tensor, axes: Sequence[bool] | None = None) -> torch.Tensor:
    """Where the edge map is known: neither the voxel nor a direct neighbour is ignored; (B, 1, *spatial)."""
    return -_cross_maximum(-valid, axes)


def edge_bce(
    edge_logits: torch.Tensor,
    reference: torch.Tensor,
    valid: torch.Tensor | None = None,
    axes: Sequence[bool] | None = None,
) -> torch.Tensor:
    """Scalar binary cross entropy against the edge map of the reference, mean over valid voxels.

    Source: Inf-Net (Fan et al., TMI 2020), eq. (1), as a mean instead of a sum (as in the released code).
    """
    if valid is None:
        return functional.binary_cross_entropy_with_logits(edge_logits, edge_map(reference, axes))
    known = edge_valid(valid, axes).expand_as(edge_logits)
    edges = edge_map(reference * valid, axes)
    bce = functional.binary_cross_entropy_with_logits(edge_logits, edges, reduction="none")
    return (known * bce).sum() / known.sum().clamp_min(1)


def _cross_maximum(x: torch.Tensor, axes: Sequence[bool] | None = None) -> torch.Tensor:
    """Maximum over a voxel and its direct neighbours along the chosen axes."""
    dims = x.ndim - 2
    result = x
    for axis in [a for a in range(dims) if axes is None or axes[a]]:
        kernel = [3 if a == axis else 1 for a in range(dims)]
        padding = [size // 2 for size in kernel]
        result = torch.maximum(result, _MAX_POOL[dims](x, kernel, stride=1, padding=padding))
    return result


def map_weights(kind: MapWeights, maps: int) -> list[float]:
    """Weights of the segmentation maps, the result first: ones (eq. (5)), their mean, or nnU-Net's halving ones."""
    weights = [0.5**i if kind == "halving" else 1.0 for i in range(maps)]
    return weights if kind == "sum" else [w / sum(weights) for w in weights]


class InfNetLoss(nn.Module):
    r"""Deep supervision of Inf-Net, eq. (5).

    .. math:: L = L_{seg}(S_g) + \sum_i L_{seg}(S_i) + L_{edge}

    Every map has the size of the reference. The sum runs over all segmentation maps that the network gives, so it
    is the paper's for the paper's output and has one term more for each further step of the cascade.

    Args:
        split_target: Turns nnU-Net's target into (reference, valid): (B, classes, *spatial) of 0 and 1, and
            (B, 1, *spatial) or ``None`` without an ignore label.
        background: Whether the first map carries a background channel, which takes no part in the loss; the classes
            then exclude each other, as for the softmax that reads them.
        edge: Whether the last map holds edge logits.
        bce_weight: λ of eq. (4).
        pixel_weight: As in :func:`pixel_weight`.
        plain_bce: Leave the pixel weight to the IoU.
        weights: Of the segmentation maps, as in :func:`map_weights`; the edge term weighs as they do on average.
        edge_axes: As in :func:`edge_map`.
        segmentation: A loss of logits with background (or of regions) and nnU-Net's target, in the place of
            :func:`structure_loss` for every map.

    Attributes:
        iou_weight: Of the IoU in eq. (4), 1.
    """

    iou_weight = 1.0

    def __init__(
        self,
        split_target: SplitTarget,
        *,
        background: bool,
        edge: bool,
        bce_weight: float = 1.0,
        pixel_weight: PixelWeight = "paper",
        plain_bce: bool = False,
        weights: MapWeights = "sum",
        edge_axes: Sequence[bool] | None = None,
        segmentation: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.split_target = split_target
        self.background = background
        self.edge = edge
        self.bce_weight = bce_weight
        self.pixel_weight: PixelWeight = pixel_weight
        self.plain_bce = plain_bce
        self.weights: MapWeights = weights
        self.edge_axes = edge_axes
        self.segmentation = segmentation

    def forward(
        self,
        outputs: torch.Tensor | Sequence[torch.Tensor],
        target: torch.Tensor | Sequence[torch.Tensor],
    ) -> torch.Tensor:
        """Scalar loss; of several targets (nnU-Net's deep supervision) the first has full resolution."""
        maps = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        target = target if isinstance(target, torch.Tensor) else target[0]
        reference, valid = self.split_target(target)
        if self.background:
            maps[0] = maps[0][:, 1:]
        maps = [m.float() for m in maps]

        edge_logits = maps.pop() if self.edge and len(maps) > 1 else None
        weights = map_weights(self.weights, len(maps))
        loss = torch.zeros((), device=reference.device)
        if edge_logits is not None:
            loss = sum(weights) / len(weights) * edge_bce(edge_logits, reference, valid, self.edge_axes)
        if self.segmentation is not None:
            for share, logits in zip(weights, maps, strict=True):
                heads = torch.cat((torch.zeros_like(logits[:, :1]), logits), dim=1) if self.background else logits
                loss = loss + share * self.segmentation(heads, target)
            return loss
        weight = pixel_weight(reference, valid, self.pixel_weight)
        counted = (
            (torch.ones_like(reference) if valid is None else valid.expand_as(reference)) if self.plain_bce else None
        )
        for share, logits in zip(weights, maps, strict=True):
            logits = against_the_rest(logits) if self.background else logits
            loss = loss + share * structure_loss(logits, reference, weight, self.bce_weight, counted, self.iou_weight)
        return loss
