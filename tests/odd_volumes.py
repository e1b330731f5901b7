"""Volume files with headers that no careful program writes: NIfTI fields by name, MetaImage and NRRD line by line."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from image_files import write_volume
from numpy.typing import NDArray

SPACING = (6.0, 6.0, 6.0)
HUGE = 30_000
"""Voxels along an axis that no memory holds."""
FIELDS = {
    "sizeof_hdr": (0, "i"),
    "dim": (40, "8h"),
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    "pixdim": (76, "8f"),
    "scl": (112, "2f"),
    "xyzt_units": (123, "b"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    "quatern": (256, "3f"),
    "srow": (280, "12f"),
    "magic": (344, "4s"),
}
"""Offset and type of the fields of a NIfTI-1 header."""
TYPES = {"u1": ("MET_UCHAR", "uchar"), "i2": ("MET_SHORT", "short"), "f4": ("MET_FLOAT", "float")}


def nifti(path: Path, array: NDArray[Any], **fields: Any) -> None:
    """Write a NIfTI file of voxels (z, y, x) and change fields of its header; not compressed, ends in .nii or .hdr."""
    write_volume(path, array, spacing=SPACING)
    patch(path, **fields)


def patch(path: Path, **fields: Any) -> None:
    """Change fields of the header of a NIfTI file; ``pixdim_3`` is one element of ``pixdim``."""
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        field, _, index = name.partition("_") if name not in FIELDS else (name, "", "")
        offset, kind = FIELDS[field]
        if index:
            struct.pack_into(f"<{kind[-1]}", content, offset + int(index) * struct.calcsize(kind[-1]), value)
        else:
            struct.pack_into(f"<{kind}", content, offset, *np.atleast_1d(np.asarray(value)).tolist())
    path.write_bytes(content)


def meta_image(path: Path, array: NDArray[Any], **lines: str | None) -> None:
    """Write a MetaImage (.mha, or .mhd with its voxels in a .raw); ``None`` leaves a line of the header out."""
    data = "LOCAL" if path.suffix == ".mha" else f"{path.stem}.raw"
    header = {
        "ObjectType": "Image",
        "NDims": str(array.ndim),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "TransformMatrix": " ".join(f"{value:g}" for value in np.eye(array.ndim).ravel()),
        "Offset": " ".join("0" * array.ndim),
        "ElementSpacing": " ".join("6" * array.ndim),
        "DimSize": " ".join(map(str, array.shape[::-1])),
        "ElementType": TYPES[array.dtype.str[1:]][0],
    }
    _written(path, "", " = ", {**header, **lines, "ElementDataFile": lines.get("ElementDataFile", data)}, "", array)


def nrrd(path: Path, array: NDArray[Any], **lines: str | None) -> None:
    """Write a NRRD (.nrrd, or .nhdr with its voxels in a .raw); ``None`` leaves a line of the header out."""
    header: dict[str, str | None] = {
        "type": TYPES[array.dtype.str[1:]][1],
        "dimension": str(array.ndim),
        "space": "left-posterior-superior",
        "sizes": " ".join(map(str, array.shape[::-1])),
        "space directions": "none " * (array.ndim - 3) + "(6,0,0) (0,6,0) (0,0,6)",
        "kinds": "list " * (array.ndim - 3) + "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(0,0,0)",
    }
    if path.suffix == ".nhdr":
        header["data file"] = f"{path.stem}.raw"
    named = {name.replace("_", " "): value for name, value in lines.items()}
    _written(path, "NRRD0004\n", ": ", header | named, "\n", array)


def _written(path: Path, start: str, separator: str, header: dict[str, Any], end: str, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name}{separator}{value}\n" for name, value in header.items() if value is not None)
    attached = path.suffix in {".mha", ".nrrd"}
    path.write_bytes((start + lines + end).encode() + (array.tobytes() if attached else b""))
    if not attached:
        path.with_suffix(".raw").write_bytes(array.tobytes())


def layered(path: Path, *layers: NDArray[Any]) -> None:
    """Write label maps as the layers of one file, as 3D Slicer does with segments that overlap."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.Compose(*(sitk.GetImageFromArray(layer) for layer in layers))
    image.SetSpacing(SPACING)
    sitk.WriteImage(image, str(path))


def claiming_more(path: Path) -> Path:
    """The same file of 8×64×64 voxels, of which the header says 30000 along every axis."""
    content = path.read_bytes()
    if path.name.endswith(".nii.gz"):
        path.write_bytes(gzip.compress(_claiming(gzip.decompress(content))))
    elif path.name.endswith(".nii"):
        path.write_bytes(_claiming(content))
    else:
        huge = f"{HUGE} {HUGE} {HUGE}".encode()
        path.write_bytes(content.replace(b"64 64 8", huge))
    return path


def _claiming(content: bytes) -> bytes:
    return content[:42] + struct.pack("<3h", HUGE, HUGE, HUGE) + content[48:]
