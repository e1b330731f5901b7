"""Label maps and maps, written in the format and geometry of the image that they belong to; images copied whole."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.files import replacing
from nnunet_covid.nnunet.cases import spacing_file
from nnunet_covid.whole_files import require_written
from nnunet_covid.whole_volumes import write_volume

SLICE_SPACING = 999
"""nnU-Net's mark of a picture without a third axis."""


def copy_image(source: Path, target: Path, *, image: bool = True) -> None:
    """Copy an image or a label map, with the file beside it in which a 3D TIFF has its spacing."""
    shutil.copyfile(source, target)
    spacing = spacing_file(source, image=image)
    if spacing.is_file():
        shutil.copyfile(spacing, spacing_file(target, image=image))


def write_labels(
    path: Path, labels: NDArray[Any], properties: dict[str, Any], reader: Any, *, image: bool = False
) -> None:
    """Write whole numbers (z, y, x) with nnU-Net's writer, under a temporary name, then renamed.

    Args:
        image: Whether the path is that of an image's channel, ``CASE_0001``.
    """
    with replacing(path) as unfinished:
        fill_labels(unfinished, path, labels, properties, reader, image=image)


def fill_labels(
    unfinished: Path, path: Path, labels: NDArray[Any], properties: dict[str, Any], reader: Any, *, image: bool = False
) -> None:
    """Write whole numbers (z, y, x) with nnU-Net's writer under the name that :func:`files.replacing` gave for a path.

    The arguments are those of :func:`write_labels`.

    Raises:
        OSError: If it could not be written as a whole.
    """
    reader.write_seg(labels, str(unfinished), properties)
    require_written(unfinished, np.ascontiguousarray(labels), path)
    spacing = unfinished.with_suffix(".json")  # nnU-Net's writer of 3D TIFF leaves it
    if spacing.is_file():
        spacing.replace(spacing_file(path, image=image))


def write_channel(
    path: Path, channel: NDArray[Any], properties: dict[str, Any], reader: Any, *, image: bool = False
) -> None:
    """Write one channel (z, y, x) in the format and geometry of an image, under a temporary name, then renamed.

    The arguments are those of :func:`write_labels`. Whole numbers go into any format; fractions need one that ITK or
    nibabel reads.
    """
    if channel.dtype == np.uint8 and path.suffix == ".png":
        with replacing(path) as unfinished:
            Image.fromarray(channel[0]).save(unfinished, format="PNG")  # nnU-Net's writer turns 255 into 16 bits
    elif channel.dtype.kind in "ui":
        write_labels(path, channel, properties, reader, image=image)
    else:
        write_map(path, channel, properties)


def write_map(path: Path, image_map: NDArray[np.float32], properties: dict[str, Any]) -> None:
    """Write a map as NIfTI with spacing, origin and direction of the image that it was computed from.

    A picture (PNG and the like) has no geometry but its pixels: it becomes a 2D NIfTI with spacing 1×1.

    Args:
        path: Ends in ``.nii.gz`` (or another ending of ITK's, where an ITK reader read the image); written under a
            temporary name and renamed.
        image_map: (z, y, x) as nnU-Net's reader orders the axes.
        properties: What the reader returned beside the image.
    """
    if "nibabel_stuff" not in properties:
        write_volume(_itk_image(image_map, properties), path)
        return
    with replacing(path) as unfinished:
        _write_nibabel(unfinished, image_map, properties["nibabel_stuff"])


def _itk_image(image_map: NDArray[np.float32], properties: dict[str, Any]) -> sitk.Image:
    geometry = properties.get("sitk_stuff")
    if geometry is None:
        spacing = [float(s) for s in properties["spacing"]][::-1]
        geometry = {"spacing": spacing[:2] if image_map.shape[0] == 1 and spacing[2] == SLICE_SPACING else spacing}
    image = sitk.GetImageFromArray(image_map[0] if len(geometry["spacing"]) == 2 else image_map)
    image.SetSpacing(geometry["spacing"])
    if "origin" in geometry:
        image.SetOrigin(geometry["origin"])
        image.SetDirection(geometry["direction"])
    if "original_orientation" in geometry:  # a reader that turns every image the same way
        image = sitk.DICOMOrient(image, geometry["original_orientation"])
    return image


def _write_nibabel(path: Path, image_map: NDArray[np.float32], geometry: dict[str, Any]) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    affine = geometry.get("reoriented_affine", geometry["original_affine"])
    image = nibabel.Nifti1Image(image_map.transpose(2, 1, 0), affine=affine)
    if "reoriented_affine" in geometry:
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry["original_affine"]))
        image = image.as_reoriented(back)
    nibabel.save(image, path)
