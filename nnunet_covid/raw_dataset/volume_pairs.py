"""Reading a volume with its masks: file or DICOM series, masks on the same grid or resampled to it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.raw_dataset.case import SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.dicom_series import read_series
from nnunet_covid.raw_dataset.label_table import map_values
from nnunet_covid.raw_dataset.problems import Problems, UnusableFile
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.volume import (
    array_of,
    difference_of_grids,
    geometry_of,
    read_grid,
    read_volume,
    resampled_label,
)

_REMEDY = "export the mask on the grid of the image"


def check_grids(cases: list[SourceCase], problems: Problems) -> None:
    """Compare sizes and geometry in the headers of volume files; differing masks become problems."""
    for case in cases:
        try:
            if case.image.is_dir():
                continue
            image = read_grid(case.image)
            for mask in (case.mask, case.lungs):
                if mask is not None and (difference := difference_of_grids(read_grid(mask), image)):
                    problems.add(mask, f"{difference}; {_REMEDY}")
        except UnusableFile as e:
            problems.add(e.path, e.reason)


def read_volume_pair(case: SourceCase, scheme: ClassScheme, *, is_hu: bool = True, resample: bool = False) -> Scan:
    """Read image, mask and lung mask of one case.

    Args:
        case: The files.
        scheme: Table from source values to classes.
        is_hu: Whether the image holds Hounsfield units.
        resample: Whether masks on another grid are resampled to the image's in physical space; else they are
            refused.

    Raises:
        UnusableFile: If one of the files is not what it should be.
    """
    image = _read_image(case.image)
    scan = Scan(image=array_of(image, case.image), geometry=geometry_of(image), is_hu=is_hu)
    if case.mask is not None:
        scan.label = map_values(_read_mask(case.mask, image, resample), scheme.values, case.mask)
        if is_hu:
            scan.notes["mean_hu"] = mean_by_class(scan.image, scan.label)
    if case.lungs is not None:
        scan.lungs = _read_mask(case.lungs, image, resample) > 0
    return scan


def mean_by_class(image: NDArray[Any], label: NDArray[np.uint8]) -> dict[str, float]:
    """Mean intensity inside each class but the background."""
    return {str(value): round(float(image[label == value].mean()), 1) for value in np.unique(label) if value != 0}


@lru_cache(maxsize=1)
def _read_image(path: Path) -> sitk.Image:
    return read_series(path) if path.is_dir() else read_volume(path)


def _read_mask(path: Path, image: sitk.Image, resample: bool) -> NDArray[Any]:
    mask = read_volume(path)
    difference = difference_of_grids(mask, image)
    if difference and not resample:
        raise UnusableFile(path, f"{difference}; {_REMEDY}")
    if difference:
        voxels = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
        mask = resampled_label(mask, image)
        if voxels and not np.count_nonzero(sitk.GetArrayViewFromImage(mask)):
            raise UnusableFile(path, "does not overlap its image in space; check that both belong together")
    return array_of(mask, path)
