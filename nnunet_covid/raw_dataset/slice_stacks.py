"""One NIfTI file that holds many unrelated slices: each slice is a case."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.raw_dataset.case import Part, SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.label_table import map_values
from nnunet_covid.raw_dataset.problems import Problems, UnusableFile
from nnunet_covid.raw_dataset.scan import Geometry, Scan
from nnunet_covid.raw_dataset.volume import array_of, read_grid, read_volume


def stacked_cases(
    root: Path, image_stem: str, mask_stem: str | None, prefix: str, part: Part, problems: Problems
) -> list[SourceCase]:
    """One case per slice of a stack of images and, if named, its stack of masks."""
    image = _stack(root, image_stem, problems)
    mask = _stack(root, mask_stem, problems) if mask_stem else None
    if image is None or (mask_stem and mask is None):
        return []
    try:
        size = read_grid(image).GetSize()
        if mask is not None and (mask_size := read_grid(mask).GetSize()) != size:
            problems.add(mask, f"has {mask_size} voxels, its image {size}; download both again")
            return []
    except UnusableFile as e:
        problems.add(e.path, e.reason)
        return []
    return [SourceCase(f"{prefix}_{i:03d}", image, mask, part=part, index=i) for i in range(size[2])]


def _stack(root: Path, stem: str, problems: Problems) -> Path | None:
    for ending in (".nii.gz", ".nii"):
        if (path := root / f"{stem}{ending}").is_file():
            return path
    problems.add(root / f"{stem}.nii.gz", "is missing; unpack the whole data set")
    return None


def read_stacked_slice(case: SourceCase, scheme: ClassScheme) -> Scan:
    """Read the slice ``case.index`` of a stack; slices of a stack have no common geometry.

    Raises:
        UnusableFile: If the stack cannot be read or its mask holds unknown values.
    """
    scan = Scan(image=np.ascontiguousarray(_voxels(case.image)[case.index]), geometry=_NO_GEOMETRY)
    if case.mask is not None:
        scan.label = map_values(_voxels(case.mask)[case.index], scheme.values, case.mask)
    return scan


_NO_GEOMETRY = Geometry((1.0, 1.0), (0.0, 0.0), (1.0, 0.0, 0.0, 1.0))


@lru_cache(maxsize=2)  # image and mask of the stack at hand
def _voxels(path: Path) -> NDArray[Any]:
    return array_of(read_volume(path), path)
