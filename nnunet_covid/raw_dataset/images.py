"""One image of any kind: a picture, a volume file or the folder of a DICOM series. Read alone, and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.files import replacing
from nnunet_covid.geometry import Geometry
from nnunet_covid.raw_dataset.pictures import read_grey
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.source import is_picture
from nnunet_covid.raw_dataset.volumes import array_of, read_volume

AIR_BELOW = -200
"""A grey scale never goes below zero; Hounsfield units do so wherever there is fat or air."""


def read_scan(path: Path) -> Scan:
    """The image alone; Hounsfield units are recognised by values below ``AIR_BELOW``.

    Raises:
        UnusableFile: If the image cannot be read.
    """
    if is_picture(path):
        return Scan(image=read_grey(path))
    image = read_volume(path)
    array = array_of(image, path)
    return Scan(image=array, geometry=Geometry.of_itk(image), is_hu=bool(array.min() < AIR_BELOW))


def write_image(path: Path, array: NDArray[Any], geometry: Geometry | None) -> None:
    """Write a slice or volume as PNG or as an ITK format; the bytes depend on the arguments alone."""
    with replacing(path) as unfinished:
        if path.suffix.lower() == ".png":
            Image.fromarray(array).save(unfinished, format="PNG", compress_level=3)  # half the time of level 6
            return
        image = sitk.GetImageFromArray(array)
        if geometry is not None:
            image.SetSpacing(geometry.spacing)
            image.SetOrigin(geometry.origin)
            image.SetDirection(geometry.direction)
        sitk.WriteImage(image, str(unfinished), useCompression=True)
