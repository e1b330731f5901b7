"""Finding files in source folders and pairing images with their masks by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.picture import PICTURE_ENDINGS
from nnunet_covid.raw_dataset.problems import Problems, relative_name

VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def find_root(source: Path, marker: str, expected: Iterable[str]) -> Path:
    """The folder that holds ``marker``: the source itself or a folder at most two levels below it.

    Raises:
        UserError: If the source does not exist or holds no such folder or file.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; give the folder into which the data set was unpacked")
    for pattern in (marker, f"*/{marker}", f"*/*/{marker}"):
        if hits := sorted(source.glob(pattern)):
            return hits[0].parents[len(Path(marker).parts) - 1]
    wanted = ", ".join(expected)
    state = "is empty" if not any(source.iterdir()) else f"holds no {marker}"
    raise UserError(f"{source} {state}; expected there: {wanted}")


def find_files(source: Path, pattern: str, expected: Iterable[str]) -> list[Path]:
    """All files at or below the source whose whole name matches a regular expression, in natural order.

    Raises:
        UserError: If the source does not exist or holds no such file.
    """
    if not source.is_dir():
        raise UserError(f"{source} is not a folder; give the folder into which the data set was unpacked")
    found = [path for path in source.rglob("*") if re.fullmatch(pattern, path.name) and path.is_file()]
    if not found:
        state = "is empty" if not any(source.iterdir()) else "holds no file of this data set"
        raise UserError(f"{source} {state}; expected there: {', '.join(expected)}")
    return sorted(found, key=lambda path: natural_key(path.as_posix()))


def ending_of(path: Path, endings: Iterable[str]) -> str | None:
    """Which of the endings the file name has, in any case."""
    name = path.name.lower()
    return next((ending for ending in endings if name.endswith(ending)), None)


def files_by_stem(folder: Path, problems: Problems, endings: Iterable[str] = PICTURE_ENDINGS) -> dict[str, Path]:
    """The usable files of one folder by name without ending, in natural order; hidden files are passed over.

    A folder that is missing or empty, two files with one name and files of another type become problems.
    """
    endings = tuple(endings)
    if not folder.is_dir():
        problems.add(folder, "folder is missing; unpack the whole data set")
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith(".") or path.name in {"Thumbs.db", "desktop.ini"}:
            continue
        ending = ending_of(path, endings)
        if ending is None:
            problems.add(path, f"is none of {', '.join(endings)}; move it out of this folder")
            continue
        stem = path.name[: -len(ending)]
        if stem in found:
            problems.add(path, f"has the same name as {found[stem].name}; keep one of them")
            continue
        found[stem] = path
    if not found:
        problems.add(folder, f"folder holds no {', '.join(endings)} files; unpack the whole data set")
    return found


def pair(images: Mapping[str, Path], masks: Mapping[str, Path], problems: Problems) -> list[tuple[str, Path, Path]]:
    """Stem, image and mask of every pair; what has no partner becomes a problem."""
    folder_of_masks = next((path.parent for path in masks.values()), None)
    for stem, image in images.items():
        if stem not in masks:
            where = f" in {relative_name(folder_of_masks, problems.source)}" if folder_of_masks else ""
            problems.add(image, f"has no mask{where}; add {stem}.* there or take the image out")
    for stem, mask in masks.items():
        if stem not in images:
            problems.add(mask, f"is a mask without an image; add the image {stem}.* or take the mask out")
    return [(stem, image, masks[stem]) for stem, image in images.items() if stem in masks]


def natural_key(text: str) -> list[tuple[int, str]]:
    """Sorting key under which ``2`` comes before ``10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text) if part]


def padded(stem: str, digits: int = 3) -> str:
    """``stem`` with its last number zero-padded and without characters that a case name must not have."""
    clean = re.sub(r"[^A-Za-z0-9.-]+", "_", stem).strip("_.")
    return re.sub(r"(\d+)(?!.*\d)", lambda match: match.group(1).zfill(digits), clean)
