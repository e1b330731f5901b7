"""Label maps kept in memory between the check of their values and their scoring, so that no file is decoded twice.

Label maps consist of long runs of equal values: compressed, a slice of 512×512 takes some 10 kB, a volume of
512×512×300 some 2 MB, and unpacking takes a small part of the time that the file takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from nnunet_covid.evaluation.geometry import Geometry

KEPT_BYTES = 1 << 28  # of all cases together; what does not fit is read again
LARGEST = (1 << 31) - (1 << 24)  # bytes that one LZ4 block may hold, with room for what cannot be compressed


@dataclass(frozen=True)
class KeptLabels:
    """A label map, compressed without loss."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.integer]
    block: bytes

    def restored(self) -> NDArray[np.integer]:
        """The label map, as a new array."""
        labels = np.empty(self.shape, dtype=self.dtype)
        place: Any = labels.reshape(-1).view(np.uint8)  # any buffer is taken
        imagecodecs.lz4_decode(self.block, out=place)
        return labels


@dataclass(frozen=True)
class KeptCase:
    """Both label maps of a case and their geometry."""

    prediction: KeptLabels
    reference: KeptLabels
    geometry: Geometry

    @property
    def nbytes(self) -> int:
        """The memory that it takes."""
        return len(self.prediction.block) + len(self.reference.block)


def keep_labels(labels: NDArray[np.integer]) -> KeptLabels | None:
    """A label map compressed; None if it is too large, or if it would take more than a quarter of its size."""
    if not 0 < labels.nbytes <= LARGEST:
        return None
    content: Any = np.ascontiguousarray(labels).reshape(-1).view(np.uint8)
    block = imagecodecs.lz4_encode(content)
    return KeptLabels(labels.shape, labels.dtype, bytes(block)) if 4 * len(block) <= labels.nbytes else None


def within_budget(cases: Iterable[KeptCase | None], budget: int = KEPT_BYTES) -> Iterator[KeptCase | None]:
    """The cases in their order, with None for each that would exceed the budget in bytes."""
    for case in cases:
        if case is None or case.nbytes > budget:
            yield None
        else:
            budget -= case.nbytes
            yield case
