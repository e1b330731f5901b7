"""Attention maps and Grad-CAM of one image, tile by tile, on nnU-Net's pre-processed grid and back in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nnunet_covid.nnunet.image_maps import to_image_grid
from nnunet_covid.nnunet.tiles import Tiles
from nnunet_covid.nnunet.trained_model import ForegroundClass, PreparedCase, TrainedModel
from nnunet_covid.saliency.attention import activation_map, resized, spatial_softmax
from nnunet_covid.saliency.encoder_features import EncoderFeatures
from nnunet_covid.saliency.grad_cam import channel_weights, class_activation_map, class_score

Evidence = Literal["predicted", "image"]
EVIDENCE = ("predicted", "image")


@dataclass(frozen=True)
class Request:
    """What to compute.

    Args:
        classes: For each of them a Grad-CAM.
        stages: Whose features Grad-CAM weighs, indices into the encoder's features.
        exponent: z of the attention maps.
        evidence: Grad-CAM's score is the sum of the class's logits over the voxels ``predicted`` as the class, or
            over the whole ``image``.
    """

    classes: tuple[ForegroundClass, ...]
    stages: tuple[int, ...]
    exponent: float = 2.0
    evidence: Evidence = "predicted"


@dataclass(frozen=True)
class CaseMaps:
    """Maps of one image on its own grid, averaged over folds.

    Attributes:
        attention: (stages, *image axes): Φ of each stage; each sums to 1.
        activation: The same before the softmax, G; the logarithm of Φ but for a constant.
        grad_cam: (classes, stages asked for, *image axes), 0 to 1: Grad-CAM divided by its maximum, all zero without
            evidence.
        labels: (classes, *image axes), where each class is predicted.
    """

    attention: NDArray[np.float32]
    activation: NDArray[np.float32]
    grad_cam: NDArray[np.float32]
    labels: NDArray[np.bool_]


def compute_case_maps(model: TrainedModel, case: PreparedCase, encoder: nn.Module, request: Request) -> CaseMaps:
    """All maps of a case; the networks of several folds are asked one by one and their maps averaged."""
    predictor = model.predictor
    logits = model.predict_logits(case)
    predicted = [_predicted(model, logits, one.head) for one in request.classes]
    tiles = Tiles(predictor, case.data)
    attention, activation, grad_cam = [], [], []
    for index in range(len(model.folds)):
        model.use_fold(index)
        weights = _case_channel_weights(model, encoder, tiles, predicted, request)
        stitched = _stitched_maps(model, encoder, tiles, weights, request)
        on_image, inside = to_image_grid(
            stitched, case.properties, predictor.plans_manager, predictor.configuration_manager
        )
        energies, cams = np.split(on_image, [len(on_image) - len(weights)])
        activation.append(energies)
        attention.append(np.stack([spatial_softmax(energy, inside) for energy in energies]))
        grad_cam.append(np.stack([_scaled(cam) for cam in cams]))
    on_image, _ = to_image_grid(
        torch.stack([mask.float() for mask in predicted]),
        case.properties,
        predictor.plans_manager,
        predictor.configuration_manager,
    )
    return CaseMaps(
        attention=np.mean(attention, axis=0),
        activation=np.mean(activation, axis=0),
        grad_cam=np.mean(grad_cam, axis=0).reshape(len(predicted), len(request.stages), *on_image.shape[1:]),
        labels=on_image > 0.5,
    )


def _predicted(model: TrainedModel, logits: torch.Tensor, head: int) -> torch.Tensor:
    if model.predictor.label_manager.has_regions:
        return logits[head] > 0
    return logits.argmax(dim=0) == head


def _case_channel_weights(
    model: TrainedModel,
    encoder: nn.Module,
    tiles: Tiles,
    predicted: Sequence[torch.Tensor],
    request: Request,
) -> list[torch.Tensor]:
    """Grad-CAM's α, one per channel for the whole image: for every class, for every stage asked for.

    The score is linear in the stitched logits, and these are a weighted sum of the tiles' logits: its gradient at the
    features of a tile is that of the same sum over the tile, each voxel with the tile's share in it. So the means over
    tiles add up to the α of the whole image.
    """
    masks = [mask if request.evidence == "predicted" else torch.ones_like(mask) for mask in predicted]
    padded = [tiles.pad(mask.float()) for mask in masks]
    totals = [torch.zeros(())] * (len(masks) * len(request.stages))
    with EncoderFeatures(encoder) as recorder:
        for position in tiles.positions:
            inside = [mask[position[1:]] * tiles.share(position) for mask in padded]
            if not any(weight.any() for weight in inside):
                continue
            # so that every layer from the image on takes part in the graph
            logits = _result(model.network(tiles.cut(position).to(model.device).requires_grad_()))
            stages = [recorder.features[stage] for stage in request.stages]
            alphas: list[torch.Tensor] = []
            for one, weight in zip(request.classes, inside, strict=True):
                alphas += channel_weights(class_score(logits, one.head, weight.to(model.device)), stages)
            totals = [total + alpha.cpu() for total, alpha in zip(totals, alphas, strict=True)]
    return totals


def _stitched_maps(
    model: TrainedModel, encoder: nn.Module, tiles: Tiles, weights: Sequence[torch.Tensor], request: Request
) -> torch.Tensor:
    """G of every stage, then the activation map of every class and stage asked for, (maps, *spatial)."""
    canvas = None
    with torch.no_grad(), EncoderFeatures(encoder) as recorder:
        for position in tiles.positions:
            model.network(tiles.cut(position).to(model.device))
            maps = [activation_map(feature, request.exponent) for feature in recorder.features]
            for alpha, stage in zip(weights, request.stages * len(request.classes), strict=True):
                feature = recorder.features[stage]
                # without any evidence α is a single zero
                maps.append(class_activation_map(feature, alpha.to(feature).expand(feature.shape[1])))
            tile = torch.cat([resized(each, model.patch_size)[0] for each in maps]).cpu()
            canvas = tiles.canvas(len(tile)) if canvas is None else canvas
            tiles.paint(canvas, position, tile)
    assert canvas is not None
    return tiles.unpad(canvas)


def _result(output: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """The full-resolution logits; a network in training mode of its heads returns them first in a list."""
    return output if isinstance(output, torch.Tensor) else output[0]


def _scaled(cam: NDArray[np.float32]) -> NDArray[np.float32]:
    highest = cam.max()
    return cam / highest if highest > 0 else cam
