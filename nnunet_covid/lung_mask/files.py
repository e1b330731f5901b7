"""Lung masks for files: which images an input names, and where and how their masks are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nnunet_covid.errors import UserError
from nnunet_covid.figures.slices import BLUE, outlined, sheet
from nnunet_covid.lung_mask.segment import LungMask
from nnunet_covid.raw_dataset.dicom_series import is_dicom, series_folders
from nnunet_covid.raw_dataset.pairing import VOLUME_ENDINGS, ending_of, natural_key
from nnunet_covid.raw_dataset.picture import PICTURE_ENDINGS
from nnunet_covid.raw_dataset.problems import some_of
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.writing import write_array

ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)


def images_and_outputs(source: Path, output: Path) -> list[tuple[Path, Path]]:
    """Every image that ``source`` names, with the file for its mask.

    Args:
        source: An image, the folder of a DICOM series, or a folder of images and series.
        output: A file for one image or series, a folder for several.

    Raises:
        UserError: If there is no image, the output has the wrong ending, or a mask would replace an image or
            another mask.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; give an image, a DICOM folder or a folder of images")
    if source.is_file() or any(path.is_file() and is_dicom(path) for path in source.iterdir()):
        pairs = [(source, _checked(source, output))]
    else:
        pairs = _pairs_of_folder(source, output)
    _refuse_overwriting(pairs)
    return pairs


def _pairs_of_folder(source: Path, output: Path) -> list[tuple[Path, Path]]:
    files = sorted((path for path in source.iterdir() if path.is_file()), key=lambda path: natural_key(path.name))
    images = [path for path in files if ending_of(path, ENDINGS) and not path.name.startswith(".")]
    series = [folder for child in sorted(source.iterdir()) if child.is_dir() for folder in series_folders(child)]
    if not images and not series:
        raise UserError(f"{source} holds no image; expected {', '.join(ENDINGS)} files or DICOM series")
    if ending_of(output, ENDINGS):
        raise UserError(f"{source} is a folder, so the output must be a folder as well, not {output}")
    pairs = [(path, output / f"{_stem(path)}{_natural_ending(path)}") for path in images]
    return pairs + [(path, output / f"{_series_name(path, series, source)}.nii.gz") for path in series]


def _refuse_overwriting(pairs: list[tuple[Path, Path]]) -> None:
    images = {_identity(source) for source, _ in pairs}
    replaced = [output.name for _, output in pairs if output.exists() and _identity(output) in images]
    if replaced:
        folder = pairs[0][1].parent
        raise UserError(f"the masks would replace the images {some_of(replaced)} in {folder}; name another output")
    first: dict[str, Path] = {}
    for source, output in pairs:
        key = output.name.lower()  # file systems that ignore case would merge them
        if key in first:
            raise UserError(f"{first[key]} and {source} would both get the mask {output}; rename one of them")
        first[key] = source


def _identity(path: Path) -> tuple[int, int]:
    """What one file keeps under all its names."""
    status = path.stat()
    return status.st_dev, status.st_ino


def _series_name(path: Path, series: list[Path], source: Path) -> str:
    """The folder below the source that leads to this series alone, else the whole way to it."""
    parts = path.relative_to(source).parts
    alone = [other for other in series if other.relative_to(source).parts[0] == parts[0]] == [path]
    return parts[0] if alone else "_".join(parts)


def _stem(path: Path) -> str:
    return path.name[: -len(ending_of(path, ENDINGS) or "")]


def _is_picture(path: Path) -> bool:
    return path.is_file() and ending_of(path, PICTURE_ENDINGS) is not None


def _natural_ending(path: Path) -> str:
    return ".png" if _is_picture(path) else ".nii.gz"


def _checked(source: Path, output: Path) -> Path:
    allowed = (".png",) if _is_picture(source) else VOLUME_ENDINGS
    if ending_of(output, allowed) is None:
        raise UserError(f"the mask of {source} cannot be written as {output.name}; use {' or '.join(allowed)}")
    return output


def write_lung_mask(path: Path, lungs: LungMask, scan: Scan) -> None:
    """Write a mask: 0 and 255 as PNG, 0 and 1 with the image's geometry otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = ending_of(path, ENDINGS) or ".nii.gz"
    foreground = 255 if ending == ".png" else 1
    write_array(path, lungs.mask.astype(np.uint8) * foreground, scan.geometry, ending)


def lung_overlay(scan: Scan, lungs: LungMask, slices: int = 8) -> np.ndarray:
    """The outline of the mask over the picture, or over evenly spaced slices of the volume."""
    image = scan.image.clip(-1250, 250) if scan.is_hu else scan.image
    if image.ndim == 2:
        return outlined(image, {BLUE: lungs.mask})
    indices = np.unique(np.linspace(0.1 * len(image), 0.9 * len(image), slices).astype(int).clip(0, len(image) - 1))
    return sheet([outlined(image[i], {BLUE: lungs.mask[i]}) for i in indices], columns=4)
