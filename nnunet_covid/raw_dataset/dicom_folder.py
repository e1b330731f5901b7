"""What DICOM lies in a folder: the series, and the files that belong to none.

What one file is stands in ``dicom``; whether a series is a whole volume, in ``dicom_series``.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_covid.files import files_in, sha256_of, some_of
from nnunet_covid.raw_dataset.dicom import ENDINGS, DicomFile, read_dicom
from nnunet_covid.raw_dataset.source import Problems, UnusableFile, relative_name


@dataclass(frozen=True)
class Series:
    """The files of one series, at or below the folder that holds all of them."""

    folder: Path
    files: tuple[DicomFile, ...]

    @property
    def place(self) -> Path:
        """What a message names: the one file, or the folder."""
        return self.files[0].path if len(self.files) == 1 else self.folder

    def described(self, base: Path) -> str:
        """Where it lies, seen from ``base``, how many files it has, and what it shows."""
        place = relative_name(self.folder if self.folder != base else self.files[0].path, base)
        count = f"{len(self.files)} files" if len(self.files) > 1 else "1 file"
        return f"{place} ({count}, {Counter(file.description for file in self.files).most_common(1)[0][0]})"


@dataclass(frozen=True)
class DicomFolder:
    """What lies at or below a folder.

    Attributes:
        series: Images by series, in the order of their folders and names.
        left_out: Files of no series, and what they are.
        unusable: Files that should be slices and are not, and the remedy.
    """

    series: tuple[Series, ...]
    left_out: tuple[tuple[Path, str], ...]
    unusable: tuple[tuple[Path, str], ...]

    def other_than_series(self) -> str:
        """What else there is, to go into a sentence; empty where there is nothing."""
        found = [f"{path.name} is {what.partition(';')[0]}" for path, what in self.left_out]
        return f" ({some_of(found, 3)})" if found else ""


def dicom_folder(folder: Path) -> DicomFolder:
    """Look at all files at or below a folder."""
    images: dict[str, list[DicomFile]] = defaultdict(list)
    left_out, unusable, strangers = [], [], []
    for path in files_in(folder, below=True):
        file = read_dicom(path)
        if file is None:
            strangers.append(path)
        elif file.damaged:
            unusable.append((path, "is a damaged DICOM file; download or export it again"))
        elif what := file.no_image:
            left_out.append((path, what))
        else:
            images[file.series].append(file)
    series = [
        Series(Path(os.path.commonpath([file.path.parent for file in files])), tuple(files))
        for files in images.values()
    ]
    of_slices = {(file.path.parent, _kind_of_name(file.path)) for files in images.values() for file in files}
    for path in strangers:
        if path.suffix.lower() in ENDINGS or (path.parent, _kind_of_name(path)) in of_slices:
            unusable.append((path, f"{_state(path)}; download or export it again, or take it out"))
        else:
            left_out.append((path, "no DICOM file"))
    ordered = sorted(series, key=lambda one: (one.folder, one.files[0].path))
    return DicomFolder(tuple(ordered), tuple(left_out), tuple(sorted(unusable)))


def _state(path: Path) -> str:
    if not path.exists():
        return "is a link to a file that is not there"
    return "is no DICOM file" if path.stat().st_size else "is empty"


def _kind_of_name(path: Path) -> str:
    """The ending; empty where it is but the last number of a name (1.2.840.113)."""
    return "" if path.suffix[1:].isdigit() else path.suffix.lower()


def one_series(folder: Path) -> Series:
    """The one series of a folder, not that of a folder below it.

    Raises:
        UnusableFile: If there is none, or several, or a file cannot be one of its slices.
    """
    content = dicom_folder(folder)
    here = [series for series in content.series if series.folder == folder]
    for path, reason in content.unusable:
        if path.parent == folder or here:
            raise UnusableFile(path, reason)
    if not here:
        found = f", but {some_of(f'{path.name}, which {what}' for path, what in content.left_out)}" * bool(
            content.left_out
        )
        raise UnusableFile(folder, f"holds no DICOM series{found}; give the folder that holds the slices")
    if len(here) > 1:
        raise UnusableFile(folder, several(here, folder))
    return here[0]


def several(found: Sequence[Series], folder: Path) -> str:
    """What is wrong with several series where there must be one, and the remedy."""
    listed = some_of(series.described(folder) for series in found)
    if all(len(series.files) == 1 for series in found) and len(found) > 2:
        remedy = "every file names a series of its own: export a volume as one series, or as NIfTI"
    else:
        remedy = "leave one series in the folder"
    return f"holds {len(found)} DICOM series: {listed}; {remedy}"


def tell_of_shared(series_of: Mapping[Path, Sequence[Series]], problems: Problems) -> None:
    """Tell of a series that lies in two folders of cases: its slices were divided among them, or copied.

    An anonymiser may give several patients the same UID, so that alone says nothing.
    """
    known: dict[str, list[Series]] = defaultdict(list)
    for entry, several_series in series_of.items():
        for one in several_series:
            for other in known[one.files[0].series] if one.files[0].series else ():
                place = relative_name(other.folder, problems.source)
                if _holds_copy(one, other):
                    problems.add(entry, f"holds slices that lie in {place}, too; leave one of the two")
                elif _continues(one, other):
                    problems.add(entry, f"holds slices of the series in {place}; put them together into one folder")
            known[one.files[0].series].append(one)


def _holds_copy(one: Series, other: Series) -> bool:
    path = one.files[0].path
    size = path.stat().st_size
    alike = [file.path for file in other.files if file.path.stat().st_size == size]
    return bool(alike) and sha256_of(path) in map(sha256_of, alike)


def _continues(one: Series, other: Series) -> bool:
    """Whether slices of two folders make one volume: in one direction, side by side, and none where another lies."""
    frames = [[frame for file in series.files for frame in file.frames] for series in (one, other)]
    positions = [[frame.position for frame in some if frame.position and len(frame.position) == 3] for some in frames]
    grids = {(frame.orientation, frame.spacing) for some in frames for frame in some}
    if not all(positions) or len(grids) != 1 or len(orientation := frames[0][0].orientation or ()) != 6:
        return False
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    axes = np.stack([row, column, np.cross(row, column)], axis=-1)
    (x, y, z), (u, v, w) = (np.round(np.array(some) @ axes, 1).T for some in positions)
    return len({*x, *u}) == len({*y, *v}) == 1 and not {*z} & {*w}
