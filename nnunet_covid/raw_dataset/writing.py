"""From a scan in memory to nnU-Net's files, each written under a temporary name and renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.raw_dataset.case import Part, sha256_of
from nnunet_covid.raw_dataset.scan import Geometry, Scan


def write_case(folder: Path, name: str, part: Part, scan: Scan, *, lung_channel: bool, ending: str) -> dict[str, str]:
    """Write one case below the data set folder.

    The channels are the image and, if asked for, the lung mask with values 0 and 1.

    Returns:
        Relative file name to SHA-256 of what was written.
    """
    arrays: dict[str, NDArray[Any]] = {f"{part.value}/{name}_0000{ending}": scan.image}
    if lung_channel:
        if scan.lungs is None:
            raise AssertionError(f"{name}: lung mask channel without a lung mask")
        arrays[f"{part.value}/{name}_0001{ending}"] = scan.lungs.astype(np.uint8)
    if scan.label is not None and part is not Part.UNLABELLED:
        arrays[f"{part.label_folder}/{name}{ending}"] = scan.label
    digests = {}
    for relative, array in arrays.items():
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, array, scan.geometry, ending)
        digests[relative] = sha256_of(path)
    return digests


def write_array(path: Path, array: NDArray[Any], geometry: Geometry | None, ending: str) -> None:
    """Write a slice or volume as PNG or as an ITK format; the bytes depend on the arguments alone."""
    temporary = path.with_name(f"{path.name[: -len(ending)]}.tmp{ending}")
    if ending == ".png":
        Image.fromarray(array).save(temporary, format="PNG", compress_level=3)  # half the time of level 6
    else:
        _write_itk(temporary, array, geometry)
    temporary.replace(path)


def _write_itk(path: Path, array: NDArray[Any], geometry: Geometry | None) -> None:
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    if geometry is not None:
        image.SetSpacing(geometry.spacing)
        image.SetOrigin(geometry.origin)
        image.SetDirection(geometry.direction)
    sitk.WriteImage(image, str(path), useCompression=True)
