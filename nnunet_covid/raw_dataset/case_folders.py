"""Where the images of a folder of cases are: files, DICOM series, or one of either in a folder per case.

Nothing in such a folder is passed over in silence: what cannot be a case is left out and named, all else is a problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nnunet_covid.endings import IMAGE_ENDINGS, ending_of
from nnunet_covid.files import files_in, some_of
from nnunet_covid.raw_dataset.dicom import ENDINGS, is_dicom, read_dicom
from nnunet_covid.raw_dataset.dicom_folder import Series, dicom_folder, tell_of_shared
from nnunet_covid.raw_dataset.recipe import SourceCase
from nnunet_covid.raw_dataset.source import Problems, visible
from nnunet_covid.volume_files import data_files, header_fault

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".gz", ".bz2", ".xz", ".7z", ".rar")
PAPERS = (".txt", ".csv", ".tsv", ".json", ".xml", ".md", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".html", ".log")
HEADERS = (".mhd", ".nhdr", ".hdr")
"""Of images whose voxels lie in files of their own."""
DATA = (".raw", ".zraw", ".img", ".bin")
"""How such files are usually named."""
NO_IMAGE = "no image"
PACKED = "is packed; unpack it, one folder per case"
KINDS = "NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF, DICOM"


def images_by_entry(folder: Path, problems: Problems, apart_from: Iterable[Path | None] = ()) -> dict[Path, list[Path]]:
    """The files and folders of a folder in natural order, and the image files and folders of DICOM series in each.

    Args:
        folder: Of cases.
        problems: Told of what would be lost, and of what is left out.
        apart_from: Entries that are something else.

    Returns:
        Every entry with an image. More than one image in an entry is left to the caller.
    """
    found: dict[Path, list[Path]] = {}
    slices: list[Path] = []
    series: dict[Path, tuple[Series, ...]] = {}
    behind = BehindHeaders()
    for entry in visible(folder):
        if entry in apart_from:
            continue
        if entry.is_dir():
            images = _images_below(entry, problems, series, behind)
        elif ending_of(entry):
            images = [entry]
        else:
            images = []
            if is_dicom(entry):
                slices.append(entry)
            else:
                _judge(entry, problems, behind)
        if images:
            found[entry] = images
    tell_of_shared(series, problems)
    if slices := [path for path in slices if not _is_left_out(path, problems)]:
        listed = some_of((path.name for path in slices), 3)
        problems.add(folder, f"holds DICOM files without a folder ({listed}); put them into one folder per case")
    return found


def is_one_series(folder: Path, problems: Problems) -> bool:
    """Whether a folder is itself a case: slices of one series lie in it, and no other image at or below it.

    Args:
        folder: The folder.
        problems: Told of what is left out beside the series.
    """
    (series, *others) = dicom_folder(folder).series or (None,)
    if others or series is None or all(file.path.parent != folder for file in series.files):
        return False
    of_case = Problems(problems.source)
    alone = _images_below(folder, of_case, {}, BehindHeaders()) == [folder]
    if alone:
        problems.found += of_case.found
        problems.left_out += of_case.left_out
    return alone


def described(images: Iterable[Path], entry: Path) -> str:
    """Image files and series of an entry, in a few words each."""
    series = [one.described(entry) for one in dicom_folder(entry).series]
    files = [path.relative_to(entry).as_posix() for path in images if path.is_file()]
    return some_of([*files, *series])


def leave_out_unused(cases: Iterable[SourceCase], problems: Problems) -> None:
    """Name the images and archives below the source that no case uses, in one note."""
    used = {path for case in cases for path in (case.image, case.mask, case.lungs) if path is not None}
    named = {problems.source / file for file, _ in problems.left_out}
    told, kinds, behind = used | named, (*IMAGE_ENDINGS, *ARCHIVES, *ENDINGS), BehindHeaders()
    for path in files_in(problems.source, below=True):
        if told.isdisjoint((path, *path.parents)) and ending_of(path, kinds) and path not in behind:
            problems.leave_out(path, "no part of a case of this data set")


class BehindHeaders:
    """The files that hold the voxels behind a header, or may, since one beside them is at fault and told of.

    The headers of a folder are read once.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[set[str], bool]] = {}

    def __contains__(self, path: Path) -> bool:
        if path.parent not in self._known:
            headers = [header for header in files_in(path.parent) if ending_of(header, HEADERS)]
            names = {data.name for header in headers for data in data_files(header)}
            self._known[path.parent] = names, any(map(header_fault, headers))
        names, at_fault = self._known[path.parent]
        return path.name in names or (at_fault and path.suffix.lower() in DATA)


def _images_below(
    entry: Path, problems: Problems, series: dict[Path, tuple[Series, ...]], behind: BehindHeaders
) -> list[Path]:
    """Image files and folders of series of an entry; ``series`` receives what is known of the latter."""
    files = [path for path in files_in(entry, below=True) if ending_of(path)]
    content = dicom_folder(entry)
    series[entry] = content.series
    images = [*files, *(one.folder for one in content.series)]
    for path, reason in content.unusable:
        problems.add(path, reason)
    of_images = set(files)
    others = [(path, what) for path, what in content.left_out if path not in of_images]
    packed = {path for path, _ in others if ending_of(path, ARCHIVES) and path not in behind}
    for path in sorted(packed):
        problems.add(path, PACKED)
    if not images and not content.unusable and not packed:
        listed = some_of((f"{path.relative_to(entry).as_posix()} is {what}" for path, what in others), 3)
        state = f"holds no image: {listed}" if others else "is empty"
        problems.add(entry, f"{state}; add its image, or take the folder out")
    elif images:
        for path, what in others:
            if path in packed:
                continue
            if read_dicom(path) is None:
                _judge(path, problems, behind)
            else:
                problems.leave_out(path, what)
    return images


def _is_left_out(path: Path, problems: Problems) -> bool:
    """Whether a DICOM file is none of the images; then it is named as left out."""
    file = read_dicom(path)
    what = file.no_image if file else None
    if what:
        problems.leave_out(path, what)
    return bool(what)


def _judge(path: Path, problems: Problems, behind: BehindHeaders) -> None:
    """A file that is no image: left out where that is plain, a problem where it may hold one."""
    if ending_of(path, PAPERS):
        problems.leave_out(path, NO_IMAGE)
    elif ending_of(path, ARCHIVES) and path not in behind:
        problems.add(path, PACKED)
    elif path.is_symlink() and not path.exists():
        problems.add(path, f"is a link to {path.readlink()}, which is not there; bring it back, or take the link out")
    elif path not in behind:
        problems.add(path, f"is no image of a kind that is read ({KINDS}); convert it, or take it out")
