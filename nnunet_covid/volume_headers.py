"""What the header of a volume file says, without ITK: NIfTI-1, alone or as a pair; MetaImage and NRRD, attached or not.

Whether that can be believed stands in :mod:`nnunet_covid.volume_files`.
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

NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr")
META_ENDINGS = (".mha", ".mhd")
NRRD_ENDINGS = (".nrrd", ".nhdr")
NIFTI_BYTES = 348
NIFTI_2 = 540
NIFTI_SEVERAL = {128: 3, 2304: 4}
"""Values per voxel of NIfTI's colour types."""
NIFTI_COMPLEX = {32, 1792, 2048}
NIFTI_FLOATS = {16: "f4", 64: "f8"}
LONGEST_TEXT = 1 << 16
"""Bytes in which a text header must end."""
PATTERN = re.compile(r"([^%\s]*%0?\d?d[^%\s]*)((?:\s+\d{1,9}){2,4})")
"""Of data files: a name with one number in it; the first number, the last, the step, and axes of a file."""
MOST_FILES = 1 << 16
ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
"""Of MetaImage's MET_ types, with or without U in front."""
NRRD_BYTES = {"char": 1, "int8": 1, "short": 2, "int16": 2, "int": 4, "int32": 4, "float": 4, "long": 8, "int64": 8}
NRRD_SPACES = ("right-", "left-", "ras", "las", "lps")
"""How the spaces of a NRRD begin that tell left from right."""
SPATIAL_KINDS = {"domain", "space", "time", "none", "???"}
"""Kinds of a NRRD's axes along which voxels lie; along all others lie the values of one voxel."""
COMPLEX = "holds complex numbers; export one real value per voxel"


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
        lacks_sides: What it lacks to say where left and right are; empty where nothing.
        units: Of the voxel size, as a MetaImage or NRRD names them.
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
    lacks_sides: str = ""
    units: tuple[str, ...] = ()


def volume_header(path: Path) -> Header | str | None:
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


def fault_of_number_of_axes(path: Path) -> str | None:
    """Why ITK must not even see the header of a MetaImage: it crashes at a number of axes that it has no room for."""
    if not path.name.lower().endswith(META_ENDINGS):
        return None
    with path.open("rb") as stream:
        found = re.search(rb"NDims *= *([^\r\n]*)", stream.read(LONGEST_TEXT))
    if found is None or re.fullmatch(rb" *([1-9]|10) *", found[1]):
        return None
    return f"its header announces {found[1][:20].decode('latin-1')!r} axes; export it again"


def opened(path: Path) -> IO[bytes]:
    """A file to read, unpacked on the way where it is packed by gzip."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb")


def _nifti(path: Path) -> Header | str | None:
    with opened(path) as stream:
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
    data = image_of_pair(path) if magic == b"ni1" else ()
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
    lacking = "" if max(qform, sform) > 0 else "qform_code and sform_code are 0"
    return Header("pixdim", spacing, axes, fields, data, size, components, floats, other, lacking)


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


def image_of_pair(path: Path) -> tuple[Path, ...]:
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
    lacking = "no TransformMatrix" if axes is None else ""
    units = (fields.get("DistanceUnits", ""),)
    named = "ElementSpacing", spacing, axes, "TransformMatrix", data, size, channels
    return Header(*named, lacks_sides=lacking, units=units)


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
        lacking = "" if fields.get("space", "").lower().startswith(NRRD_SPACES) else "its space is no patient's"
        named = "space directions", spacing, axes, "space directions", data, size, components
        return Header(*named, lacks_sides=lacking, units=_quoted(fields.get("spaceunits", "")))
    spacings, units = _numbers(fields.get("spacings", ""))[-3:], _quoted(fields.get("units", ""))[-3:]
    named = "spacings", spacings, None, "", data, size, components
    return Header(*named, lacks_sides="no space directions", units=units)


def _text(path: Path, encoding: str) -> str:
    with path.open("rb") as stream:
        return stream.read(LONGEST_TEXT).decode(encoding, errors="replace")


def _quoted(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r'"([^"]*)"', text))


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
