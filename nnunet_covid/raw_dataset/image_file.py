"""Reading one image of any supported kind: a picture, a volume file or the folder of a DICOM series."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid.raw_dataset.dicom_series import read_series
from nnunet_covid.raw_dataset.pairing import ending_of
from nnunet_covid.raw_dataset.picture import PICTURE_ENDINGS, read_grey
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.volume import array_of, geometry_of, read_volume

AIR_BELOW = -200
"""A grey scale never goes below zero; Hounsfield units do so wherever there is fat or air."""


def read_scan(path: Path) -> Scan:
    """The image alone; Hounsfield units are recognised by values below ``AIR_BELOW``.

    Raises:
        UnusableFile: If the image cannot be read.
    """
    if ending_of(path, PICTURE_ENDINGS) is not None and not path.is_dir():
        return Scan(image=read_grey(path))
    image = read_series(path) if path.is_dir() else read_volume(path)
    array = array_of(image, path)
    return Scan(image=array, geometry=geometry_of(image), is_hu=bool(array.min() < AIR_BELOW))
