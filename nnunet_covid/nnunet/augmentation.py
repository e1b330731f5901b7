"""nnU-Net's augmentation, less what depends on how fast the machine is just now."""

from __future__ import annotations

from typing import Any


def without_timing(transform: Any) -> Any:
    """Switch off the timing in a transform and in all that it is made of; returns the transform.

    nnU-Net's Gaussian blur times two implementations and takes the faster one: the same seed, other last digits.
    """
    if hasattr(transform, "benchmark"):
        transform.benchmark = False
    for inner in getattr(transform, "transforms", []):
        without_timing(inner)
    if hasattr(transform, "transform"):
        without_timing(transform.transform)
    return transform
