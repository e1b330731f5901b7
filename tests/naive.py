"""Slow numpy versions of layers, written from their definitions, as references for the networks."""

from __future__ import annotations

import itertools

import numpy as np
from torch import nn


def convolution(x: np.ndarray, layer: nn.Conv2d | nn.Conv3d) -> np.ndarray:
    """Convolution of (B, C, *spatial) with stride 1, one kernel offset at a time."""
    weight = layer.weight.detach().double().numpy()
    dims = x.ndim - 2
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in layer.padding)])
    size = [padded.shape[2 + a] - layer.dilation[a] * (layer.kernel_size[a] - 1) for a in range(dims)]
    result = np.zeros((x.shape[0], weight.shape[0], *size))
    for offset in itertools.product(*(range(k) for k in layer.kernel_size)):
        window = tuple(slice(o * d, o * d + s) for o, d, s in zip(offset, layer.dilation, size, strict=True))
        values = padded[(slice(None), slice(None), *window)]
        result += np.einsum("oc,bc...->bo...", weight[(slice(None), slice(None), *offset)], values)
    if layer.bias is not None:
        result += layer.bias.detach().double().numpy().reshape(1, -1, *(1,) * dims)
    return result


def normalisation(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """Batch normalisation in evaluation mode, or instance normalisation."""
    shape = (1, -1, *(1,) * (x.ndim - 2))
    gain, shift = (p.detach().double().numpy().reshape(shape) for p in (layer.weight, layer.bias))
    if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm3d):
        mean = layer.running_mean.double().numpy().reshape(shape)
        variance = layer.running_var.double().numpy().reshape(shape)
    else:
        axes = tuple(range(2, x.ndim))
        mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return gain * (x - mean) / np.sqrt(variance + layer.eps) + shift


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def layers(x: np.ndarray, modules: nn.Module) -> np.ndarray:
    """A (nested) sequence of convolutions, normalisations and ReLUs."""
    if isinstance(modules, nn.Conv2d | nn.Conv3d):
        return convolution(x, modules)
    if isinstance(modules, nn.ReLU):
        return relu(x)
    if isinstance(modules, nn.LeakyReLU):
        return np.where(x > 0, x, modules.negative_slope * x)
    if isinstance(modules, nn.Sequential | nn.ModuleList):
        for module in modules:
            x = layers(x, module)
        return x
    return normalisation(x, modules)


def resize(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation between voxel centres, axis by axis, constant beyond the outermost centres."""
    for axis, target in enumerate(size, start=2):
        source = x.shape[axis]
        position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, source - 1)
        fraction = (position - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        x = np.take(x, low, axis) * (1 - fraction) + np.take(x, high, axis) * fraction
    return x
