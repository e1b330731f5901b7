"""nnU-Net's sliding window over several images at once: patches of many images share one forward pass.

Padding, positions, Gaussian weight, folds and half-precision sums are nnU-Net's; only the loop over the patches is
here. One patch at a time, which is the default on a CPU, gives nnU-Net's logits to the last bit; small ones are
mirrored in one forward pass there, with the same bits.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.configuration import default_num_processes
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.helpers import empty_cache
from torch import nn

from nnunet_covid.nnunet.exact_batches import ExactBatches
from nnunet_covid.nnunet.training import unwrapped

Position = tuple[Any, ...]
"""Index of a patch in the padded image, channel axis first."""

VOXELS_OF_A_FORWARD = 1 << 21
"""Voxels of the patches that share a forward pass on a GPU: eight of 512×512, one of 128×128×128."""
LARGEST_BATCH = 32
VOXELS_MIRRORED_TOGETHER = 1 << 14
"""Of a patch whose mirrored copies share a forward pass on a CPU; of larger ones the caches hold one alone better."""
PATCHES_BEFORE = 16
"""That a CPU predicts before it tries whether mirrored copies together give the same bits: the cost of a few."""
TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference between a patch alone and in a batch, as a share of the largest logit: rounding stays far below,
a network that looks at its whole batch far above."""


def mirrorings(axes: Sequence[int], before: int) -> list[tuple[int, ...]]:
    """Every combination of axes that is mirrored along, none first, where so many other axes stand before them."""
    return [tuple(a + before for a in some) for n in range(len(axes) + 1) for some in itertools.combinations(axes, n)]


class BatchPredictor(nnUNetPredictor):
    """nnU-Net's predictor, whose forward passes take patches of several images.

    Attributes:
        batch: Patches in a forward pass; ``None``: one on a CPU, where more gain nothing and change the last bit, else
            as many as :data:`VOXELS_OF_A_FORWARD` holds.
    """

    network: nn.Module
    batch: int | None = None
    _independent: bool | None = None  # whether patches in a batch are known not to influence each other
    _loaded: Any = None  # the weights that the network has
    _placed: Any = None  # the network that was brought to the device
    _patches_seen = 0
    _mirrored: ExactBatches | None = None

    @property
    def bare_network(self) -> nn.Module:
        """The network, without the wrapper of compilation."""
        return unwrapped(self.network)

    def patches_at_once(self) -> int:
        """How many patches share a forward pass."""
        if self._independent is False:
            return 1
        if self.batch is not None:
            return max(1, self.batch)
        if self.device.type == "cpu":
            return 1
        voxels = int(torch.Size(self.configuration_manager.patch_size).numel())
        return max(1, min(LARGEST_BATCH, VOXELS_OF_A_FORWARD // voxels))

    @torch.inference_mode()
    def predict_logits_of(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What ``predict_logits_from_preprocessed_data`` gives for each image.

        Args:
            images: Each (channels, *spatial), three spatial axes, in the plan's spacing.

        Returns:
            Of each, logits (heads, *spatial), half precision, averaged over the folds.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(min(default_num_processes, threads))  # as nnU-Net
        try:
            total: list[torch.Tensor] = []
            for index in range(len(self.list_of_parameters)):
                self.use_weights(index)
                found = self._logits_of_one_network(images)
                total = [a.add_(b) for a, b in zip(total, found, strict=True)] if total else found
            folds = len(self.list_of_parameters)
            return [each.div_(folds) for each in total] if folds > 1 else total
        finally:
            torch.set_num_threads(threads)

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        """nnU-Net's own name for the logits of one image."""
        return self.predict_logits_of([data])[0]

    def use_weights(self, index: int) -> None:
        """Give the network the weights of one of the folds, unless it has them."""
        if self._loaded is not self.list_of_parameters[index]:
            self._loaded = None  # where loading fails, the network has some of both
            self.bare_network.load_state_dict(self.list_of_parameters[index])
            self._loaded = self.list_of_parameters[index]

    def _logits_of_one_network(self, images: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Logits on the CPU with the weights that the network has; one image after the other if memory runs out."""
        if self._placed is not self.network:  # to look at every weight takes a twentieth of a small image's time
            self._placed = self.network = self.network.to(self.device).eval()
        padded = [
            pad_nd_image(i, self.configuration_manager.patch_size, "constant", {"value": 0}, True) for i in images
        ]
        slicers = [self._internal_get_sliding_window_slicers(data.shape[1:]) for data, _ in padded]
        autocast = torch.autocast("cuda") if self.device.type == "cuda" else nullcontext()
        try:
            with autocast:
                device = self.device if self.perform_everything_on_device else torch.device("cpu")
                logits = self._stitched([data for data, _ in padded], slicers, device)
        except torch.OutOfMemoryError:
            empty_cache(self.device)
            return [self.predict_sliding_window_return_logits(image).to("cpu") for image in images]
        return [each[(slice(None), *inside[1:])].to("cpu") for each, (_, inside) in zip(logits, padded, strict=True)]

    def _internal_predict_sliding_window_return_logits(
        self, data: torch.Tensor, slicers: Sequence[Position], do_on_device: bool = True
    ) -> torch.Tensor:
        """nnU-Net's loop over the patches of one padded image, in batches."""
        device = self.device if do_on_device else torch.device("cpu")
        return self._stitched([data], [slicers], device)[0]

    @torch.inference_mode()
    def _stitched(
        self, images: Sequence[torch.Tensor], slicers: Sequence[Sequence[Position]], device: torch.device
    ) -> list[torch.Tensor]:
        """Logits (heads, *padded) of padded images on ``device``: the weighted mean of their patches' logits."""
        images = [image.to(device) for image in images]
        heads = self.label_manager.num_segmentation_heads
        sums = [torch.zeros((heads, *i.shape[1:]), dtype=torch.half, device=device) for i in images]
        weights = [torch.zeros(i.shape[1:], dtype=torch.half, device=device) for i in images]
        weight: Any = 1
        if self.use_gaussian:
            patch = tuple(self.configuration_manager.patch_size)
            weight = compute_gaussian(patch, sigma_scale=1.0 / 8, value_scaling_factor=10, device=device)
        patches = iter([(index, position) for index, each in enumerate(slicers) for position in each])
        while chunk := list(zip(range(self.patches_at_once()), patches, strict=False)):
            work = torch.stack([images[index][position] for _, (index, position) in chunk]).to(self.device)
            predicted = self._predict_patches(work).to(device)
            for (_, (index, position)), maps in zip(chunk, predicted, strict=True):
                sums[index][position] += maps.mul_(weight)
                weights[index][position[1:]] += weight
        for total, count in zip(sums, weights, strict=True):
            total.div_(count)
            if torch.isinf(total).any():
                raise RuntimeError("the network gives infinite values; its weights are no trained ones")
        return sums

    def _predict_patches(self, patches: torch.Tensor) -> torch.Tensor:
        """Logits (batch, heads, *patch); the first batch is also predicted patch by patch and compared."""
        if len(patches) == 1 or self._independent:
            return self._internal_maybe_mirror_and_predict(patches)
        alone = torch.cat([self._internal_maybe_mirror_and_predict(each[None]) for each in patches])
        try:
            together = self._internal_maybe_mirror_and_predict(patches)
        except torch.OutOfMemoryError:
            empty_cache(self.device)
            self._independent = False
            return alone
        allowed = TOLERANCE.get(alone.dtype, 1e-3) * float(alone.abs().max())
        self._independent = bool((together - alone).abs().max() <= allowed)
        if not self._independent:
            logging.getLogger(__name__).warning("the network looks at its whole batch: images are predicted one by one")
        return alone

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """nnU-Net's; on a CPU a small patch and its mirrored copies in one pass, where that gives the same bits."""
        axes = self.allowed_mirroring_axes if self.use_mirroring else None
        small = len(x) == 1 and x[0, 0].numel() <= VOXELS_MIRRORED_TOGETHER
        if not (axes and small and x.device.type == "cpu" and self.network is self.bare_network):
            return super()._internal_maybe_mirror_and_predict(x)
        _, *flips = mirrorings(axes, 2)
        if self._patches_seen == PATCHES_BEFORE:
            self._mirrored = ExactBatches(self.network, (len(flips) + 1, *x.shape[1:]))
        self._patches_seen += 1
        if self._mirrored is None or not self._mirrored.exact:
            return super()._internal_maybe_mirror_and_predict(x)
        total, *others = self._mirrored(torch.cat([x, *(torch.flip(x, each) for each in flips)])).split(1)
        for maps, each in zip(others, flips, strict=True):
            total += torch.flip(maps, each)
        return total.div_(len(flips) + 1)


class Tiles:
    """The tiles of one pre-processed image: nnU-Net's padding, positions and Gaussian weight.

    Args:
        predictor: Of the model; gives patch size and step.
        data: (channels, *spatial), always three spatial axes.
    """

    def __init__(self, predictor: nnUNetPredictor, data: torch.Tensor) -> None:
        patch = tuple(predictor.configuration_manager.patch_size)
        self.data, self._inside = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
        self.positions: list[Position] = predictor._internal_get_sliding_window_slicers(self.data.shape[1:])
        # half precision as in nnU-Net: there the far corners of a patch weigh what the smallest half does
        gaussian = compute_gaussian(
            patch, sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float16, device=torch.device("cpu")
        )
        self.weight = gaussian.float()
        self.total = torch.zeros(self.data.shape[1:])
        for position in self.positions:
            self.total[position[1:]] += self.weight

    def cut(self, position: Position) -> torch.Tensor:
        """The image inside a tile, (1, channels, *patch)."""
        return self.data[position][None].contiguous()

    def share(self, position: Position) -> torch.Tensor:
        """How much the tile contributes to the stitched value of each of its voxels, (*patch); sums to 1 over tiles."""
        return self.weight / self.total[position[1:]]

    def pad(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask of the image, (*spatial), on the padded grid, so that it can be indexed like the tiles."""
        padded = torch.zeros(self.data.shape[1:], dtype=mask.dtype)
        padded[self._inside[1:]] = mask
        return padded

    def canvas(self, channels: int) -> torch.Tensor:
        """Zeros for :meth:`paint`, (channels, *padded)."""
        return torch.zeros((channels, *self.data.shape[1:]))

    def paint(self, canvas: torch.Tensor, position: Position, maps: torch.Tensor) -> None:
        """Add the maps of one tile, (channels, *patch), with the tile's share."""
        canvas[position] += maps.to(canvas) * self.share(position)

    def unpad(self, canvas: torch.Tensor) -> torch.Tensor:
        """The finished canvas without the padding, (channels, *spatial)."""
        return canvas[(slice(None), *self._inside[1:])]
