"""Maps computed tile by tile, put together as nnU-Net's sliding window puts logits together."""

from __future__ import annotations

from typing import Any

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

Position = tuple[Any, ...]
"""Index of a tile in the padded image, channel axis first."""


class Tiles:
    """The tiles of one pre-processed image: nnU-Net's padding, positions and Gaussian weight.

    Args:
        predictor: Of the model; gives patch size and step.
        data: (channels, *spatial), always three spatial axes.
    """

    def __init__(self, predictor: nnUNetPredictor, data: torch.Tensor) -> None:
        patch = tuple(predictor.configuration_manager.patch_size)
        self.data, self._inside = self._padded(data, patch)
        self.positions: list[Position] = predictor._internal_get_sliding_window_slicers(self.data.shape[1:])
        # half precision as in nnU-Net: there the far corners of a patch weigh what the smallest half does
        gaussian = compute_gaussian(
            patch, sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float16, device=torch.device("cpu")
        )
        self.weight = gaussian.float()
        self.total = torch.zeros(self.data.shape[1:])
        for position in self.positions:
            self.total[position[1:]] += self.weight

    @staticmethod
    def _padded(data: torch.Tensor, patch: tuple[int, ...]) -> tuple[torch.Tensor, Position]:
        return pad_nd_image(data, patch, "constant", {"value": 0}, True, None)

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
