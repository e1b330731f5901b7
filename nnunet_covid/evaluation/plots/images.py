"""Finding and reading the images behind the overlays: one 2D slice, as grey values from 0 to 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.whole_nifti import is_whole

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
ENDINGS = (*PICTURES, ".nii.gz", ".nii", ".nrrd", ".mha")
CONTRAST = (0.5, 99.5)  # percentiles that become black and white


def find_image(folder: Path, case: str) -> Path | None:
    """The image of a case: ``CASE_0000`` as nnU-Net calls its first channel, or ``CASE``."""
    for stem in (f"{case}_0000", case):
        for ending in ENDINGS:
            path = folder / f"{stem}{ending}"
            if path.is_file():
                return path
    return None


def read_grey_slice(path: Path, position: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """A slice of an image, stretched to [0, 1].

    Args:
        path: the image.
        position: index of the slice, for volumes.
        shape: of the case's label map, which the image must have.

    Raises:
        UserError: if the image cannot be read, is cut short or damaged, or has another shape.
    """
    try:
        if path.name.lower().endswith(PICTURES):
            with Image.open(path) as picture:
                array = np.asarray(picture.convert("F") if picture.mode.startswith("I") else picture.convert("L"))
        else:
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
            if not is_whole(path, array):
                raise UserError(f"{path}: is cut short or damaged; copy it again")
    except (OSError, RuntimeError) as e:
        raise UserError(f"{path}: cannot be read ({str(e).strip().splitlines()[-1]})") from e
    if array.shape != shape:
        raise UserError(f"{path}: shape {array.shape} differs from the label map's {shape}")
    grey = (array[position] if array.ndim == 3 else array).astype(np.float64)
    low, high = np.percentile(grey, CONTRAST)
    return np.clip((grey - low) / max(high - low, 1e-9), 0, 1)
