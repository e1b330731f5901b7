"""Images in other units, lying otherwise than expected, or without the lungs that are looked for in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import odd_volumes
from chest_phantom import chest_slice, chest_volume
from image_files import blob, grey, hounsfield, write_picture, write_volume

from bad_inputs.ingredients import several, volumes
from bad_inputs.registry import BadInput, Kind
from nnunet_covid.raw_dataset.scan import to_8_bit

CONVERT = "nnunet-covid convert folder source -o raw --workers 1"
LUNGS = "nnunet-covid lung-mask a.nii.gz lungs.nii.gz --method threshold"
MADE_FOR_AXIAL = "lungs are found in axial slices and in whole volumes"
CHEST = chest_volume(8, 64)[0].astype(np.int16)
SPACING = (5.0, 5.0, 12.0)
FLAT = {"spacing": (6, 6), "origin": (0, 0), "direction": (1, 0, 0, 1)}


def image(folder: Path, name: str, array: np.ndarray) -> None:
    write_volume(folder / f"source/images/{name}.nii.gz", array, spacing=SPACING)


def one_of_three_in_grey(folder: Path) -> None:
    for seed, name in enumerate("abc"):
        image(folder, name, to_8_bit(CHEST, -1250, 250) if name == "b" else hounsfield((4, 8, 8), seed))


def one_of_three_without_rescaling(folder: Path) -> None:
    for name in "abc":
        image(folder, name, CHEST + (1024 if name == "c" else 0))


def grey_volumes(folder: Path) -> None:
    image(folder, "a", grey((4, 8, 8), 0))


def stored_values_with_padding(folder: Path) -> None:
    array = CHEST + 1024
    array[:, :4] = -2000
    image(folder, "a", array)


def without_lungs(folder: Path) -> None:
    image(folder, "a", np.full((4, 8, 8), -1000, np.int16))


def flat(*shape: int) -> Callable[[Path], None]:
    return lambda folder: image(folder, "a", hounsfield(shape, 0))


def flat_two_axes(folder: Path) -> None:
    write_volume(folder / "source/images/a.nii.gz", hounsfield((8, 8), 0), **FLAT)


def cut(*place: slice | int) -> Callable[[Path], None]:
    return lambda folder: write_volume(folder / "a.nii.gz", CHEST[place], spacing=SPACING)


def inverted_slice(folder: Path) -> None:
    write_picture(folder / "a.png", 255 - to_8_bit(chest_slice()[0], -1250, 250))


def one_of_three_inverted(folder: Path) -> None:
    picture = to_8_bit(chest_slice()[0], -1250, 250)
    for name in "abc":
        write_picture(folder / f"source/images/{name}.png", 255 - picture if name == "c" else picture)


def blank_mask(folder: Path) -> None:
    write_volume(folder / "source/masks/b.nii.gz", blob((6, 20, 30), 1), spacing=(1, 1, 1), origin=(0, 0, 0))


def blank_image(folder: Path) -> None:
    write_volume(folder / "source/images/b.nii.gz", hounsfield((6, 20, 30), 1), spacing=(1, 1, 1), origin=(0, 0, 0))


def flat_mask(folder: Path) -> None:
    write_volume(folder / "source/masks/b.nii.gz", blob((20, 30), 1), **FLAT)


def flat_image(folder: Path) -> None:
    write_volume(folder / "source/images/b.nii.gz", hounsfield((20, 30), 1), **FLAT)
    flat_mask(folder)


def blank_mask_of_another_size(folder: Path) -> None:
    for number in (0, 1):
        write_volume(folder / f"source/volume-{number}.nii", hounsfield((4, 8, 8), number))
        shape = (4, 8, 8) if number == 0 else (4, 8, 7)
        write_volume(folder / f"source/segmentation-{number}.nii", blob(shape, 0), spacing=(1, 1, 1), origin=(0, 0, 0))


def layered_mask(folder: Path) -> None:
    image(folder, "a", hounsfield((4, 8, 8), 0))
    odd_volumes.layered(folder / "source/masks/a.seg.nrrd", blob((4, 8, 8), 0), blob((4, 8, 8), 1))


def units(
    name: str, situation: str, command: str, make: Callable[[Path], object], *says: str, kind: Kind = Kind.UNITS
) -> BadInput:
    return BadInput(f"units_{name}", kind, situation, command, make, says)


BLANK = "header is blank (1 mm voxels at the origin)"
COPY = "where both hold the same voxels in the same order, copy the other header onto the blank one"

BAD_INPUTS = [
    units(
        "one_in_grey",
        "a volume in grey values among others in Hounsfield units",
        CONVERT,
        one_of_three_in_grey,
        "source holds grey values in images/b.nii.gz, but Hounsfield units in the other images",
        "bring all to one scale, or convert them as two data sets",
    ),
    units(
        "one_not_rescaled",
        "a volume of stored values among others in Hounsfield units",
        f"{CONVERT} --crop 40 40 --lung-method threshold",
        one_of_three_without_rescaling,
        "source holds grey values in images/c.nii.gz, but Hounsfield units in the other images",
    ),
    units(
        "window_of_grey_values",
        "a window for volumes in grey values",
        f"{CONVERT} --window -1250 250",
        grey_volumes,
        "source/images/a.nii.gz: holds values from 0 to 255, no Hounsfield units; leave the window out",
    ),
    units(
        "lungs_not_found_for_the_channel",
        "a lung mask channel for stored values with padding",
        f"{CONVERT} --lung-mask-channel --lung-method threshold",
        stored_values_with_padding,
        "source/images/a.nii.gz: no lungs are found in it, on which crop and lung mask channel depend",
        "it holds values from -2000 to 1064: export it in Hounsfield units, give its lung mask, or take it out",
    ),
    units(
        "lungs_not_found_for_the_crop",
        "a crop around the lungs of a volume without lungs",
        f"{CONVERT} --crop 4 4 --lung-method threshold",
        without_lungs,
        "source/images/a.nii.gz: no lungs are found in it",
        "give its lung mask, or take it out",
    ),
    units(
        "slices_of_two_axes",
        "slices of an image that is one",
        f"{CONVERT} --slices all",
        flat_two_axes,
        "source/images/a.nii.gz: is a single axial slice, of which no slices can be cut; ask for none",
    ),
    units(
        "slices_of_one_slice",
        "slices of a volume one voxel high",
        f"{CONVERT} --slices all",
        flat(1, 8, 8),
        "source/images/a.nii.gz: is a single axial slice, of which no slices can be cut; ask for none",
    ),
    units(
        "slices_of_a_coronal_one",
        "slices of a volume one voxel deep",
        f"{CONVERT} --slices all",
        flat(8, 1, 8),
        "source/images/a.nii.gz: is a single coronal slice, of which no slices can be cut; ask for none",
    ),
    units(
        "crop_of_a_sagittal_one",
        "a crop around the lungs of a volume one voxel wide",
        f"{CONVERT} --crop 4 4",
        flat(8, 8, 1),
        f"source/images/a.nii.gz: is a single sagittal slice; {MADE_FOR_AXIAL}",
    ),
    units(
        "coronal_lungs",
        "lungs of a coronal slice",
        LUNGS,
        cut(slice(None), slice(32, 33)),
        f"a.nii.gz: is a single coronal slice; {MADE_FOR_AXIAL}",
    ),
    units(
        "sagittal_lungs",
        "lungs of a sagittal slice",
        LUNGS,
        cut(slice(None), slice(None), slice(20, 21)),
        f"a.nii.gz: is a single sagittal slice; {MADE_FOR_AXIAL}",
    ),
    units(
        "inverted_lungs",
        "lungs of a slice on which air is bright",
        "nnunet-covid lung-mask a.png lungs.png --method threshold",
        inverted_slice,
        "a.png: its grey scale is inverted (air is bright); invert its values, or export it again",
    ),
    units(
        "one_inverted",
        "a slice on which air is bright among others",
        CONVERT,
        one_of_three_inverted,
        "source holds inverted grey values in images/c.png, but grey values in the other images",
        "bring all to one scale",
    ),
    units(
        "lung_mask_in_two_files",
        "a lung mask as .mhd",
        "nnunet-covid lung-mask a.nii.gz lungs.mhd",
        cut(slice(None)),
        "the mask of a.nii.gz cannot be written as lungs.mhd; use .nii.gz or .nii or .nrrd or .mha",
        kind=Kind.OPTIONS,
    ),
    units(
        "window_without_a_number",
        "a window from nan",
        f"{CONVERT} --window nan 250",
        volumes,
        "the window nan 250: give two numbers, the lower end first",
        kind=Kind.OPTIONS,
    ),
    units(
        "lung_mask_in_capitals",
        "a lung mask as .NII.GZ",
        "nnunet-covid lung-mask a.nii.gz LUNGS.NII.GZ",
        cut(slice(None)),
        "the mask of a.nii.gz cannot be written as LUNGS.NII.GZ; use .nii.gz or .nii or .nrrd or .mha",
        kind=Kind.OPTIONS,
    ),
    units(
        "blank_mask",
        "a mask with a blank header",
        CONVERT,
        several(volumes, blank_mask),
        f"source/masks/b.nii.gz: its {BLANK}, that of its image is not",
        COPY,
    ),
    units(
        "blank_mask_resampled",
        "a mask with a blank header, to be resampled",
        f"{CONVERT} --resample-masks",
        several(volumes, blank_mask),
        f"source/masks/b.nii.gz: its {BLANK}, that of its image is not",
        COPY,
    ),
    units(
        "blank_image",
        "an image with a blank header",
        CONVERT,
        several(volumes, blank_image),
        f"source/masks/b.nii.gz: that of its image {BLANK}, its own is not",
        COPY,
    ),
    units(
        "blank_image_resampled",
        "an image with a blank header, to which its mask is to be resampled",
        f"{CONVERT} --resample-masks",
        several(volumes, blank_image),
        f"source/masks/b.nii.gz: that of its image {BLANK}, its own is not",
        COPY,
    ),
    units(
        "flat_mask_resampled",
        "a mask of two axes, to be resampled to a volume",
        f"{CONVERT} --resample-masks",
        several(volumes, flat_mask),
        "source/masks/b.nii.gz: has 30×20 voxels, its image 30×20×6; export the mask on the grid of the image",
    ),
    units(
        "slice_among_volumes",
        "a NIfTI of two axes among volumes",
        CONVERT,
        several(volumes, flat_image),
        "source holds slices of two axes as well as volumes (b.nii.gz); convert them as two data sets, or take out",
    ),
    units(
        "blank_mask_of_another_size",
        "a LiTS mask with a blank header and another size",
        "nnunet-covid convert lits source -o raw --workers 1",
        blank_mask_of_another_size,
        "source/segmentation-1.nii: has 7×8×4 voxels, its image 8×8×4; export the mask",
    ),
    units(
        "layered_mask",
        "a mask with layers of 3D Slicer",
        CONVERT,
        layered_mask,
        "source/masks/a.seg.nrrd: has several values per voxel (layers, or colours); export one value",
        kind=Kind.UNUSED,
    ),
]
