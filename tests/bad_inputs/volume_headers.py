"""Volume files whose header cannot be believed, or whose voxels lie elsewhere, in a folder of one's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import odd_volumes
from image_files import hounsfield, write_volume

from bad_inputs.registry import BadInput, Kind

IMAGE = hounsfield((4, 8, 8), 0)
SHEARED = (-6.0, 0, 0, 0, 0, -6, 1.6, 0, 0, 0, 6, 0)
MIRRORED = (6.0, 0, 0, 0, 0, -6, 0, 0, 0, 0, 6, 0)
REMEDY = "write the true size in mm into the header, or export the image again"
UPRIGHT = "its axes are not at right angles; resample the image to an upright grid"


def nifti(array: Any = IMAGE, **fields: Any) -> Callable[[Path], None]:
    return partial(odd_volumes.nifti, array=array, **fields)


def meta_image(array: Any = IMAGE, **lines: str | None) -> Callable[[Path], None]:
    return partial(odd_volumes.meta_image, array=array, **lines)


def nrrd(array: Any = IMAGE, **lines: str | None) -> Callable[[Path], None]:
    return partial(odd_volumes.nrrd, array=array, **lines)


def without_data(path: Path) -> None:
    odd_volumes.meta_image(path, IMAGE)
    path.with_suffix(".raw").unlink()


def cut_data(path: Path) -> None:
    odd_volumes.meta_image(path, IMAGE)
    path.with_suffix(".raw").write_bytes(IMAGE.tobytes()[:-100])


def data_of_another(path: Path) -> None:
    odd_volumes.meta_image(path, IMAGE)
    path.with_suffix(".raw").write_bytes(np.stack([IMAGE, IMAGE]).tobytes())


def one_of_a_list_missing(path: Path) -> None:
    odd_volumes.meta_image(path, IMAGE, ElementDataFile="LIST\n0.raw\n1.raw\n2.raw\n3.raw")
    path.with_suffix(".raw").unlink()
    for index in (0, 1, 3):
        path.with_name(f"{index}.raw").write_bytes(IMAGE[index].tobytes())


def nrrd_without_data(path: Path) -> None:
    odd_volumes.nrrd(path, IMAGE)
    path.with_suffix(".raw").unlink()


def pair_without_image(path: Path) -> None:
    write_volume(path, IMAGE)
    path.with_suffix(".img").unlink()


def pair_with_cut_image(path: Path) -> None:
    write_volume(path, IMAGE)
    path.with_suffix(".img").write_bytes(path.with_suffix(".img").read_bytes()[:-100])


def with_value(value: float) -> Callable[[Path], None]:
    array = IMAGE.astype(np.float32)
    array[0, 0, 0] = value
    return lambda path: write_volume(path, array)


def converted(name: str, kind: Kind, situation: str, file: str, write: Callable[[Path], None], *says: str) -> BadInput:
    """One image in a folder of one's own."""
    path = f"source/images/{file}"
    command = "nnunet-covid convert folder source -o raw --workers 1"
    return BadInput(f"header_{name}", kind, situation, command, lambda folder: write(folder / path), (path, *says))


BAD_INPUTS = [
    converted(
        "pattern_of_text",
        Kind.HOSTILE,
        "data files by a pattern of text",
        "a.mhd",
        meta_image(ElementDataFile="a%s%n.raw 1 3 1"),
        "'a%s%n.raw 1 3 1' for its data files, no pattern of names; export it again",
    ),
    converted(
        "two_milliard_files",
        Kind.HOSTILE,
        "data files by a pattern without end",
        "a.mhd",
        meta_image(ElementDataFile="a%d.raw 1 2000000000"),
        "'a%d.raw 1 2000000000' for its data files, no pattern of names",
    ),
    converted(
        "size_zero",
        Kind.UNITS,
        "a NIfTI voxel size of 0",
        "a.nii",
        nifti(pixdim_3=0.0),
        "0 (field pixdim, axis 3)",
        REMEDY,
    ),
    converted(
        "size_nan",
        Kind.UNITS,
        "a NIfTI voxel size that is no number",
        "a.nii",
        nifti(pixdim_1=np.nan),
        "nan (field pixdim, axis 1)",
        REMEDY,
    ),
    converted(
        "size_negative",
        Kind.UNITS,
        "a negative NIfTI voxel size",
        "a.nii",
        nifti(pixdim_2=-6.0),
        "-6 (field pixdim, axis 2)",
        REMEDY,
    ),
    converted(
        "sizes_differ",
        Kind.UNITS,
        "a NIfTI header with two voxel sizes",
        "a.nii",
        nifti(pixdim=(1,) * 8),
        "two voxel sizes (1×1×1 in pixdim, 6×6×6 in srow_x",
        "export the image again",
    ),
    converted(
        "in_metres",
        Kind.UNITS,
        "a NIfTI header in metres",
        "a.nii",
        nifti(xyzt_units=1),
        "the voxel size 6000 mm (field pixdim",
        REMEDY,
    ),
    converted(
        "axes_blank",
        Kind.UNITS,
        "a NIfTI header without axes",
        "a.nii",
        nifti(srow=(0,) * 12),
        "its header is blank where the axes should stand (srow_x",
        "export the image again",
    ),
    converted(
        "quaternion_nan",
        Kind.UNITS,
        "a NIfTI quaternion that is no number",
        "a.nii",
        nifti(sform_code=0, quatern_0=np.nan),
        "blank where the axes should stand (quatern_b",
        "export the image again",
    ),
    converted(
        "two_orientations",
        Kind.UNITS,
        "a NIfTI header with left and right exchanged in one of its two orientations",
        "a.nii",
        nifti(srow=MIRRORED),
        "two orientations (srow_x … and quatern_b …)",
        "write the true one over the other",
    ),
    converted("sheared", Kind.UNITS, "a sheared NIfTI header", "a.nii", nifti(srow=SHEARED), UPRIGHT),
    converted(
        "nifti_2",
        Kind.DAMAGED,
        "a NIfTI-2 file",
        "a.nii",
        nifti(sizeof_hdr=540),
        "is a NIfTI-2 file, which ITK does not read; save it as NIfTI-1",
    ),
    converted(
        "analyze",
        Kind.UNITS,
        "an ANALYZE file",
        "a.hdr",
        nifti(magic=b""),
        "is an ANALYZE file, which does not say where left and right are; save it as NIfTI",
    ),
    converted(
        "no_voxels",
        Kind.DAMAGED,
        "an axis of length 0",
        "a.nii",
        nifti(dim_3=0),
        "its header announces 3 axes of [8, 8, 0] voxels; export it again",
    ),
    converted(
        "meta_size_missing",
        Kind.UNITS,
        "a MetaImage without voxel size",
        "a.mha",
        meta_image(ElementSpacing=None),
        "names no voxel size (field ElementSpacing)",
        REMEDY,
    ),
    converted(
        "meta_size_zero",
        Kind.UNITS,
        "a MetaImage voxel size of 0",
        "a.mha",
        meta_image(ElementSpacing="6 6 0"),
        "0 (field ElementSpacing, axis 3)",
        REMEDY,
    ),
    converted(
        "meta_micrometres",
        Kind.UNITS,
        "a MetaImage in micrometres",
        "a.mha",
        meta_image(DistanceUnits="um"),
        "its header gives the voxel size in um (field ElementSpacing)",
        REMEDY,
    ),
    converted(
        "meta_sheared",
        Kind.UNITS,
        "a sheared MetaImage",
        "a.mha",
        meta_image(TransformMatrix="1 0 0 0 1 0 0 .3 1"),
        UPRIGHT,
    ),
    converted(
        "meta_axes_zero",
        Kind.UNITS,
        "a MetaImage without axes",
        "a.mha",
        meta_image(TransformMatrix="0 0 0 0 0 0 0 0 0"),
        "blank where the axes should stand (TransformMatrix)",
        "export the image again",
    ),
    converted(
        "nrrd_size_missing",
        Kind.UNITS,
        "a NRRD without voxel size",
        "a.nrrd",
        nrrd(space=None, space_directions=None, space_origin=None),
        "names no voxel size (field spacings)",
        REMEDY,
    ),
    converted(
        "nrrd_size_nan",
        Kind.UNITS,
        "a NRRD voxel size that is no number",
        "a.nrrd",
        nrrd(space_directions="(6,0,0) (0,6,0) (0,0,nan)"),
        "nan (field space directions, axis 3)",
        REMEDY,
    ),
    converted(
        "nrrd_centimetres",
        Kind.UNITS,
        "a NRRD in centimetres",
        "a.nrrd",
        nrrd(space_units='"cm" "cm" "cm"'),
        "its header gives the voxel size in cm (field space directions)",
        REMEDY,
    ),
    converted(
        "nrrd_sheared",
        Kind.UNITS,
        "a sheared NRRD",
        "a.nrrd",
        nrrd(space_directions="(6,0,0) (0,6,0) (0,1.6,6)"),
        UPRIGHT,
    ),
    converted(
        "four_axes",
        Kind.UNUSED,
        "a NIfTI with three phases",
        "a.nii",
        nifti(np.zeros((4, 8, 12), np.int16), dim=(4, 4, 8, 4, 3, 1, 1, 1)),
        "holds 3 volumes; export one of them",
    ),
    converted(
        "four_axes_meta",
        Kind.UNUSED,
        "a MetaImage with two phases",
        "a.mha",
        meta_image(np.stack([IMAGE, IMAGE])),
        "holds 2 volumes; export one of them",
    ),
    converted(
        "five_axes",
        Kind.UNUSED,
        "a NIfTI with five axes",
        "a.nii",
        nifti(np.zeros((4, 8, 12), np.int16), dim=(5, 4, 8, 4, 1, 3, 1, 1)),
        "holds 3 volumes; export one of them",
    ),
    converted(
        "complex",
        Kind.DAMAGED,
        "complex voxels",
        "a.nii",
        nifti(IMAGE.astype(np.float64), datatype=32),
        "holds complex numbers; export one real value per voxel",
    ),
    converted(
        "colours",
        Kind.DAMAGED,
        "colours in a volume",
        "a.nii",
        nifti(np.zeros((4, 8, 24), np.uint8), dim_1=8, datatype=128, bitpix=24),
        "several values per voxel (layers, or colours); export one value",
    ),
    converted(
        "layers",
        Kind.UNUSED,
        "a NRRD with layers",
        "a.nrrd",
        nrrd(np.stack([IMAGE, IMAGE], -1)),
        "several values per voxel (layers, or colours); export one value",
    ),
    converted(
        "voxel_nan",
        Kind.DAMAGED,
        "a voxel that is no number",
        "a.nii.gz",
        with_value(np.nan),
        "holds voxels that are no finite numbers; replace them",
    ),
    converted(
        "voxel_infinite",
        Kind.DAMAGED,
        "an infinite voxel",
        "a.mha",
        with_value(-np.inf),
        "holds voxels that are no finite numbers; replace them",
    ),
    converted(
        "data_missing",
        Kind.STALE,
        "a .mhd without its .raw",
        "a.mhd",
        without_data,
        "its data file a.raw is missing; put it beside the header",
    ),
    converted(
        "data_cut",
        Kind.DAMAGED,
        "a .mhd whose .raw is cut short",
        "a.mhd",
        cut_data,
        "its data file a.raw is cut short, 412 of 512 bytes; copy it again",
    ),
    converted(
        "data_too_long",
        Kind.STALE,
        "a .mhd with the .raw of another image",
        "a.mhd",
        data_of_another,
        "its data file a.raw holds 1024 bytes, the header announces 512; copy both again",
    ),
    converted(
        "data_of_a_list_missing",
        Kind.STALE,
        "a .mhd with one of its files missing",
        "a.mhd",
        one_of_a_list_missing,
        "its data file 2.raw is missing; put it beside the header",
    ),
    converted(
        "nrrd_data_missing",
        Kind.STALE,
        "a .nhdr without its data file",
        "a.nhdr",
        nrrd_without_data,
        "its data file a.raw is missing; put it beside the header",
    ),
    converted(
        "pair_data_missing",
        Kind.STALE,
        "a .hdr without its .img",
        "a.hdr",
        pair_without_image,
        "its data file a.img is missing; put it beside the header",
    ),
    converted(
        "pair_data_cut",
        Kind.DAMAGED,
        "a .hdr whose .img is cut short",
        "a.hdr",
        pair_with_cut_image,
        "its data file a.img is cut short, 412 of 512 bytes; copy it again",
    ),
]
