"""Which classes the label maps hold, and how the values or colours of a source mask become them, by explicit tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.dataset_json import ignore_label, lesion_values
from nnunet_covid.label_maps import MOST_CLASSES, Labels, distinct_values, listed_values, whole_numbers
from nnunet_covid.raw_dataset.source import UnusableFile, is_lossy

SNAP_DISTANCE = 40.0
"""Colours this close (Euclidean, 8-bit RGB) to one of the table are taken for it; half way between two of
the colours in use, the distance is at least 64."""


@dataclass(frozen=True)
class ClassScheme:
    """One way of presenting a data set's classes to nnU-Net.

    Attributes:
        values: Value in the source mask to value in the label map; a value not listed is an error.
        labels: ``dataset.json``'s ``labels``: name to value, or to the values that make up a region.
        regions_class_order: For region labels, the value that each region writes, in order.
        colours: For masks that are colour pictures, colour to *source* value.
    """

    values: Mapping[int, int]
    labels: Mapping[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)

    @property
    def ignore(self) -> int | None:
        """The value of what is not labelled, where there is one."""
        return ignore_label(self.labels)

    @property
    def lesions(self) -> list[int]:
        """The values that mark a lesion: neither lungs or another organ beside lesions, nor what is not labelled."""
        return sorted({value for values in lesion_values(self.labels).values() for value in values})

    def dataset_json_entries(self) -> dict[str, Any]:
        """The entries of ``dataset.json`` that describe this scheme."""
        labels = {name: list(value) if isinstance(value, tuple) else value for name, value in self.labels.items()}
        entries: dict[str, Any] = {"labels": labels}
        if self.regions_class_order is not None:
            entries["regions_class_order"] = list(self.regions_class_order)
        return entries


def binary(name: str, foreground: int = 1) -> ClassScheme:
    """Background and one class whose source value is ``foreground``."""
    return ClassScheme(values={0: 0, foreground: 1}, labels={"background": 0, name: 1})


def map_values(values: NDArray[Any], table: Mapping[int, int], path: Path) -> NDArray[np.uint8]:
    """Class index of every pixel.

    Args:
        values: Source mask of any shape; nearly whole numbers count as whole.
        table: Source value to class index.
        path: The file, for the message.

    Raises:
        UnusableFile: If the mask holds a fraction or a value outside the table.
    """
    labels = whole_labels(values, path)
    found = distinct_values(labels)
    if outside := [value for value in found if value not in table]:
        allowed = ", ".join(map(str, table))
        reason = (
            f"mask holds {len(outside)} values outside the label table ({listed_values(outside)}; allowed: {allowed})"
        )
        raise UnusableFile(path, f"{reason}; {_remedy(path, outside)}")
    classes = np.zeros(labels.shape, dtype=np.uint8)
    for value in found:
        if table[value] != 0:
            classes[labels == value] = table[value]
    return classes


def whole_labels(values: NDArray[Any], path: Path) -> Labels:
    """The values of a mask as integers.

    Raises:
        UnusableFile: If any is a fraction.
    """
    try:
        return whole_numbers(values)
    except ValueError as e:
        raise UnusableFile(path, f"mask {e}") from e


def _remedy(path: Path, outside: Sequence[int]) -> str:
    """What to do about values that no class has."""
    if len(outside) > MOST_CLASSES and not is_lossy(path):
        return (
            "so many are those of an image: are image and mask exchanged? Else export it without resizing or smoothing"
        )
    if is_lossy(path):
        return "JPEG changes values: export the mask as PNG"
    if -1 in outside:
        return "name them, too; -1, where it marks what is not labelled, as ignore=-1"
    return "export it without resizing or smoothing, or name what these values mean"


def map_colours(
    pixels: NDArray[np.uint8], table: Mapping[tuple[int, int, int], int], path: Path
) -> tuple[NDArray[np.uint8], int]:
    """Class index of every pixel by its nearest colour, and how many pixels had to be snapped to one.

    Args:
        pixels: RGB or RGBA, shape (y, x, 3 or 4); alpha is not looked at.
        table: Colour to class index.
        path: The file, for the message.

    Raises:
        UnusableFile: If a pixel is farther than ``SNAP_DISTANCE`` from every colour.
    """
    colours = np.array(list(table), dtype=np.float32)  # (classes, 3)
    classes = np.array(list(table.values()), dtype=np.uint8)
    codes = pixels[..., :3].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    distinct, inverse = np.unique(codes, return_inverse=True)
    found = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=-1)
    distance = np.linalg.norm(found[:, None].astype(np.float32) - colours[None], axis=-1)  # (found, classes)
    nearest = distance.min(axis=1)
    inverse = inverse.reshape(pixels.shape[:2])
    far = nearest > SNAP_DISTANCE
    if far.any():
        worst = tuple(int(channel) for channel in found[nearest.argmax()])
        reason = (
            f"{int(far[inverse].sum())} pixels match no colour of the label table (for example {worst}; "
            f"allowed: {', '.join(map(str, table))}); export the mask without resizing or JPEG compression"
        )
        raise UnusableFile(path, reason)
    return classes[distance.argmin(axis=1)][inverse], int((nearest > 0)[inverse].sum())
