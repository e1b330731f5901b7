"""Several patches in one forward pass on a CPU, each with the bits that it gets alone.

torch chooses the kernels of a layer by the size of the whole batch, and another kernel adds up in another order. Layers
of which that is true are found by trying, and get their patches one after the other; all others gain from the batch.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class ExactBatches:
    """A network that predicts patches of one shape together, to the last bit as one by one.

    Args:
        network: In evaluation mode; answers a batch with one tensor.
        shape: Of the batches, (patches, channels, *spatial).

    Attributes:
        apart: The layers that get their patches one after the other.
        exact: Whether the whole network gives the same bits; where not, it is not to be used: something in it that is
            no layer looks at the batch.
    """

    @torch.inference_mode()
    def __init__(self, network: nn.Module, shape: Sequence[int]) -> None:
        self.network = network
        self.patches = shape[0]
        self.apart: list[nn.Module] = []
        noise = torch.randn(tuple(shape), generator=torch.Generator().manual_seed(0))
        watched = [each.register_forward_hook(self._compare) for each in network.modules() if not [*each.children()]]
        try:
            network(noise)
        finally:
            for hook in watched:
                hook.remove()
        self.exact = torch.equal(self(noise), one_by_one(network, noise))

    def _compare(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if layer in self.apart or len(inputs) != 1 or not all(map(self._is_batch, (*inputs, output))):
            return  # what is left out here shows in the whole network
        if not torch.equal(one_by_one(layer.forward, *inputs), output):
            self.apart.append(layer)

    def _is_batch(self, value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.ndim > 1 and len(value) == self.patches

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """The network's answer to a batch of the shape."""
        with self._taken_apart():
            return self.network(patches)

    @contextmanager
    def _taken_apart(self) -> Iterator[None]:
        for layer in self.apart:
            layer.forward = functools.partial(one_by_one, layer.forward)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self.apart:
                del layer.forward


def one_by_one(answer: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor) -> torch.Tensor:
    """What is answered to each element of a batch alone, along the first axis."""
    return torch.cat([answer(each) for each in batch.split(1)])
