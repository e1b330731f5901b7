"""Continuous maps from the pre-processed grid back into the image, and as NIfTI in the image's geometry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

NIFTI = ".nii.gz"
TEMPORARY = ".tmp."
"""In front of the names of unfinished files."""
SLICE_SPACING = 999
"""nnU-Net's mark of a picture without a third axis."""


def to_image_grid(
    maps: torch.Tensor,
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Undo nnU-Net's resampling (linearly, as it does for logits), cropping and transposition.

    Args:
        maps: (channels, *spatial) on the pre-processed grid.
        properties: Of the case, as the preprocessor returned them.

    Returns:
        The maps (channels, *image axes), 0 where nnU-Net had cropped the image, and where it had not, (*image axes).
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    planned = configuration.spacing
    current = planned if len(planned) == len(shape) else [spacing[0], *planned]
    resampled = configuration.resampling_fn_probabilities(maps.numpy(), shape, current, spacing)
    whole = np.zeros((len(maps), *properties["shape_before_cropping"]), np.float32)
    inside = np.zeros(properties["shape_before_cropping"], bool)
    box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    whole[(slice(None), *box)] = np.asarray(resampled)
    inside[box] = True
    back = list(plans.transpose_backward)
    return whole.transpose([0, *(i + 1 for i in back)]), inside.transpose(back)


def write_map(path: Path, image_map: NDArray[np.float32], properties: dict[str, Any]) -> None:
    """Write a map as NIfTI with spacing, origin and direction of the image that it was computed from.

    A picture (PNG and the like) has no geometry but its pixels: it becomes a 2D NIfTI with spacing 1×1.

    Args:
        path: Ends in ``.nii.gz`` (or another ending of ITK's, where an ITK reader read the image); written under a
            temporary name and renamed.
        image_map: (z, y, x) as nnU-Net's reader orders the axes.
        properties: What the reader returned beside the image.
    """
    temporary = path.with_name(f"{TEMPORARY}{path.name}")
    if "nibabel_stuff" in properties:
        _write_nibabel(temporary, image_map, properties["nibabel_stuff"])
    else:
        sitk.WriteImage(_itk_image(image_map, properties), str(temporary), useCompression=True)
    temporary.replace(path)


def _itk_image(image_map: NDArray[np.float32], properties: dict[str, Any]) -> sitk.Image:
    geometry = properties.get("sitk_stuff")
    if geometry is None:
        spacing = [float(s) for s in properties["spacing"]]
        flat = image_map.shape[0] == 1 and spacing[0] == SLICE_SPACING
        image = sitk.GetImageFromArray(image_map[0] if flat else image_map)
        image.SetSpacing(spacing[:0:-1] if flat else spacing[::-1])
        return image
    flat = len(geometry["spacing"]) == 2
    image = sitk.GetImageFromArray(image_map[0] if flat else image_map)
    image.SetSpacing(geometry["spacing"])
    image.SetOrigin(geometry["origin"])
    image.SetDirection(geometry["direction"])
    if "original_orientation" in geometry:  # a reader that turns every image the same way
        image = sitk.DICOMOrient(image, geometry["original_orientation"])
    return image


def _write_nibabel(path: Path, image_map: NDArray[np.float32], geometry: dict[str, Any]) -> None:
    import nibabel
    from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

    array = image_map.transpose(2, 1, 0)
    if "reoriented_affine" in geometry:
        turned = nibabel.Nifti1Image(array, affine=geometry["reoriented_affine"])
        back = ornt_transform(axcodes2ornt("RAS"), io_orientation(geometry["original_affine"]))
        nibabel.save(turned.as_reoriented(back), path)
    else:
        nibabel.save(nibabel.Nifti1Image(array, affine=geometry["original_affine"]), path)
