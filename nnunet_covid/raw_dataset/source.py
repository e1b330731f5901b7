"""What lies in a source folder: which files are images, which belong together, whom they show, and what is wrong.

Nothing here opens an image: see ``pictures`` and ``volumes``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_covid.csv_files import read_csv
from nnunet_covid.endings import JPEG_ENDINGS, PICTURE_ENDINGS, ending_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, is_hidden, some_of
from nnunet_covid.raw_dataset.names import composed

DELIMITERS = ",;\t"
"""Between the columns of a table, ; of spreadsheets where a comma stands in numbers; the first where none occurs."""


class UnusableFile(UserError):
    """Raised while one case is read; the conversion collects it and goes on with the other cases."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnusableFile], tuple[Path, str]]:
        """What another process makes it of."""
        return type(self), (self.path, self.reason)


@dataclass
class Problems:
    """All that is wrong below one source folder, so that the user hears of it once and completely.

    Attributes:
        source: The folder.
        found: File, as seen from the folder, and reason.
        about: The argument that would put one of them right.
        left_out: What is passed over without harm to a case, file and what it is; the user hears of it as well.
    """

    source: Path
    found: list[tuple[str, str]] = field(default_factory=list)
    about: str | None = None
    left_out: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: Path, reason: str, about: str | None = None) -> None:
        """Remember that ``path`` cannot be used; ``reason`` ends with the remedy."""
        if (problem := (relative_name(path, self.source), reason)) not in self.found:
            self.found.append(problem)
        self.about = about or self.about

    def leave_out(self, path: Path, reason: str) -> None:
        """Remember that ``path`` is not used; ``reason`` says what it is."""
        self.left_out.append((relative_name(path, self.source), reason))

    def notes(self) -> list[str]:
        """One line for each reason why something is left out."""
        reasons = dict.fromkeys(reason for _, reason in self.left_out)
        named = {reason: [file for file, why in self.left_out if why == reason] for reason in reasons}
        return [f"note: left out {some_of(files, 3)}: {reason}" for reason, files in named.items()]

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Remember the unusable file at which the work of this context ends, if there is one."""
        try:
            yield
        except UnusableFile as e:
            self.add(e.path, e.reason)

    def raise_if_any(self) -> None:
        """Raise one ``UserError`` that lists every problem.

        Raises:
            UserError: If anything was added.
        """
        if len(self.found) == 1:
            file, reason = self.found[0]
            raise UserError(f"{self.source / file}: {reason}", self.about)
        if self.found:
            head = f"{len(self.found)} problems in {self.source}, nothing was written:"
            raise UserError("\n".join([head, *(f"  {file}: {reason}" for file, reason in self.found)]), self.about)


def relative_name(path: Path, base: Path) -> str:
    """``path`` as seen from ``base``, with forward slashes; the whole path where it lies elsewhere."""
    if not path.is_relative_to(base):
        return path.as_posix()
    return path.relative_to(base).as_posix()


def stem_of(path: Path) -> str:
    """The file name without the ending of an image, its accents composed."""
    return composed(path.name[: len(path.name) - len(ending_of(path) or "")])


def is_picture(path: Path) -> bool:
    """Whether a path is a PNG or JPEG slice by its name, not a volume or a folder."""
    return ending_of(path, PICTURE_ENDINGS) is not None and not path.is_dir()


def is_lossy(path: Path) -> bool:
    """Whether a picture is a JPEG by its name, in which values are not what was saved."""
    return ending_of(path, JPEG_ENDINGS) is not None


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorting key under which ``2`` comes before ``10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def find_root(source: Path, marker: str, expected: Iterable[str]) -> Path:
    """The folder that holds ``marker``: the source itself or a folder at most two levels below it.

    Raises:
        UserError: If the source does not exist or holds no such folder or file.
    """
    for pattern in (marker, f"*/{marker}", f"*/*/{marker}"):
        if hits := sorted(source.glob(pattern)):
            return hits[0].parents[len(Path(marker).parts) - 1]
    raise _missing(source, marker, expected)


def find_files(source: Path, pattern: str, expected: Iterable[str]) -> list[Path]:
    """All files at or below the source whose whole name matches a regular expression, in natural order; no hidden ones.

    Raises:
        UserError: If the source does not exist or holds no such file.
    """
    found = [path for path in files_in(source, below=True) if re.fullmatch(pattern, path.name)]
    if not found:
        raise _missing(source, "file of this data set", expected)
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def _missing(source: Path, what: str, expected: Iterable[str]) -> UserError:
    if not source.is_dir():
        return UserError(f"{source} is not a folder; give the folder into which the data set was unpacked")
    state = "is empty" if not any(source.iterdir()) else f"holds no {what}"
    return UserError(f"{source} {state}; expected there: {', '.join(expected)}")


def visible(folder: Path) -> list[Path]:
    """Files and folders of a folder in natural order; hidden ones are passed over."""
    return sorted((path for path in folder.iterdir() if not is_hidden(path)), key=lambda path: natural_key(path.name))


def files_by_stem(folder: Path, problems: Problems, endings: tuple[str, ...] = PICTURE_ENDINGS) -> dict[str, Path]:
    """The usable files of one folder by name without ending, in natural order; hidden files are passed over.

    A folder that is missing or empty, two files with one name and files of another type become problems.
    """
    if not folder.is_dir():
        problems.add(folder, "folder is missing; unpack the whole data set")
        return {}
    found: dict[str, Path] = {}
    for path in visible(folder):
        stem = stem_of(path)
        if ending_of(path, endings) is None:
            problems.add(path, f"is none of {', '.join(endings)}; move it out of this folder")
        elif stem in found:
            problems.add(path, f"has the same name as {found[stem].name}; keep one of them")
        else:
            found[stem] = path
    if not found:
        problems.add(folder, f"folder holds no {', '.join(endings)} files; unpack the whole data set")
    return found


def pairs(
    images: Path | Mapping[str, Path],
    masks: Path,
    problems: Problems,
    *,
    lungs: Path | None = None,
    endings: tuple[str, ...] = PICTURE_ENDINGS,
) -> list[tuple[str, Path, Path, Path | None]]:
    """Stem, image, mask and lung mask of every case; what has no partner becomes a problem.

    Args:
        images: Their folder, or image by stem.
        masks: Folder of files with the stems of the images.
        problems: Where to put what is wrong.
        lungs: Likewise, if there are lung masks.
        endings: Of all these files.
    """
    image_of = files_by_stem(images, problems, endings) if isinstance(images, Path) else images
    mask_of = files_by_stem(masks, problems, endings)
    lungs_of = files_by_stem(lungs, problems, endings) if lungs else {}
    for partners in (lungs_of, mask_of) if lungs else (mask_of,):
        where = next((f" in {relative_name(path.parent, problems.source)}" for path in partners.values()), "")
        for stem in (stem for stem in image_of if stem not in partners):
            problems.add(image_of[stem], f"has no mask{where}; add {stem}.* there or take the image out")
        for stem in (stem for stem in partners if stem not in image_of):
            reason = f"is a mask without an image; add the image {stem}.* or take the mask out"
            problems.add(partners[stem], reason)
    return [(stem, path, mask_of[stem], lungs_of.get(stem)) for stem, path in image_of.items() if stem in mask_of]


def read_patients(path: Path) -> dict[str, str]:
    """File name to patient, from a CSV file with the columns ``file`` and ``case`` (or ``patient``).

    Raises:
        UserError: If the file cannot be read, lacks the columns or an entry, or gives a file two patients.
    """
    rows = [{name.strip().lower(): value for name, value in row.items()} for row in read_csv(path, DELIMITERS)[1]]
    columns = set(rows[0]) if rows else set()
    patient = next((name for name in ("case", "patient") if name in columns), None)
    if "file" not in columns or patient is None:
        raise UserError(f"{path} needs a first line with the columns file and case; found {sorted(map(str, columns))}")
    patients: dict[str, str] = {}
    for row in rows:
        file, value = composed(row["file"] or "").strip(), (row[patient] or "").strip()
        if not (file and value):
            raise UserError(f"{path} has a line without a file or without its {patient}: {file}{value}; fill it in")
        if patients.setdefault(file, value) != value:
            raise UserError(f"{path} says {patients[file]} as well as {value} for {file}; keep one line")
    return patients
