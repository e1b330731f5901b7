"""The header of a volume file before ITK reads it: the files its voxels lie in, and what ITK would guess or pass over.

ITK reads a voxel size of zero as 1 mm, takes a sheared MetaImage or NRRD as it is, and of two voxel sizes in one NIfTI
header believes one. Known are NIfTI-1, alone or as a pair, MetaImage and NRRD, attached or not; of other formats
nothing is said. Whether the voxels are whole stands in :mod:`nnunet_covid.whole_volumes`.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.files import name_fault
from nnunet_covid.geometry import DIRECTION_TOLERANCE

NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr")
META_ENDINGS = (".mha", ".mhd")
NRRD_ENDINGS = (".nrrd", ".nhdr")
NIFTI_BYTES = 348
NIFTI_2 = 540
NIFTI_SEVERAL = {128: 3, 2304: 4}
"""Values per voxel of NIfTI's colour types."""
NIFTI_COMPLEX = {32, 1792, 2048}
NIFTI_FLOATS = {16: "f4", 64: "f8"}
BLOCK = 1 << 22
LONGEST_TEXT = 1 << 16
"""Bytes in which a text header must end."""
PATTERN = re.compile(r"([^%\s]*%0?\d?d[^%\s]*)((?:\s+\d{1,9}){2,4})")
"""Of data files: a name with one number in it; the first number, the last, the step, and axes of a file."""
MOST_FILES = 1 << 16
SIZES_AGREE = 0.01
"""Two voxel sizes in one header may differ by this share: some programs round one of them."""
VOXEL_MM = (0.01, 1000.0)
"""A voxel size outside of this is one in another unit than the header says."""
ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
"""Of MetaImage's MET_ types, with or without U in front."""
NRRD_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "float": 4, "long": 8, "int64": 8}

SPATIAL_KINDS = {"domain", "space", "time", "none", "???"}
"""Kinds of a NRRD's axes along which voxels lie; along all others lie the values of one voxel."""

NOT_UPRIGHT = "its axes are not at right angles; resample the image to an upright grid"
SAME_AXIS = 0.5
"""Cosine below which two directions are those of different axes, or opposite ones; a registration turns by less."""
TWO_ORIENTATIONS = (
    "its header gives two orientations (srow_x … and quatern_b …), of which some programs take the one and some the "
    "other; write the true one over the other, or export the image again"
)
COMPLEX = "holds complex numbers; export one real value per voxel"
NOT_FINITE = "holds voxels that are no finite numbers; replace them, in a CT by air (-1024)"
WITH_ALPHA = "holds grey values with transparency; save it in grey alone"
SEVERAL_VALUES = "has several values per voxel (layers, or colours); export one value per voxel"


@dataclass(frozen=True)
class Header:
    """What a header says of the grid.

    Attributes:
        field: Name of the field that holds the voxel size.
        spacing: Of at most three axes, as it stands there; empty where there is none.
        axes: One column per axis, times its voxel size; ``None`` where the header leaves the direction open.
        axes_field: Name of the fields of ``axes``.
        data: The files of the voxels; empty where they lie behind the header.
        data_bytes: What these hold together; ``None`` where that cannot be told, as of compressed ones.
        components: Values per voxel.
        floats: Type of the voxels, and the byte at which they begin, where these are floats of a NIfTI file.
        other_axes: What a NIfTI file says of the axes a second time, without voxel sizes, where it does.
    """

    field: str
    spacing: tuple[float, ...]
    axes: NDArray[np.float64] | None = None
    axes_field: str = ""
    data: tuple[Path, ...] = ()
    data_bytes: int | None = None
    components: int = 1
    floats: tuple[str, int] | None = None
    other_axes: NDArray[np.float64] | None = None


def data_files(path: Path) -> tuple[Path, ...]:
    """The files behind a header that lie beside it; empty for a file that holds its voxels itself."""
    header = _header(path)
    if isinstance(header, Header):
        return header.data
    return _image_of_pair(path) if header and path.name.lower().endswith(".hdr") else ()


def header_fault(path: Path) -> str | None:
    """Why the header of a volume file cannot be believed, with the remedy; ``None`` where nothing is wrong with it.

    A file that is no such header at all is left to the reader, which refuses it.
    """
    header = name_fault(path) or _header(path)
    if not isinstance(header, Header):
        return header
    if header.components != 1:
        return SEVERAL_VALUES
    return _fault_of_data(header) or _fault_of_spacing(header) or _fault_of_axes(header)


def loses_values(path: Path, voxels: NDArray[Any]) -> bool:
    """Whether a file holds values that are no finite numbers, and that are zeros in what ITK read from it.

    Args:
        path: A volume file; of NIfTI files ITK's library turns such values into zeros, without a word.
        voxels: What ITK read. The file is read once more only where zeros are among them.
    """
    header = _header(path)
    if not isinstance(header, Header) or header.floats is None or bool(voxels.all()):
        return False
    kind, begin = header.floats
    with _opened(header.data[0] if header.data else path) as stream:
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
        floats: Type of the voxels, and the byte at which they begin, where these are floats of a NIfTI file.
        pixel: The name that SimpleITK has for the type of a voxel.
    """
    if math.prod(size[3:]) > 1:
        return f"holds {math.prod(size[3:])} volumes; export one of them"
    if components != 1:
        return SEVERAL_VALUES
    return COMPLEX if "complex" in pixel else None


def fault_of_number_of_axes(path: Path) -> str | None:
    """Why ITK must not even see the header of a MetaImage: it crashes at a number of axes that it has no room for."""
    if not path.name.lower().endswith(META_ENDINGS):
        return None
    with path.open("rb") as stream:
        found = re.search(rb"NDims *= *([^\r\n]*)", stream.read(LONGEST_TEXT))
    if found is None or re.fullmatch(rb" *([1-9]|10) *", found[1]):
        return None
    return f"its header announces {found[1][:20].decode('latin-1')!r} axes; export it again"


def _header(path: Path) -> Header | str | None:
    """The header, why it cannot be used, or ``None`` where it is none that is known."""
    name = path.name.lower()
    try:
        if name.endswith(NIFTI_ENDINGS):
            return _nifti(path)
        if fault := fault_of_number_of_axes(path):
            return fault
        if name.endswith(META_ENDINGS):
            return _meta_image(path)
        if name.endswith(NRRD_ENDINGS):
            return _nrrd(path)
    except UserError as e:
        return str(e)
    except (OSError, EOFError, zlib.error, ValueError, KeyError, struct.error):
        return None
    return None


def _opened(path: Path) -> IO[bytes]:
    """A file to read, unpacked on the way where it is packed by gzip."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _nifti(path: Path) -> Header | str | None:
    with _opened(path) as stream:
        raw = stream.read(NIFTI_BYTES)
    order = next((o for o in "<>" if struct.unpack_from(f"{o}i", raw)[0] in (NIFTI_BYTES, NIFTI_2)), None)
    if order is None:
        return None
    if struct.unpack_from(f"{order}i", raw)[0] == NIFTI_2:
        return "is a NIfTI-2 file, which ITK does not read; save it as NIfTI-1"
    magic = raw[344:347]
    if magic not in (b"n+1", b"ni1"):
        return "is an ANALYZE file, which does not say where left and right are; save it as NIfTI from its source"
    count, *lengths = struct.unpack_from(f"{order}8h", raw, 40)
    if not 1 <= count <= 7 or min(lengths[:count]) < 1:
        return f"its header announces {count} axes of {lengths[: max(0, min(count, 7))]} voxels; export it again"
    shown = min(count, 3)
    unit = {1: 1000.0, 3: 0.001}.get(raw[123] & 7, 1.0)  # metres, micrometres
    spacing = tuple(unit * size for size in struct.unpack_from(f"{order}3f", raw, 80)[:shown])
    data = _image_of_pair(path) if magic == b"ni1" else ()
    plain = data and not data[0].name.lower().endswith(".gz")
    kind, bits = struct.unpack_from(f"{order}2h", raw, 70)
    if kind in NIFTI_COMPLEX:
        return COMPLEX
    size = math.prod(lengths[:count]) * bits // 8 if plain else None
    qform, sform = struct.unpack_from(f"{order}2h", raw, 252)
    axes: NDArray[np.float64] | None
    if sform > 0:
        rows = unit * np.array(struct.unpack_from(f"{order}12f", raw, 280), dtype=float).reshape(3, 4)
        other = _axes_of_quaternion(raw, order)[:, :shown] if qform > 0 else None
        axes = rows[:, :shown] if np.isfinite(rows).all() else np.full((3, shown), np.nan)
        fields = "srow_x, srow_y, srow_z"
    else:
        other, known = None, qform <= 0 or np.isfinite(struct.unpack_from(f"{order}6f", raw, 256)).all()
        axes, fields = None if known else np.full((3, shown), np.nan), "quatern_b … qoffset_z"
    begin = struct.unpack_from(f"{order}f", raw, 108)[0]
    floats = (order + NIFTI_FLOATS[kind], int(begin)) if kind in NIFTI_FLOATS and math.isfinite(begin) else None
    components = NIFTI_SEVERAL.get(kind, 1)
    return Header("pixdim", spacing, axes, fields, data, size, components, floats, other)


def _axes_of_quaternion(raw: bytes, order: str) -> NDArray[np.float64]:
    """The directions of the three axes as the quaternion of a NIfTI header gives them; one in a column."""
    b, c, d = struct.unpack_from(f"{order}3f", raw, 256)
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    (handedness,) = struct.unpack_from(f"{order}f", raw, 76)
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    ) * [1, 1, -1 if handedness < 0 else 1]


def _image_of_pair(path: Path) -> tuple[Path, ...]:
    images = [path.with_name(path.name[:-4] + ending) for ending in (".img", ".img.gz", ".IMG")]
    return tuple(image for image in images if image.exists())[:1] or (images[0],)


def _meta_image(path: Path) -> Header | str | None:
    fields: dict[str, str] = {}
    lines = iter(_text(path, "latin-1").splitlines())
    for line in lines:
        key, _, value = line.partition("=")
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            break
    count = int(fields["NDims"])
    data = _named_files(path, fields["ElementDataFile"], lines)
    name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
    spacing = _numbers(fields.get(name, ""))[: min(count, 3)]
    matrix = next((fields[key] for key in ("TransformMatrix", "Rotation", "Orientation") if key in fields), None)
    axes = None
    if matrix is not None and len(_numbers(matrix)) == count * count:
        axes = np.reshape(_numbers(matrix), (count, count)).T[:3, :3] * (spacing or 1.0)
    size = None
    plain = fields.get("CompressedData", "False").lower() != "true" and int(fields.get("HeaderSize", 0)) == 0
    kind = re.sub(r"^MET_U?|_ARRAY$", "", fields["ElementType"])
    channels = int(fields.get("ElementNumberOfChannels", 1))
    if data and plain and kind in ELEMENT_BYTES:
        size = math.prod(int(n) for n in fields["DimSize"].split()) * channels * ELEMENT_BYTES[kind]
    return Header("ElementSpacing", spacing, axes, "TransformMatrix", data, size, channels)


def _nrrd(path: Path) -> Header | str | None:
    text = _text(path, "utf-8")
    if not text.startswith("NRRD"):
        return None
    lines = iter(text.splitlines()[1:])
    fields: dict[str, str] = {}
    data: tuple[Path, ...] = ()
    for line in lines:
        if not line.strip():
            break
        key, separator, value = line.partition(": ")
        fields[key.lower().replace(" ", "")] = value.strip()
        if separator and key.lower().replace(" ", "") == "datafile":
            data = _named_files(path, value.strip(), lines)
            if value.startswith("LIST"):
                break
    size = None
    kind = fields["type"].lower().replace("unsigned ", "").removeprefix("u").removesuffix("_t")
    if data and fields["encoding"].lower() == "raw" and not {"lineskip", "byteskip"} & set(fields):
        size = math.prod(int(n) for n in fields["sizes"].split()) * NRRD_BYTES[kind] if kind in NRRD_BYTES else None
    sizes, kinds = fields["sizes"].split(), fields.get("kinds", "").split()
    values = [int(n) for n, axis in zip(sizes, kinds, strict=False) if axis not in SPATIAL_KINDS]
    components = math.prod(values)
    if "spacedirections" in fields:
        found = [_numbers(part) for part in re.findall(r"\(([^)]*)\)", fields["spacedirections"])]
        vectors = [vector for vector in found if not np.isnan(vector).all()] or found[:1]  # not those of other axes
        axes = np.array(vectors, dtype=float).T if vectors else None
        spacing = () if axes is None else tuple(np.linalg.norm(axes, axis=0).tolist())
        return Header("space directions", spacing, axes, "space directions", data, size, components)
    spacings = _numbers(fields.get("spacings", ""))[-3:]
    return Header("spacings", spacings, data=data, data_bytes=size, components=components)


def _text(path: Path, encoding: str) -> str:
    with path.open("rb") as stream:
        return stream.read(LONGEST_TEXT).decode(encoding, errors="replace")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in re.split(r"[,\s]+", text.strip()) if part)


def _named_files(path: Path, value: str, following: Any) -> tuple[Path, ...]:
    """The data files of a text header: one name, a pattern with first, last and step, or a list below it.

    Raises:
        UserError: If it is a pattern of anything but one number, or of too many; ITK would follow it.
    """
    if value.upper() == "LOCAL":
        return ()
    if value.startswith("LIST"):
        return tuple(path.parent / line.strip() for line in following if line.strip())
    if "%" not in value:
        return (path.parent / value,)
    found = PATTERN.fullmatch(value)
    first, last, step = (int(number) for number in [*found[2].split(), "1"][:3]) if found else (0, 0, 0)
    numbers = range(first, last + 1, step) if step > 0 else range(0)
    if found is None or not 0 < len(numbers) <= MOST_FILES:
        raise UserError(f"its header gives {value[:60]!r} for its data files, no pattern of names; export it again")
    return tuple(path.parent / (found[1] % number) for number in numbers)


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
