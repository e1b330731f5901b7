"""Spatial convolution: every row (column, plane) of a map receives a message from the row before it, already updated.

The recurrence is sequential along one axis and parallel in everything else. Here a whole direction is one operator of
its own, so that ``torch.compile`` sees one node instead of an unrolled loop, and so that its gradient keeps only the
result and one byte per value, takes one matrix product per step, and leaves the gradient of the kernel to a few large
matrix products after the last step.

Layout inside the operators: (*plane, steps, batch, channels), ``plane`` being the axes that a kernel spans. A window
around a position is then a row of ``taps * channels`` values, a step is one matrix product with the kernel as it is
stored, and a shift in the plane is a slice of whole blocks of memory.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import register_flop_formula

PAPER_KERNEL = 9
"""Kernel width of SSA-Net (methods as in Pan et al., Spatial As Deep, AAAI 2018)."""

SCHEMA = "(Tensor x, Tensor weight, bool reverse) -> (Tensor, Tensor)"
BACKWARD_SCHEMA = "(Tensor grad, Tensor y, Tensor active, Tensor weight, bool reverse) -> (Tensor, Tensor)"


class SpatialConvolution(nn.Module):
    r"""Messages along every axis in both directions, with own weights per direction and without bias.

    .. math:: T'_j = T_j + \mathrm{ReLU}(K * T'_{j-1}), \qquad T'_1 = T_1

    In 2D rows pass messages downward and upward, then columns rightward and leftward; in 3D planes do so along the
    three axes in order. Each direction works on the result of the one before.

    Source: SSA-Net (Wang et al., Medical Image Analysis 2022), §3.1.2, eq. (5). In 3D a slice is a plane, so the
    kernel has ``kernel`` taps along both of its axes.

    Args:
        channels: Channels of the map.
        spatial_dims: 2 or 3.
        kernel: Odd width k.

    Raises:
        ValueError: If the kernel is not odd and positive.
    """

    def __init__(self, channels: int, spatial_dims: int = 2, kernel: int = PAPER_KERNEL) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            msg = f"the kernel of a spatial convolution must be odd and positive, not {kernel}"
            raise ValueError(msg)
        self.spatial_dims = spatial_dims
        self.kernel = kernel
        taps = (kernel,) * (spatial_dims - 1)
        self.weights = nn.ParameterList(
            nn.Parameter(torch.empty(*taps, channels, channels)) for _ in range(2 * spatial_dims)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights with a fifth of He's variance.

        With He's own a message would be as large as the map it comes from, and variance would grow by the length of the
        axis in each direction; with a fifth it is bounded by 1 / (1 - 1/5) (Pan et al. initialise likewise).
        """
        for weight in self.weights:
            nn.init.normal_(weight, std=math.sqrt(2 / (5 * weight[..., 0].numel())))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (B, C, *spatial) of the same size and type.

        Messages add up along an axis beyond what float16 can hold, so the sum is taken in float32 at least, inside
        autocast too, and what does not fit the type of the map is cut to its range.
        """
        given = x.dtype
        dtype = torch.promote_types(given, torch.float32)
        x = x.to(dtype)
        for axis in range(self.spatial_dims):
            plane = [2 + a for a in range(self.spatial_dims) if a != axis]
            order = (*plane, 2 + axis, 0, 1)
            laid_out = x.permute(order).contiguous()
            for reverse in (False, True):
                weight = self.weights[2 * axis + int(reverse)].to(dtype)
                laid_out, _ = spatial_convolution(laid_out, weight, reverse)
            x = laid_out.permute([order.index(i) for i in range(len(order))])
        if given != dtype:
            largest = torch.finfo(given).max
            x = x.clamp(-largest, largest).to(given)
        return x.contiguous()

    def extra_repr(self) -> str:
        return f"{self.weights[0].shape[-1]}, spatial_dims={self.spatial_dims}, kernel={self.kernel}"


@torch.library.custom_op("nnunet_covid::spatial_convolution", mutates_args=(), schema=SCHEMA)
def spatial_convolution(x: torch.Tensor, weight: torch.Tensor, reverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """One direction of a spatial convolution, eq. (5) of SSA-Net.

    Args:
        x: (*plane, steps, B, C), contiguous.
        weight: (*taps, C, C): from the channel of the next to last axis to that of the last.
        reverse: From the last step to the first.

    Returns:
        The updated map, and where the ReLU of its messages was open; both of the shape of ``x``.
    """
    weight = weight[_seen_taps(weight, x.shape)]
    inner, windows = _padded_like(x, weight)
    matrix = weight.reshape(-1, weight.shape[-1])
    columns = x.new_empty(_columns_shape(x, weight))
    message = x.new_empty((*x.shape[:-3], *x.shape[-2:]))
    active = torch.zeros_like(x, dtype=torch.bool)
    steps = _steps(x.shape[-3], reverse)
    inner.select(-3, steps[0]).copy_(x.select(-3, steps[0]))
    for before, step in itertools.pairwise(steps):
        columns.copy_(_window(windows, before))
        torch.mm(columns.view(-1, matrix.shape[0]), matrix, out=message.view(-1, matrix.shape[1]))
        message.relu_()
        torch.gt(message, 0, out=active.select(-3, step))
        torch.add(x.select(-3, step), message, out=inner.select(-3, step))
    return inner.clone(memory_format=torch.contiguous_format), active


@torch.library.custom_op("nnunet_covid::spatial_convolution_backward", mutates_args=(), schema=BACKWARD_SCHEMA)
def spatial_convolution_backward(
    grad: torch.Tensor, y: torch.Tensor, active: torch.Tensor, weight: torch.Tensor, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients with respect to ``x`` and ``weight`` of :func:`spatial_convolution`."""
    seen = _seen_taps(weight, y.shape)
    grad_weight = torch.zeros_like(weight)
    weight = weight[seen]
    channels = weight.shape[-1]
    transposed = weight.flip(tuple(range(weight.ndim - 2))).transpose(-1, -2).reshape(-1, channels)
    grad_x = grad.clone(memory_format=torch.contiguous_format)
    inner, windows = _padded_like(y, weight)
    columns = y.new_empty(_columns_shape(y, weight))
    flow = y.new_empty((*y.shape[:-3], *y.shape[-2:]))
    steps = _steps(y.shape[-3], reverse)[::-1]
    for step, before in itertools.pairwise(steps):
        torch.mul(grad_x.select(-3, step), active.select(-3, step), out=inner.select(-3, step))
        columns.copy_(_window(windows, step))
        torch.mm(columns.view(-1, transposed.shape[0]), transposed, out=flow.view(-1, channels))
        grad_x.select(-3, before).add_(flow)
    if len(steps) > 1:
        receivers, givers = (slice(0, -1), slice(1, None)) if reverse else (slice(1, None), slice(0, -1))
        _kernel_gradient(y[..., givers, :, :].contiguous(), inner[..., receivers, :, :].contiguous(), grad_weight[seen])
    return grad_x, grad_weight


def _kernel_gradient(y: torch.Tensor, grad_message: torch.Tensor, result: torch.Tensor) -> None:
    """Sum over positions, steps and batch of giver times receiver, one matrix product per tap, into ``result``."""
    planes, channels = y.shape[:-3], y.shape[-1]
    for tap in itertools.product(*(range(k) for k in result.shape[:-2])):
        shifts = [t - k // 2 for t, k in zip(tap, result.shape[:-2], strict=True)]
        givers = tuple(slice(max(0, s), n + min(0, s)) for s, n in zip(shifts, planes, strict=True))
        receivers = tuple(slice(max(0, -s), n + min(0, -s)) for s, n in zip(shifts, planes, strict=True))
        torch.mm(y[givers].reshape(-1, channels).t(), grad_message[receivers].reshape(-1, channels), out=result[tap])


def _steps(length: int, reverse: bool) -> list[int]:
    return list(range(length))[::-1] if reverse else list(range(length))


def _seen_taps(weight: torch.Tensor, shape: Sequence[int]) -> tuple[slice, ...]:
    """The taps that reach into the plane from at least one of its positions; the others only see padding."""
    taps = weight.shape[:-2]
    outside = [max(0, k // 2 - (size - 1)) for k, size in zip(taps, shape[: len(taps)], strict=True)]
    return tuple(slice(o, k - o) for o, k in zip(outside, taps, strict=True))


def _columns_shape(x: torch.Tensor, weight: torch.Tensor) -> tuple[int, ...]:
    """(*plane, B, *taps, C): for each position what its window holds."""
    return (*x.shape[:-3], x.shape[-2], *weight.shape[:-2], x.shape[-1])


def _padded_like(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Zeros of the size of ``x``, and the windows (*plane, steps, B, C, *taps) on them and on a border of zeros."""
    reach = [k // 2 for k in weight.shape[:-2]]
    planes = x.shape[:-3]
    padded = x.new_zeros((*(n + 2 * r for n, r in zip(planes, reach, strict=True)), *x.shape[-3:]))
    inner = padded[tuple(slice(r, r + n) for n, r in zip(planes, reach, strict=True))]
    windows = padded
    for axis, taps in enumerate(weight.shape[:-2]):
        windows = windows.unfold(axis, taps, 1)
    return inner, windows


def _window(windows: torch.Tensor, step: int) -> torch.Tensor:
    """The windows of one step as (*plane, B, *taps, C)."""
    dims = (windows.ndim - 3) // 2
    chosen = windows.select(dims, step)
    return chosen.movedim(dims + 1, -1)


@spatial_convolution.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, reverse: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


@spatial_convolution_backward.register_fake
def _(
    grad: torch.Tensor, y: torch.Tensor, active: torch.Tensor, weight: torch.Tensor, reverse: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(y), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, weight, ctx.reverse = inputs
    ctx.save_for_backward(*output, weight)


def _differentiate(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
    y, active, weight = ctx.saved_tensors
    return (*spatial_convolution_backward(grad.contiguous(), y, active, weight, ctx.reverse), None)


spatial_convolution.register_autograd(_differentiate, setup_context=_remember)


@register_flop_formula(torch.ops.nnunet_covid.spatial_convolution)
def _flops(x_shape: Sequence[int], weight_shape: Sequence[int], *_: Any, **__: Any) -> int:
    """As for the convolutions that the steps are: two per multiply-add, padding included, the first step free."""
    *plane, steps, batch, _channels = x_shape
    return 2 * math.prod(plane) * (steps - 1) * batch * math.prod(weight_shape)


@register_flop_formula(torch.ops.nnunet_covid.spatial_convolution_backward)
def _backward_flops(
    _grad: Sequence[int], y_shape: Sequence[int], _active: Any, weight_shape: Sequence[int], *_: Any, **__: Any
) -> int:
    return 2 * _flops(y_shape, weight_shape)
