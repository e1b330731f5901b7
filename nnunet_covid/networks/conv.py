"""Convolution followed by normalisation, in two or three dimensions, and resizing by shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional

LINEAR_INTERPOLATION = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class ConvStyle:
    """Which normalisation and nonlinearity a family of modules shares, and in how many dimensions it works.

    Args:
        spatial_dims: 2 or 3.
        norm: Called with the number of channels, gives the normalisation layer.
        nonlinearity: Called without arguments, gives the nonlinearity.
        norm_on_logits: Whether a layer that emits logits is normalised as well. The paper's network does so with
            batch normalisation; with instance normalisation it would erase how much of an image is lesion.
    """

    spatial_dims: int = 2
    norm: Callable[[int], nn.Module] = nn.BatchNorm2d
    nonlinearity: Callable[[], nn.Module] = field(default=lambda: nn.ReLU(inplace=True))
    norm_on_logits: bool = False

    @property
    def conv(self) -> type[nn.Module]:
        return {2: nn.Conv2d, 3: nn.Conv3d}[self.spatial_dims]


PAPER_STYLE = ConvStyle(norm_on_logits=True)
"""Batch normalisation everywhere, ReLU: the modules of the published Inf-Net (2D)."""


def kernel_on_axes(size: int, axes: Sequence[bool]) -> tuple[int, ...]:
    """A kernel of ``size`` along the chosen axes and 1 along the others."""
    return tuple(size if chosen else 1 for chosen in axes)


class ConvNorm(nn.Sequential):
    """Convolution without bias, normalisation, optional nonlinearity; keeps the spatial size.

    Args:
        style: Dimensions, normalisation and nonlinearity.
        kernel: One odd size per axis.
        dilation: One dilation per axis, or one for all.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        *,
        style: ConvStyle,
        dilation: int | Sequence[int] = 1,
        nonlinearity: bool = False,
    ) -> None:
        dilations = [dilation] * len(kernel) if isinstance(dilation, int) else list(dilation)
        padding = [d * (k // 2) for k, d in zip(kernel, dilations, strict=True)]
        layers: list[nn.Module] = [
            style.conv(
                in_channels,
                out_channels,
                kernel_size=tuple(kernel),
                padding=tuple(padding),
                dilation=tuple(dilations),
                bias=False,
            ),
            style.norm(out_channels),
        ]
        if nonlinearity:
            layers.append(style.nonlinearity())
        super().__init__(*layers)


def logits_layer(in_channels: int, num_logits: int, kernel: Sequence[int], *, style: ConvStyle) -> nn.ModuleList:
    """The layer that emits logits, in a list so that the owner's attribute ``seg_layers`` names its parameters.

    nnU-Net's ``load_pretrained_weights`` skips every key with ``.seg_layers.`` in it, so that a network can be
    fine-tuned to another number of classes.
    """
    if style.norm_on_logits:
        return nn.ModuleList([ConvNorm(in_channels, num_logits, kernel, style=style)])
    padding = tuple(k // 2 for k in kernel)
    return nn.ModuleList([style.conv(in_channels, num_logits, kernel_size=tuple(kernel), padding=padding)])


def resize_like(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Resize ``x`` (B, C, *spatial) linearly to the spatial size of ``reference``; a no-op where they agree."""
    size = reference.shape[2:]
    if x.shape[2:] == size:
        return x
    return functional.interpolate(x, size=size, mode=LINEAR_INTERPOLATION[x.ndim - 2], align_corners=False)


def module_from(cls: type[nn.Module] | None, kwargs: dict[str, Any] | None) -> Callable[..., nn.Module]:
    """A factory for an optional layer class with keyword arguments; ``None`` gives the identity."""
    if cls is None:
        return lambda *_: nn.Identity()
    return lambda *args: cls(*args, **(kwargs or {}))


class SupervisedByDecoder(nn.Module):
    """A network whose ``decoder`` knows whether it returns a map per stage, as nnU-Net's decoders do."""

    decoder: Any

    @property
    def deep_supervision(self) -> bool:
        """Whether the network returns what the loss wants, or the result alone."""
        return bool(self.decoder.deep_supervision)

    @deep_supervision.setter
    def deep_supervision(self, enabled: bool) -> None:
        self.decoder.deep_supervision = enabled
