"""One image of any kind: a picture, a volume file or the folder of a DICOM series. Read, given lungs, and written.

How lungs are found stands in ``nnunet_covid.lung_mask``, which knows no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.endings import IMAGE_ENDINGS, SINGLE_FILE_ENDINGS, ending_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import replacing, some_of
from nnunet_covid.geometry import Geometry, Turn
from nnunet_covid.lung_mask import segment_lungs, unfit_for_network
from nnunet_covid.raw_dataset.case_folders import KINDS, images_by_entry, is_one_series
from nnunet_covid.raw_dataset.dicom import is_dicom
from nnunet_covid.raw_dataset.dicom_folder import one_series
from nnunet_covid.raw_dataset.dicom_series import check_series
from nnunet_covid.raw_dataset.grey_scale import is_hounsfield, is_inverted
from nnunet_covid.raw_dataset.pictures import differing_sizes, read_grey
from nnunet_covid.raw_dataset.recipe import SourceCase
from nnunet_covid.raw_dataset.scan import Scan, plane_of
from nnunet_covid.raw_dataset.source import Problems, UnusableFile, is_picture, relative_name, stem_of
from nnunet_covid.raw_dataset.volumes import array_of, differing_grids, read_volume
from nnunet_covid.volume_files import without_sides
from nnunet_covid.whole_volumes import write_volume


def read_scan(path: Path) -> Scan:
    """The image alone; Hounsfield units are recognised by its own values.

    Raises:
        UnusableFile: If the image cannot be read.
    """
    if is_picture(path):
        return Scan(image=read_grey(path))
    image = read_volume(path)
    array = array_of(image, path)
    return Scan(image=array, geometry=Geometry.of_itk(image), is_hu=is_hounsfield(array))


def check_headers(cases: Iterable[SourceCase], problems: Problems) -> None:
    """Compare sizes and geometry in the headers; masks and lung masks that differ from their image become problems.

    A DICOM series is checked by the headers of its slices, its grid when it is read. Passed over are the slices of a
    stack, which have no header of their own.

    Args:
        cases: What is to be converted.
        problems: Where to put what is wrong.
    """
    for case in cases:
        for path in (case.image, case.mask, case.lungs):
            if path is not None and path.is_dir():
                with problems.collecting():
                    check_series(one_series(path), is_mask=path is not case.image)
        if case.image.is_dir() or case.index is not None:
            continue
        of_volume = partial(differing_grids, blank_masks=case.blank_masks)
        differing = differing_sizes if is_picture(case.image) else of_volume
        files = [mask for mask in (case.mask, case.lungs) if mask is not None and not mask.is_dir()]
        with problems.collecting():
            for mask, difference in differing(case.image, files):
                problems.add(mask, difference)


def notes_on_sides(cases: Iterable[SourceCase], source: Path) -> list[str]:
    """A line for the user that names the volumes of which ITK can only guess where left and right are."""
    open_ones = {relative_name(case.image, source) for case in cases if without_sides(case.image)}
    guess = "their axes are taken to lead to the left, the back and the head"
    return [f"note: left and right are not told by {some_of(open_ones, 3)}: {guess}"] if open_ones else []


def write_image(path: Path, array: NDArray[Any], geometry: Geometry | None) -> None:
    """Write a slice or volume as PNG or as an ITK format; the bytes depend on the arguments alone."""
    if path.suffix.lower() == ".png":
        with replacing(path) as unfinished:
            Image.fromarray(array).save(unfinished, format="PNG", compress_level=3)  # half the time of level 6
        return
    image = sitk.GetImageFromArray(array)
    if geometry is not None:
        image.SetSpacing(geometry.spacing)
        image.SetOrigin(geometry.origin)
        image.SetDirection(geometry.direction)
    write_volume(image, path)


def with_lungs(scan: Scan, path: Path, *, method: str, model: str, weights: Path | None) -> Scan:
    """The scan with a lung mask, and a note where it comes from; for the other arguments see ``segment_lungs``.

    The lungs are looked for in axial slices, in whatever order the image is stored.

    Args:
        scan: A slice or a volume.
        path: Its file, for messages.

    Raises:
        UnusableFile: If it is a single slice that is not axial, its grey scale is inverted, or it is none that the
            network takes, which is asked for.
    """
    if scan.lungs is not None:
        return replace(scan, notes={**scan.notes, "lung_mask": "data set"})
    if (plane := plane_of(scan)) not in (None, "axial"):
        raise UnusableFile(path, f"is a single {plane} slice; lungs are found in axial slices and in whole volumes")
    turn = Turn.upright(scan.geometry)
    image = turn(scan.image)
    if not scan.is_hu and is_inverted(image):
        raise UnusableFile(path, "its grey scale is inverted (air is bright); invert its values, or export it again")
    if method == "lungmask" and (reason := unfit_for_network(image, is_hu=scan.is_hu)):
        raise UnusableFile(path, reason)
    segmented = segment_lungs(
        image,
        is_hu=scan.is_hu,
        spacing=turn.spacing(scan.geometry) if scan.geometry else None,
        method=method,
        model=model,
        weights=weights,
    )
    return replace(scan, lungs=turn.back(segmented.mask), notes={**scan.notes, "lung_mask": segmented.method})


def write_lung_mask(path: Path, scan: Scan) -> None:
    """Write the lung mask of a scan: 0 and 255 as PNG, 0 and 1 with the image's geometry otherwise."""
    assert scan.lungs is not None
    foreground = 255 if is_picture(path) else 1
    write_image(path, scan.lungs.astype(np.uint8) * foreground, scan.geometry)


def images_and_masks(source: Path, output: Path, problems: Problems) -> list[tuple[Path, Path]]:
    """Every image that ``source`` names, with the file for its lung mask.

    Args:
        source: An image, the folder of a DICOM series, or a folder of images and series.
        output: A file for one image or series, a folder for several.
        problems: Told of what is left out.

    Raises:
        UserError: If there is no image, one would be passed over, the output has the wrong ending, or a mask would
            replace an image or another mask.
    """
    if not source.exists():
        raise UserError(f"{source} does not exist; give an image, a DICOM folder or a folder of images")
    if source.is_file() and not ending_of(source) and not is_dicom(source):
        raise UserError(f"{source} is no image of a kind that is read ({KINDS}); convert it, or unpack it")
    if source.is_file() or is_one_series(source, problems):
        allowed = (".png",) if is_picture(source) else SINGLE_FILE_ENDINGS
        if not output.name.endswith(allowed):  # in small letters: ITK writes no others
            raise UserError(f"the mask of {source} cannot be written as {output.name}; use {' or '.join(allowed)}")
        pairs = [(source, output)]
    else:
        pairs = _pairs_of_folder(source, output, problems)
    _refuse_overwriting(pairs)
    return pairs


def _pairs_of_folder(source: Path, output: Path, problems: Problems) -> list[tuple[Path, Path]]:
    images = [path for found in images_by_entry(source, problems).values() for path in dict.fromkeys(found)]
    if images and ending_of(output):
        raise UserError(f"{source} is a folder, so the output must be a folder as well, not {output}")
    problems.raise_if_any()
    if not images:
        raise UserError(f"{source} holds no image; expected {', '.join(IMAGE_ENDINGS)} files or DICOM series")
    entries = Counter(path.relative_to(source).parts[0] for path in images)
    pairs = []
    for path in images:
        *above, own = path.relative_to(source).parts
        parts = [*above, stem_of(path) if path.is_file() else own]
        # by the entry of the source where it leads to this image alone, else by the whole way to it
        name = parts[0] if entries[(above or [own])[0]] == 1 else "_".join(parts)
        pairs.append((path, output / f"{name}{'.png' if is_picture(path) else '.nii.gz'}"))
    return pairs


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
