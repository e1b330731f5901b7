"""A trainer's network and loss as one CUDA graph: the same kernels with the same numbers, started by one call.

Trainings of small networks side by side wait for thousands of short kernels that each process starts one by one. A
graph is taken once per training, from forward and backward pass in mixed precision; augmentation, clipping, optimiser
and everything of the validation stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.semi_supervised.training import parts_of

TOLERANCE = 0.02
"""Relative, between gradients with and without the graph: atomic additions alone make two passes differ."""


@dataclass
class Waiting:
    """Stands for the output of a network until the loss asks for it."""

    data: torch.Tensor


class NetworkAndLoss(nn.Module):
    """(data, targets) to the loss."""

    def __init__(self, network: nn.Module, loss: nn.Module, several: bool) -> None:
        super().__init__()
        self.network, self.criterion, self.several = network, loss, several
        self.forwards = network.forward, loss.forward  # as they are before they are replaced

    def forward(self, data: torch.Tensor, *targets: torch.Tensor) -> torch.Tensor:
        forward, criterion = self.forwards
        with torch.autocast("cuda", cache_enabled=False):
            return criterion(forward(data), list(targets) if self.several else targets[0])


class TwoInputs(nn.Module):
    """The collaborative network: (image, image of another disease) to (logits, features)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.plain = network.forward

    def forward(self, data: torch.Tensor, other: torch.Tensor) -> Any:
        with torch.autocast("cuda", cache_enabled=False):
            return self.plain(data, other, None, True)


def use_graph(trainer: Any) -> str:
    """Replace a trainer's forward and backward pass of training by a graph; says in a line whether that was done."""
    if trainer.device.type != "cuda":
        return "no graph: graphs are CUDA's"
    return take_graph(trainer)


def take_graph(trainer: Any) -> str:
    """As :func:`use_graph`, wherever torch's own ``make_graphed_callables`` can do it."""
    if hasattr(trainer, "unlabelled_loss"):
        return "no graph: a step of consistency is several passes"
    network, loss = unwrapped(trainer.network), trainer.loss
    collaborative = getattr(network, "general_encoder", None) is not None
    if why := _never_the_same(trainer, loss, collaborative=collaborative):
        return f"no graph: {why}"
    try:
        return _collaborative(trainer, network) if collaborative else _usual(trainer, network, loss)
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as e:
        for module in (network, loss):
            module.__dict__.pop("forward", None)
        torch.cuda.synchronize()
        return f"no graph: {type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"


def _never_the_same(trainer: Any, loss: Any, *, collaborative: bool) -> str:
    """Why the step that a graph would hold is not the one that the training makes; empty if it is."""
    if any(getattr(module, "start_epoch", 0) > 0 for module in parts_of(loss)):
        return "distillation begins later"
    if not collaborative:
        return ""
    if trainer.general_weight <= 0:
        return "its steps see no images of other diseases"
    link = trainer.usable_link(trainer.plans_manager, trainer.configuration_name)
    return "its steps see unlabelled images too" if link is not None and link.unlabelled is not None else ""


def _usual(trainer: Any, network: nn.Module, loss: nn.Module) -> str:
    scales = trainer._get_deep_supervision_scales()
    data, targets = _samples(trainer, scales or [None])
    step = NetworkAndLoss(network, loss, several=scales is not None)
    plain, criterion = step.forwards
    message = _captured(step, network, (data, *targets))

    def network_forward(x: torch.Tensor) -> Any:
        training = network.training and torch.is_grad_enabled() and x.shape == data.shape
        return Waiting(x) if training else plain(x)

    def loss_forward(output: Any, target: Any) -> torch.Tensor:
        if isinstance(output, Waiting):
            return step(output.data, *(target if isinstance(target, list) else [target]))
        return criterion(output, target)

    network.forward, loss.forward = network_forward, loss_forward  # type: ignore[method-assign]
    return message


def _collaborative(trainer: Any, network: nn.Module) -> str:
    data, _ = _samples(trainer, [None])
    step = TwoInputs(network)
    plain = step.plain
    message = _captured(step, network, (data, data.flip(0)))

    def forward(x: torch.Tensor, other: Any = None, unlabelled: Any = None, *flags: bool) -> Any:
        if network.training and torch.is_grad_enabled() and other is not None and unlabelled is None:
            return step(x, other)
        return plain(x, other, unlabelled, *flags)

    network.forward = forward  # type: ignore[method-assign]
    return message


def _captured(step: nn.Module, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    """Make a graph of ``step`` in place, and compare its gradients with those without; the network stays as it was."""
    kept = [b.clone() for b in network.buffers()]
    network.train()
    expected = _gradients(step, inputs)
    torch.cuda.make_graphed_callables(step, inputs, allow_unused_input=True)
    message = _compared(expected, _gradients(step, inputs))
    with torch.no_grad():
        for buffer, before in zip(network.buffers(), kept, strict=True):
            buffer.copy_(before)
    return message


def _samples(trainer: Any, scales: list[Any]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A lesion in the middle of noise that every run has, and its target at every scale."""
    manager, device = trainer.configuration_manager, trainer.device
    size = manager.patch_size
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(manager.batch_size, trainer.num_input_channels, *size, generator=generator)
    label = torch.zeros(manager.batch_size, 1, *size)
    lesion: tuple[Any, ...] = (..., *(slice(s // 4, s // 2) for s in size))
    label[lesion] = 1
    targets = [
        nn.functional.interpolate(
            label, size=[round(s * f) for s, f in zip(size, scale or [1] * len(size), strict=True)]
        )
        for scale in scales
    ]
    return data.to(device), [t.to(device, torch.int16) for t in targets]


def _gradients(step: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """The sum of the outputs' means (of a loss, itself) and all its gradients, scaled as mixed precision does it.

    Nothing is left behind in the network.
    """
    parameters = [p for p in step.parameters() if p.requires_grad]
    value = torch.stack([output.float().mean() for output in tree_leaves(step(*inputs))]).sum()
    (value * 1024).backward()
    found = [value.detach().clone()] + [
        (torch.zeros_like(p) if p.grad is None else p.grad / 1024).detach().clone() for p in parameters
    ]
    for p in parameters:
        p.grad = None
    return found


def _compared(expected: list[torch.Tensor], found: list[torch.Tensor]) -> str:
    norm = torch.stack([e.norm() for e in expected[1:]]).norm()
    error = torch.stack([(e - f).norm() for e, f in zip(expected[1:], found[1:], strict=True)]).norm() / norm
    if not torch.isclose(expected[0], found[0], rtol=1e-3) or not error < TOLERANCE:
        msg = f"loss {float(expected[0]):.5f} and {float(found[0]):.5f}, gradients differ by {float(error):.2g}"
        raise ValueError(msg)
    return f"graph: same loss, gradients differ by {float(error):.1e}"
