"""Multi-scale training: a batch and its target at another size."""

from __future__ import annotations

import torch
from torch.nn import functional


def scaled_size(size: int, scale: float, multiple: int) -> int:
    """``size * scale`` rounded to the nearest multiple, at least one multiple."""
    return max(multiple, round(size * scale / multiple) * multiple)


def scaled_pair(
    data: torch.Tensor, target: torch.Tensor, scale: float, multiple: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Image and target resized by ``scale``, sides rounded to a multiple of the encoder's total stride.

    Source: Inf-Net (Fan et al., TMI 2020), §III-D: scales 0.75, 1 and 1.25, rounded to 32.

    Args:
        data: (B, C, H, W), resized linearly.
        target: (B, T, H, W), label maps or regions of any type, resized by nearest neighbour.
    """
    size = [scaled_size(s, scale, multiple) for s in data.shape[2:]]
    if list(data.shape[2:]) == size:
        return data, target
    data = functional.interpolate(data, size=size, mode="bilinear", align_corners=False)
    resized = functional.interpolate(target.float(), size=size, mode="nearest-exact")
    return data, resized.to(target.dtype)
