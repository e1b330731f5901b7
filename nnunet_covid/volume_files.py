"""The header of a volume file before ITK reads it: the files its voxels lie in, and what ITK would guess or pass over.

ITK reads a voxel size of zero as 1 mm, takes a sheared MetaImage or NRRD as it is, and of two voxel sizes in one NIfTI
header believes one. Of formats other than those of :mod:`nnunet_covid.volume_headers` nothing is said. Whether the
voxels are whole stands in :mod:`nnunet_covid.whole_volumes`.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.files import name_fault
from nnunet_covid.geometry import DIRECTION_TOLERANCE
from nnunet_covid.volume_headers import COMPLEX, Header, image_of_pair, opened, volume_header

BLOCK = 1 << 22
SIZES_AGREE = 0.01
"""Two voxel sizes in one header may differ by this share: some programs round one of them."""
VOXEL_MM = (0.01, 1000.0)
"""A voxel size outside of this is one in another unit than the header says."""
MILLIMETRES = {"", "?", "???", "none", "mm", "millimeter", "millimeters", "millimetre", "millimetres"}
"""What MetaImage and NRRD headers call their unit, or say where they name none; ITK takes any other for mm."""
NOT_UPRIGHT = "its axes are not at right angles; resample the image to an upright grid"
SAME_AXIS = 0.5
"""Cosine below which two directions are those of different axes, or opposite ones; a registration turns by less."""
TWO_ORIENTATIONS = (
    "its header gives two orientations (srow_x … and quatern_b …), of which some programs take the one and some the "
    "other; write the true one over the other, or export the image again"
)
NOT_FINITE = "holds voxels that are no finite numbers; replace them, in a CT by air (-1024)"
WITH_ALPHA = "holds grey values with transparency; save it in grey alone"
SEVERAL_VALUES = "has several values per voxel (layers, or colours); export one value per voxel"


def data_files(path: Path) -> tuple[Path, ...]:
    """The files behind a header that lie beside it; empty for a file that holds its voxels itself."""
    header = volume_header(path)
    if isinstance(header, Header):
        return header.data
    return image_of_pair(path) if header and path.name.lower().endswith(".hdr") else ()


def header_fault(path: Path) -> str | None:
    """Why the header of a volume file cannot be believed, with the remedy; ``None`` where nothing is wrong with it.

    A file that is no such header at all is left to the reader, which refuses it.
    """
    header = name_fault(path) or volume_header(path)
    if not isinstance(header, Header):
        return header
    if header.components != 1:
        return SEVERAL_VALUES
    return _fault_of_data(header) or _fault_of_spacing(header) or _fault_of_axes(header)


def without_sides(path: Path) -> str | None:
    """That a volume file does not say where left and right are, so that ITK guesses; ``None`` where it does."""
    header = volume_header(path)
    lacking = isinstance(header, Header) and header.lacks_sides
    return f"does not say where left and right are ({lacking})" if lacking else None


def loses_values(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether a file holds values that are no finite numbers, and that are zeros in what ITK read from it.

    Args:
        path: A volume file; of NIfTI files ITK's library turns such values into zeros, without a word.
        voxels: What ITK read. The file is read once more only where zeros are among them.
    """
    header = volume_header(path)
    if not isinstance(header, Header) or header.floats is None or bool(voxels.all()):
        return False
    kind, begin = header.floats
    with opened(header.data[0] if header.data else path) as stream:
        stream.read(begin)
        while block := stream.read(BLOCK):
            if not np.isfinite(np.frombuffer(block[: len(block) // 8 * 8], kind)).all():
                return True
    return False


def unreadable(error: Exception) -> str:
    """What ITK's refusal of a file means, with the remedy."""
    return known_refusal(error) or "cannot be read as an image; download or export it again"


def known_refusal(error: Exception) -> str | None:
    """What ITK or nnU-Net's readers mean by a refusal that does not say it, with the remedy; ``None`` for others."""
    if "orthonormal" in str(error):
        return NOT_UPRIGHT
    return WITH_ALPHA if "(RGB or RGBA)" in str(error) else None


def one_volume(image: Any) -> tuple[Any, str | None]:
    """A SimpleITK image without the axes of length one behind its third, and why it is no single volume, if so."""
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    return image, fault_of_kind(image.GetSize(), image.GetNumberOfComponentsPerPixel(), image.GetPixelIDTypeAsString())


def fault_of_kind(size: tuple[int, ...], components: int, pixel: str) -> str | None:
    """Why something is no single volume of real numbers, with the remedy.

    Args:
        size: Voxels along each axis, in ITK's order.
        components: Values per voxel.
        pixel: The name that SimpleITK has for the type of a voxel.
    """
    if math.prod(size[3:]) > 1:
        return f"holds {math.prod(size[3:])} volumes; export one of them"
    if components != 1:
        return SEVERAL_VALUES
    return COMPLEX if "complex" in pixel else None


def _fault_of_data(header: Header) -> str | None:
    if missing := [file.name for file in header.data if not file.is_file()]:
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        return f"its data file {missing[0]}{more} missing; put it beside the header, under this name"
    held = sum(file.stat().st_size for file in header.data)
    if header.data_bytes is None or held == header.data_bytes:
        return None
    name = header.data[0].name
    if held < header.data_bytes:
        return f"its data file {name} is cut short, {held} of {header.data_bytes} bytes; copy it again"
    return f"its data file {name} holds {held} bytes, the header announces {header.data_bytes}; copy both again"


def _fault_of_spacing(header: Header) -> str | None:
    remedy = "write the true size in mm into the header, or export the image again"
    if other := [unit for unit in header.units if unit.strip().lower() not in MILLIMETRES]:
        return f"its header gives the voxel size in {other[0]} (field {header.field}); {remedy}"
    if not header.spacing:
        return f"its header names no voxel size (field {header.field}); {remedy}"
    for axis, size in enumerate(header.spacing, start=1):
        if not (math.isfinite(size) and size > 0):
            return f"its header has the voxel size {size:g} (field {header.field}, axis {axis}); {remedy}"
        if not VOXEL_MM[0] <= size <= VOXEL_MM[1]:
            return f"its header has the voxel size {size:g} mm (field {header.field}, axis {axis}); {remedy}"
    return None


def _fault_of_axes(header: Header) -> str | None:
    if header.axes is None:
        return None
    if not np.isfinite(header.axes).all() or not header.axes.any():
        return f"its header is blank where the axes should stand ({header.axes_field}); export the image again"
    lengths = np.linalg.norm(header.axes, axis=0)
    cosines = (header.axes / lengths).T @ (header.axes / lengths) if lengths.all() else np.eye(len(lengths))
    if np.abs(cosines - np.eye(len(cosines))).max() > DIRECTION_TOLERANCE:
        return NOT_UPRIGHT
    other = header.other_axes
    if other is not None and lengths.all() and ((header.axes / lengths) * other).sum(axis=0).min() < SAME_AXIS:
        return TWO_ORIENTATIONS
    if not np.allclose(lengths, header.spacing, rtol=SIZES_AGREE):
        sizes = ["×".join(f"{size:.4g}" for size in sizes) for sizes in (header.spacing, lengths)]
        told = f"{sizes[0]} in {header.field}, {sizes[1]} in {header.axes_field}"
        return f"its header gives two voxel sizes ({told}); export the image again, with one"
    return None
