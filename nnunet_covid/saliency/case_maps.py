"""Attention maps and Grad-CAM of one image: recorded in the encoder tile by tile, joined, and put back on the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nnunet_covid.losses.ssa_net import attention_map
from nnunet_covid.nnunet.encoder import recorded_features
from nnunet_covid.nnunet.export import to_image_grid
from nnunet_covid.nnunet.predictor import ForegroundClass, PreparedCase, TrainedModel
from nnunet_covid.nnunet.sliding_window import Tiles
from nnunet_covid.saliency.maps import (
    attribution,
    channel_weights,
    class_activation_map,
    class_score,
    feature_gradients,
    resized,
    share_left,
    spatial_softmax,
)

Evidence = Literal["predicted", "image"]
EVIDENCE = ("predicted", "image")


@dataclass(frozen=True)
class Request:
    """What to compute.

    Args:
        classes: For each of them the class activation maps.
        stages: Whose features they weigh, indices into the encoder's features.
        exponent: z of the attention maps.
        evidence: The score is the sum of the class's logits over the voxels ``predicted`` as the class, or over the
            whole ``image``.
    """

    classes: tuple[ForegroundClass, ...]
    stages: tuple[int, ...]
    exponent: float = 2.0
    evidence: Evidence = "predicted"


@dataclass(frozen=True)
class CaseMaps:
    """Maps of one image on its own grid, averaged over folds.

    Class activation maps are divided by their maximum, 0 to 1; all zero where nothing speaks for the class.

    Attributes:
        attention: (stages, *image axes): Φ of each stage; each sums to 1.
        activation: The same before the softmax, G; the logarithm of Φ but for a constant.
        grad_cam: (classes, stages asked for, *image axes).
        hires_cam: The same shape: the gradient multiplied with the features position by position.
        predicted: (classes, *image axes), where each class is predicted.
        share_left: (classes, stages asked for): what is left of the gradient after Grad-CAM's mean over positions.
    """

    attention: NDArray[np.float32]
    activation: NDArray[np.float32]
    grad_cam: NDArray[np.float32]
    hires_cam: NDArray[np.float32]
    predicted: NDArray[np.bool_]
    share_left: NDArray[np.float32]


def compute_case_maps(model: TrainedModel, case: PreparedCase, encoder: nn.Module, request: Request) -> CaseMaps:
    """All maps of a case; the networks of several folds are asked one by one and their maps averaged."""
    predictor = model.predictor

    def on_image(maps: torch.Tensor) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return to_image_grid(maps.numpy(), case.properties, predictor.plans_manager, predictor.configuration_manager)

    logits = model.predict_logits(case)
    regions = predictor.label_manager.has_regions
    on = logits > 0 if regions else torch.stack([logits.argmax(dim=0) == head for head in range(len(logits))])
    predicted = [on[one.head] for one in request.classes]
    tiles = Tiles(predictor, case.data)
    per_fold = []
    for index in range(len(model.folds)):
        model.use_fold(index)
        alphas, attributions, shares = _evidence(model, encoder, tiles, predicted, request)
        stitched = _stitched_maps(model, encoder, tiles, alphas, request)
        maps, inside = on_image(tiles.unpad(torch.cat([stitched, attributions])))
        activation, grad_cam, hires_cam = np.split(maps, [len(maps) - 2 * len(alphas), len(maps) - len(alphas)])
        per_fold.append(
            (
                np.stack([spatial_softmax(each, inside) for each in activation]),
                activation,
                np.stack([_scaled(each) for each in grad_cam]),
                np.stack([_scaled(np.maximum(each, 0)) for each in hires_cam]),
                np.array(shares, np.float32),
            )
        )
    attention, activation, grad_cam, hires_cam, left = (np.mean(each, axis=0) for each in zip(*per_fold, strict=True))
    shape = (len(request.classes), len(request.stages))
    return CaseMaps(
        attention=attention,
        activation=activation,
        grad_cam=grad_cam.reshape(*shape, *grad_cam.shape[1:]),
        hires_cam=hires_cam.reshape(*shape, *grad_cam.shape[1:]),
        predicted=on_image(torch.stack([mask.float() for mask in predicted]))[0] > 0.5,
        share_left=left.reshape(shape),
    )


def _evidence(
    model: TrainedModel, encoder: nn.Module, tiles: Tiles, predicted: Sequence[torch.Tensor], request: Request
) -> tuple[list[torch.Tensor], torch.Tensor, list[float]]:
    """What the gradients of every class's score at every stage asked for say, tile by tile.

    The score is linear in the stitched logits, and these are a weighted sum of the tiles' logits: its gradient at the
    features of a tile is that of the same sum over the tile, each voxel with the tile's share in it. So channel
    weights and attributions add up over the tiles to those of the whole image.

    Returns:
        Grad-CAM's channel weights; HiResCAM on the padded grid, before its ReLU; what :func:`share_left` gives. Each
        for every class and stage, flat in this order.
    """
    masks = [mask if request.evidence == "predicted" else torch.ones_like(mask) for mask in predicted]
    padded = [tiles.pad(mask.float()) for mask in masks]
    count = len(masks) * len(request.stages)
    alphas, shares = [torch.zeros(())] * count, [0.0] * count
    canvas, asked = tiles.canvas(count), 0
    with recorded_features(encoder) as features:
        for position in tiles.positions:
            inside = [mask[position[1:]] * tiles.share(position) for mask in padded]
            if not any(weight.any() for weight in inside):
                continue
            asked += 1
            # through the image, so that every layer takes part in the graph; without the calibration, which hooks into
            # the call and would make every score one of a class against background
            logits = model.network.forward(tiles.cut(position).to(model.device).requires_grad_())
            stages = [features[stage] for stage in request.stages] * len(masks)
            gradients: list[torch.Tensor] = []
            for one, weight in zip(request.classes, inside, strict=True):
                score = class_score(logits, one.head, weight.to(model.device))
                gradients += feature_gradients(score, stages[: len(request.stages)])
            alphas = [alpha + channel_weights(g).cpu() for alpha, g in zip(alphas, gradients, strict=True)]
            shares = [share + share_left(g) for share, g in zip(shares, gradients, strict=True)]
            with torch.no_grad():
                maps = [attribution(f, g) for f, g in zip(stages, gradients, strict=True)]
                canvas[position] += torch.cat([resized(each, model.patch_size)[0] for each in maps]).cpu()
    return alphas, canvas, [share / max(asked, 1) for share in shares]


def _stitched_maps(
    model: TrainedModel, encoder: nn.Module, tiles: Tiles, alphas: Sequence[torch.Tensor], request: Request
) -> torch.Tensor:
    """G of every stage, then Grad-CAM of every class and stage asked for, (maps, *padded)."""
    canvas = None
    with torch.no_grad(), recorded_features(encoder) as features:
        for position in tiles.positions:
            model.network(tiles.cut(position).to(model.device))
            maps = [attention_map(feature, request.exponent)[:, None] for feature in features]
            for alpha, stage in zip(alphas, request.stages * len(request.classes), strict=True):
                feature = features[stage]
                # without any evidence α is a single zero
                maps.append(class_activation_map(feature, alpha.to(feature).expand(feature.shape[1])))
            tile = torch.cat([resized(each, model.patch_size)[0] for each in maps]).cpu()
            canvas = tiles.canvas(len(tile)) if canvas is None else canvas
            tiles.paint(canvas, position, tile)
    assert canvas is not None
    return canvas


def _scaled(cam: NDArray[np.float32]) -> NDArray[np.float32]:
    highest = cam.max()
    return cam / highest if highest > 0 else cam
