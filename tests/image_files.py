"""Writing and reading the small image files that the tests are made of."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

LPS = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_picture(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """Write a picture; returns what a decoder reads back (JPEG loses detail)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return np.asarray(Image.open(path))


def write_volume(
    path: Path,
    array: NDArray[Any],
    *,
    spacing: tuple[float, ...] = (0.8, 0.7, 2.5),
    origin: tuple[float, ...] = (-10.0, 20.0, -30.0),
    direction: tuple[float, ...] = LPS,
) -> None:
    """Write a volume, array axes (z, y, x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


def write_dicom_series(
    folder: Path,
    array: NDArray[np.int16],
    *,
    spacing: tuple[float, float, float] = (0.8, 0.7, 2.5),
    origin: tuple[float, float, float] = (-10.0, 20.0, -30.0),
    modality: str = "CT",
    series: str = "1.2.3.4",
    skip: tuple[int, ...] = (),
) -> None:
    """Write an axial DICOM series one file per slice, files in the reverse order of their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, axial in enumerate(array):
        if z in skip:
            continue
        image = sitk.GetImageFromArray(axial[None])
        image.SetSpacing(spacing)
        tags = {
            "0008|0060": modality,
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0020|000e": series,
            "0020|000d": f"{series}.0",
            "0008|0018": f"{series}.{z + 1}",
            "0020|0032": f"{origin[0]}\\{origin[1]}\\{origin[2] + z * spacing[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(z),
            "0018|0050": str(spacing[2]),
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{len(array) - z:04d}.dcm"))
        writer.Execute(image)


def read_array(path: Path) -> NDArray[Any]:
    """Voxels of a picture or volume, axes (y, x) or (z, y, x)."""
    if path.suffix in {".png", ".jpg"}:
        return np.asarray(Image.open(path))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def checksums(folder: Path) -> dict[str, str]:
    """Relative name to SHA-256 of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def blob(shape: tuple[int, ...], seed: int, value: int = 1) -> NDArray[np.uint8]:
    """A rectangle of ``value`` at a place that depends on the seed and has no symmetry."""
    generator = np.random.default_rng(seed)
    mask = np.zeros(shape, dtype=np.uint8)
    start = [int(generator.integers(0, n // 2)) for n in shape]
    mask[tuple(slice(s, s + max(2, n // 4)) for s, n in zip(start, shape, strict=True))] = value
    return mask


def grey(shape: tuple[int, ...], seed: int) -> NDArray[np.uint8]:
    """Random grey values."""
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def hounsfield(shape: tuple[int, ...], seed: int) -> NDArray[np.int16]:
    """Random Hounsfield units from air to bone."""
    return np.random.default_rng(seed).integers(-1024, 1500, shape).astype(np.int16)
