"""COVID-19 CT Segmentation by MedSeg: 100 unrelated slices stacked in one NIfTI file.

The values look like Hounsfield units, but were guessed slice by slice from JPEG pictures: the channel is named
``grey_ct``, so that nnU-Net normalises every slice on its own. The patients of the slices are not known.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.dataset_json import GREY
from nnunet_covid.geometry import Geometry

INFO = raw.DatasetInfo(
    number=503,
    name="MedSeg100",
    command="medseg-100",
    title="COVID-19 CT Segmentation data set, 100 slices",
    paper="MedSeg and the Italian Society of Medical and Interventional Radiology, 2020",
    url="https://medicalsegmentation.com/covid19/",
    licence="CC0",
    expected_files=("tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz (optional, no masks)"),
)


NO_GEOMETRY = Geometry((1.0, 1.0), (0.0, 0.0), raw.PLANE)
"""The slices of a stack have nothing in common."""

MEDSEG_SCHEMES = {
    "exclusive": raw.ClassScheme(
        values={0: 0, 1: 1, 2: 2, 3: 3},
        labels={"background": 0, "ground_glass_opacity": 1, "consolidation": 2, "pleural_effusion": 3},
    ),
    "regions": raw.ClassScheme(
        values={0: 0, 1: 1, 2: 2, 3: 0},
        labels={"background": 0, "infection": (1, 2), "consolidation": 2},
        regions_class_order=(1, 2),
    ),
    "infection": raw.ClassScheme(values={0: 0, 1: 1, 2: 1, 3: 0}, labels={"background": 0, "infection": 1}),
}
"""Pleural effusion is fluid around the lung, not infected lung: only the first scheme keeps it."""


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """One case per slice of the stacks."""
    root = raw.find_root(source, "tr_im.nii*", INFO.expected_files)
    cases = stacked_cases(root, "tr_im", "tr_mask", "medseg100", raw.Part.TRAINING, problems)
    if list(root.glob("val_im.nii*")):
        cases += stacked_cases(root, "val_im", None, "medseg100_val", raw.Part.TEST, problems)
    return cases


def stacked_cases(
    root: Path, image_stem: str, mask_stem: str | None, prefix: str, part: raw.Part, problems: raw.Problems
) -> list[raw.SourceCase]:
    """One case per slice of a stack of images and, if named, its stack of masks."""
    image = _stack(root, image_stem, problems)
    mask = _stack(root, mask_stem, problems) if mask_stem else None
    if image is None or (mask_stem and mask is None):
        return []
    with problems.collecting():
        size = raw.read_header(image).GetSize()
        if len(size) < 3:
            raise raw.UnusableFile(image, "is a single slice, expected is a stack of them; download it again")
        if mask is None or (mask_size := raw.read_header(mask).GetSize()) == size:
            return [raw.SourceCase(f"{prefix}_{i:03d}", image, mask, part=part, index=i) for i in range(size[2])]
        problems.add(mask, f"has {mask_size} voxels, its image {size}; download both again")
    return []


def _stack(root: Path, stem: str, problems: raw.Problems) -> Path | None:
    for ending in (".nii.gz", ".nii"):
        if (path := root / f"{stem}{ending}").is_file():
            return path
    problems.add(root / f"{stem}.nii.gz", "is missing; unpack the whole data set")
    return None


def read_stacked_slice(case: raw.SourceCase, scheme: raw.ClassScheme) -> raw.Scan:
    """Read the slice ``case.index`` of a stack; slices of a stack have no common geometry.

    Raises:
        UnusableFile: If the stack cannot be read or its mask holds unknown values.
    """
    scan = raw.Scan(image=np.ascontiguousarray(_voxels(case.image)[case.index]), geometry=NO_GEOMETRY)
    if case.mask is not None:
        scan.label = raw.map_values(_voxels(case.mask)[case.index], scheme.values, case.mask)
    return scan


@lru_cache(maxsize=2)  # image and mask of the stack at hand
def _voxels(path: Path) -> NDArray[Any]:
    return raw.read_voxels(path)


RECIPE = raw.Recipe(INFO, find_cases, read_stacked_slice, schemes=MEDSEG_SCHEMES, channel=GREY, has_volumes=False)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
