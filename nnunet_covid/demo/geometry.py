"""Shapes as signed distances in mm, negative inside, and how to join them and draw their borders.

Distances of ellipses are approximate: exact on the border, and of the right order near it.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from nnunet_covid.demo.fields import Array


def ellipse(
    x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float], angle: float = 0.0, power: float = 2.0
) -> Array:
    """A (super)ellipse; ``angle`` in degrees turns its first radius from x towards y."""
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    dx, dy = x - centre[0], y - centre[1]
    along, across = np.abs(c * dx + s * dy) / radii[0], np.abs(c * dy - s * dx) / radii[1]
    return ((along**power + across**power) ** (1.0 / power) - 1.0) * min(radii)


def ellipsoid_section(
    x: Array,
    y: Array,
    z: float,
    centre: tuple[float, float, float],
    radii: tuple[float, float, float],
    angle: float = 0.0,
) -> Array:
    """The cut of an ellipsoid at height z; positive everywhere when the plane misses it."""
    height = (z - centre[2]) / radii[2]
    size = np.sqrt(max(1.0 - height**2, 0.0))
    if size < 0.05:
        return np.hypot(x - centre[0], y - centre[1]) + 0.1 * abs(height) * radii[2]
    return ellipse(x, y, centre[:2], (radii[0] * size, radii[1] * size), angle)


def union(*distances: Array, blend: float = 4.0) -> Array:
    """Smooth union: corners are rounded off over ``blend`` mm."""
    lowest = np.minimum.reduce(distances)
    return lowest - blend * np.log(sum(np.exp((lowest - d) / blend) for d in distances))


def intersection(*distances: Array, blend: float = 4.0) -> Array:
    """Smooth intersection."""
    return -union(*(-d for d in distances), blend=blend)


def coverage(distance: Array, softness: float) -> Array:
    """Share of the shape in a pixel: 1 inside, 1/2 on the border, 0 outside, over about ``softness`` mm."""
    return expit(-distance / (0.5 * softness))


def paint(canvas: Array, share: Array, hounsfield: Array | float) -> None:
    """Lay a tissue over the canvas, in place; ``share`` is its part in every pixel."""
    canvas += share * (hounsfield - canvas)
