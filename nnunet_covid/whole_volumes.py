"""Volume files read and written by ITK, whole or not at all; what their headers say stands in ``volume_files``."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunet_covid.errors import reason_of
from nnunet_covid.files import replacing
from nnunet_covid.header_claims import false_claim_of
from nnunet_covid.volume_files import NOT_FINITE, header_fault, loses_values, one_volume, unreadable
from nnunet_covid.whole_files import is_whole, require_written


def believed_header(path: Path) -> Any:
    """An ITK reader that has read the header of a volume file: size, spacing, origin and direction.

    Raises:
        ValueError: In one sentence with the remedy, if ITK cannot read it, or it cannot be believed.
    """
    if fault := header_fault(path):
        raise ValueError(fault)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as e:
        raise ValueError(unreadable(e)) from e
    if claim := false_claim_of(reader, path):
        raise ValueError(claim)
    return reader


def whole_volume(path: Path) -> Any:
    """The SimpleITK image of a volume file that is whole and one volume of real numbers.

    Raises:
        ValueError: In one sentence with the remedy, if it is not, or for what :func:`believed_header` raises it.
    """
    reader = believed_header(path)
    try:
        image = reader.Execute()
        whole = is_whole(path, sitk.GetArrayViewFromImage(image))
    except (OSError, RuntimeError) as e:
        raise ValueError(unreadable(e)) from e
    if not whole:
        raise ValueError("is cut short or damaged; copy it again")
    if loses_values(path, sitk.GetArrayViewFromImage(image)):
        raise ValueError(NOT_FINITE)
    image, fault = one_volume(image)
    if fault:
        raise ValueError(fault)
    return image


def write_volume(image: Any, path: Path) -> None:
    """Write a SimpleITK image, compressed, under a temporary name, then renamed.

    Raises:
        OSError: If it could not be written as a whole.
    """
    with replacing(path) as unfinished:
        try:
            sitk.WriteImage(image, str(unfinished), useCompression=True)
        except RuntimeError as e:
            raise OSError(errno.EIO, reason_of(e), str(path)) from e
        require_written(unfinished, sitk.GetArrayViewFromImage(image), path)
