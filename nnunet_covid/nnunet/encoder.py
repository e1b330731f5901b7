"""The features of a network's encoder, whatever network it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nnunet_covid.errors import UserError


def find_encoder(network: nn.Module, name: str | None = None) -> nn.Module:
    """The module that turns an image into a list of features, shallow to deep.

    Args:
        network: Any of this project's or nnU-Net's networks.
        name: Of the encoder, as in ``network.named_modules()``; if not given, ``encoder`` or else the only child whose
            name holds that word.

    Raises:
        UserError: If there is none.
    """
    children = dict(network.named_children())
    listed = ", ".join(children) or "none"
    if name is not None:
        modules = dict(network.named_modules())
        if name not in modules:
            raise UserError(f"{type(network).__name__} has no module '{name}'; its parts are {listed}")
        return modules[name]
    if "encoder" in children:  # among several encoders the one whose skips the decoder reads
        return children["encoder"]
    named = [child for child_name, child in children.items() if "encoder" in child_name]
    if len(named) != 1:
        raise UserError(f"{type(network).__name__} has no part named 'encoder'; name one of {listed}", "encoder")
    return named[0]


@contextmanager
def recorded_features(encoder: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Record what the encoder returns while the network runs.

    Yields:
        The features of the latest forward pass, shallow to deep, each (B, C, *spatial).
    """
    features: list[torch.Tensor] = []

    def record(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        alone = isinstance(output, torch.Tensor)
        features[:] = [output] if alone else output
        # what follows gets copies: an activation in place there must not change what was recorded
        copies = [feature.clone() for feature in features]
        return copies[0] if alone else copies

    handle = encoder.register_forward_hook(record)
    try:
        yield features
    finally:
        handle.remove()


@contextmanager
def deepest_features(network: nn.Module, hear: Callable[[torch.Tensor], None]) -> Iterator[bool]:
    """While this lasts, the deepest features (B, C, *spatial) of every pass of a network are handed on.

    Yields:
        Whether an encoder was found; without one nothing is handed on.
    """

    def heard(_module: nn.Module, _inputs: Any, output: Any) -> None:
        hear(output if isinstance(output, torch.Tensor) else output[-1])

    try:
        encoder = find_encoder(network)
    except UserError:
        yield False
        return
    handle = encoder.register_forward_hook(heard)
    try:
        yield True
    finally:
        handle.remove()


def mean_over_positions(features: torch.Tensor) -> torch.Tensor:
    """Features (B, C, *spatial) as one vector (C,) in main memory."""
    return features.detach().float().mean(dim=(0, *range(2, features.ndim))).cpu()


def feature_shapes(
    network: nn.Module, encoder: nn.Module, input_shape: Sequence[int], device: torch.device
) -> list[tuple[int, ...]]:
    """Channels and spatial size of every feature for one input (1, channels, *patch), by trying it.

    Raises:
        UserError: If the encoder does not return features, or the network never calls it.
    """
    with torch.no_grad(), recorded_features(encoder) as features:
        network(torch.zeros(tuple(input_shape), device=device))
    if not features or not all(isinstance(f, torch.Tensor) and f.ndim == len(input_shape) for f in features):
        raise UserError(
            f"{type(encoder).__name__} of {type(network).__name__} returns no list of features; name another part",
            "encoder",
        )
    return [tuple(feature.shape[1:]) for feature in features]
