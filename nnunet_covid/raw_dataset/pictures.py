"""PNG and JPEG slices: one grey channel, or a clear reason why not; alone or with a mask of the same size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, TiffImagePlugin

from nnunet_covid.dataset_json import GREY
from nnunet_covid.raw_dataset.classes import ClassScheme, map_colours, map_values
from nnunet_covid.raw_dataset.dicom import is_dicom
from nnunet_covid.raw_dataset.recipe import DatasetInfo, Recipe, SourceCase
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.source import Problems, UnusableFile


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            if fault := _fault_of(picture):
                raise UnusableFile(path, fault)
            yield picture
    except UnusableFile:
        raise
    except FileNotFoundError as e:
        raise UnusableFile(path, "is a link to a file that is not there; copy the file itself here") from e
    except Image.DecompressionBombError as e:
        reason = "its header promises more pixels than any slice has; export it again, or cut it into slices"
        raise UnusableFile(path, reason) from e
    except Exception as e:  # each format of Pillow's has exceptions of its own for damaged bytes
        if is_dicom(path):
            raise UnusableFile(path, "is DICOM under the name of a picture; name it .dcm in a folder per case") from e
        reason = f"not a readable picture ({type(e).__name__}); download or export it again"
        raise UnusableFile(path, reason) from e


def _fault_of(picture: Image.Image) -> str | None:
    """What a reader would silently pass over: further pages or frames, and that the picture is shown turned."""
    if (pages := getattr(picture, "n_frames", 1)) > 1:
        return f"holds {pages} pictures (pages or frames); export each as a picture of its own"
    # of a PNG Pillow would decode all before it knows
    if picture.format != "PNG" and picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        return "is to be shown turned or mirrored (EXIF orientation), which not every program does; turn its pixels"
    return None


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from the header alone.

    Raises:
        UnusableFile: If the file is no picture.
    """
    with _opened(path) as picture:
        return picture.size


def read_colours(path: Path) -> NDArray[np.uint8]:
    """A picture as RGBA, shape (y, x, 4); palettes are looked up, opaque alpha is filled in.

    Raises:
        UnusableFile: If the file cannot be decoded or holds more than 8 bits per channel.
    """
    with _opened(path) as picture:
        _refuse_more_than_8_bits(picture, path)
        return np.asarray(picture.convert("RGBA"))


def read_grey(path: Path) -> NDArray[np.uint8]:
    """The one grey channel of a picture, shape (y, x).

    RGB and RGBA are accepted when they are grey all the same: equal colour channels and an opaque alpha.

    Raises:
        UnusableFile: If the picture is coloured, transparent or unreadable.
    """
    with _opened(path) as picture:
        _refuse_more_than_8_bits(picture, path)
        if picture.mode == "L":
            return np.asarray(picture)
        has_palette = picture.mode == "P"
        pixels = np.asarray(picture.convert("RGBA"))
    if (pixels[..., 3] != 255).any():
        raise UnusableFile(path, "is partly transparent; export it as a grey picture without alpha channel")
    differing = (pixels[..., :1] != pixels[..., 1:3]).any(axis=-1)
    if differing.any() and has_palette:
        reason = "has a colour palette; save the numbers of its colours as a grey picture, where these are the labels"
        raise UnusableFile(path, reason)
    if differing.any():
        reason = (
            f"red, green and blue differ in {int(differing.sum())} pixels, expected a grey picture; "
            "export it with one grey channel"
        )
        raise UnusableFile(path, reason)
    return np.ascontiguousarray(pixels[..., 0])


def _refuse_more_than_8_bits(picture: Image.Image, path: Path) -> None:
    """Where Pillow has modes of 8 bits alone it keeps the high byte of each channel: there the header tells."""
    tags: Mapping[int, Any] = getattr(picture, "tag_v2", {})
    deep = max(tags.get(TiffImagePlugin.BITSPERSAMPLE, (8,))) > 8 or ";16" in str(getattr(picture, "tile", ""))
    kind = picture.mode if picture.mode.startswith(("I", "F")) else f"{picture.mode} of 16 bit" if deep else None
    if kind is None and 2 in tags.get(TiffImagePlugin.SAMPLEFORMAT, ()):
        kind = "signed"
    if kind is not None:
        raise UnusableFile(path, f"{kind} pixels, expected 8 bits per channel; export it as 8 bit")


def differing_sizes(image: Path, masks: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """The masks that have another size than their image, and what to do about it; by the headers alone."""
    width, height = picture_size(image)
    for mask in masks:
        if (size := picture_size(mask)) != (width, height):
            sizes = f"is {size[0]}×{size[1]} pixels, its image {image.name} {width}×{height}"
            yield mask, f"{sizes}; export the mask at the size of the image"


def read_picture_pair(case: SourceCase, scheme: ClassScheme) -> Scan:
    """Read image, mask and lung mask of one case.

    Raises:
        UnusableFile: If one of them is not what it should be.
    """
    scan = Scan(image=read_grey(case.image))
    if case.mask is not None:
        if scheme.colours:
            values, snapped = map_colours(read_colours(case.mask), scheme.colours, case.mask)
            scan.notes["snapped_pixels"] = snapped
        else:
            values = read_grey(case.mask)
        scan.label = map_values(values, scheme.values, case.mask)
    if case.lungs is not None:
        scan.lungs = map_values(read_grey(case.lungs), {0: 0, 1: 1, 255: 1}, case.lungs).astype(bool)
    return scan


def picture_recipe(
    info: DatasetInfo,
    find_cases: Callable[[Path, Problems], list[SourceCase]],
    schemes: Mapping[str, ClassScheme],
) -> Recipe:
    """The recipe of a data set of grey pictures; for the arguments see ``Recipe``."""
    return Recipe(info, find_cases, read_picture_pair, schemes, channel=GREY, file_ending=".png", has_volumes=False)
