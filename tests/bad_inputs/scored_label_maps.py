"""Label maps that ``evaluate`` cannot score: their grid is not known, or they are no single label map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import odd_volumes
from image_files import blob, write_volume

from bad_inputs.registry import BadInput, Kind
from bad_inputs.volume_headers import REMEDY, SHEARED, UPRIGHT, meta_image, nifti, nrrd

MASK = blob((4, 8, 8), 0)
EVALUATE = "nnunet-covid evaluate predicted reference --labels infection=1 --quiet"


def with_a_nan(path: Path) -> None:
    array = MASK.astype(np.float32)
    array[0, 0, 0] = np.nan
    write_volume(path, array)


def layers_and_one(folder: Path) -> None:
    odd_volumes.layered(folder / "predicted/a.nrrd", MASK, MASK)
    write_volume(folder / "reference/a.nrrd", MASK, spacing=odd_volumes.SPACING)


def blank_reference(folder: Path) -> None:
    write_volume(folder / "predicted/a.nii.gz", MASK)
    write_volume(folder / "reference/a.nii.gz", MASK, spacing=(1, 1, 1), origin=(0, 0, 0))


def scored(name: str, situation: str, file: str, write: Callable[[Path], None], *says: str) -> BadInput:
    """A prediction and a reference that are the same file."""

    def make(folder: Path) -> None:
        for part in ("predicted", "reference"):
            write(folder / part / file)

    return BadInput(f"scored_{name}", Kind.UNITS, situation, EVALUATE, make, (f"predicted/{file}", *says))


BAD_INPUTS = [
    scored(
        "size_zero",
        "a voxel size of 0 in label maps",
        "a.nii",
        nifti(MASK, pixdim_3=0.0),
        "0 (field pixdim, axis 3)",
        REMEDY,
    ),
    scored("sheared", "sheared label maps", "a.nii", nifti(MASK, srow=SHEARED), UPRIGHT),
    scored(
        "sheared_nrrd",
        "sheared label maps as NRRD",
        "a.nrrd",
        nrrd(MASK, space_directions="(6,0,0) (0,6,0) (0,1.6,6)"),
        UPRIGHT,
    ),
    scored(
        "size_missing",
        "label maps without voxel size",
        "a.mha",
        meta_image(MASK, ElementSpacing=None),
        "names no voxel size",
        REMEDY,
    ),
    scored(
        "layers",
        "layers in label maps",
        "a.nrrd",
        lambda path: odd_volumes.layered(path, MASK, MASK),
        "several values per voxel (layers, or colours); export one value",
    ),
    scored(
        "four_axes",
        "label maps with two phases",
        "a.mha",
        meta_image(np.stack([MASK, MASK])),
        "holds 2 volumes; export one of them",
    ),
    scored(
        "complex",
        "complex label maps",
        "a.nii",
        nifti(MASK.astype(np.float64), datatype=32),
        "holds complex numbers; export one real value per voxel",
    ),
    scored("nan", "a label map with a value that is no number", "a.nii.gz", with_a_nan, "no finite numbers"),
    BadInput(
        "scored_layers_and_one",
        Kind.UNUSED,
        "layers in the predictions alone",
        EVALUATE + " --no-distances",
        layers_and_one,
        ("predicted/a.nrrd: has several values per voxel (layers, or colours); export one value",),
    ),
    BadInput(
        "scored_blank_reference",
        Kind.UNITS,
        "references with a blank header",
        EVALUATE,
        blank_reference,
        ("a: spacing (2.5, 0.7, 0.8) of the prediction differs", "copy the reference's header"),
    ),
]
