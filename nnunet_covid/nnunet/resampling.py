"""nnU-Net's default resampling some planes at a time, where that gives what the whole gives: it works in doubles.

Of an image whose first axis is coarse and stays as it is, nnU-Net resamples plane by plane.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from numpy.typing import NDArray

SLAB_VOXELS = 1 << 23
"""Voxels of a map that are worked on at once."""


def slabs_of(shape: Sequence[int]) -> list[slice]:
    """Planes of the first axis of a map (*spatial) that are worked on at once."""
    step = max(1, SLAB_VOXELS // int(np.prod(shape[1:])))
    return [slice(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]


def separate_axis(
    settings: dict[str, Any], current: Sequence[float], wanted: Sequence[float]
) -> tuple[bool, int | None]:
    """Whether nnU-Net's default resampling treats an axis apart from the other two, and which."""
    threshold = settings.get("separate_z_anisotropy_threshold", ANISO_THRESHOLD)
    separate, axis = determine_do_sep_z_and_axis(settings.get("force_separate_z", False), current, wanted, threshold)
    return bool(separate), axis


class InParts(ConfigurationManager):
    """A configuration whose images and masks are resampled in less memory, with the same result."""

    @cached_property
    def preprocessor_class(self) -> Any:
        """nnU-Net's, which it looks for in its files again for every image."""
        return super().preprocessor_class

    @property
    def resampling_fn_data(self) -> Callable[..., Any]:
        """(channels, *spatial), a shape, the present and the wanted spacing to the same in that shape."""
        return _in_parts(super().resampling_fn_data)

    @property
    def resampling_fn_seg(self) -> Callable[..., Any]:
        """The same for masks and labels."""
        return _in_parts(super().resampling_fn_seg)


def _in_parts(resample: Any) -> Callable[..., Any]:
    if getattr(resample, "func", None) is not resample_data_or_seg_to_shape:
        return resample  # another function, which may look at all planes

    def run(data: NDArray[Any], shape: Sequence[int], current: Sequence[float], wanted: Sequence[float]) -> Any:
        apart = separate_axis(resample.keywords, current, wanted) == (True, 0) and data.shape[1] == shape[0]
        if not apart or data.shape[1:] == tuple(shape):
            return resample(data, shape, current, wanted)
        resampled = np.empty((len(data), *shape), data.dtype)
        for planes in slabs_of(data.shape[1:]):
            part = data[:, planes]
            resampled[:, planes] = resample(part, (part.shape[1], *shape[1:]), current, wanted)
        return resampled

    return run
