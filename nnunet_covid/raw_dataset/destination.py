"""Where the converted data set goes: nnU-Net's folders, what may already lie there, and the half-finished data set.

A data set comes about in a hidden folder beside its destination, with a journal of what it already holds, and appears
by one rename when everything is there. A conversion that was killed leaves the hidden folder; the next run of the same
conversion goes on where the journal ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.dataset_json import other_folds
from nnunet_covid.errors import UserError
from nnunet_covid.files import (
    environment_folder,
    environment_folders,
    replacing,
    sha256_of,
    stays_below,
    unfinished_folder,
    write_json,
    write_text,
)

NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What nnU-Net's commands and a file system take."""

JOURNAL = "journal.jsonl"


def raw_base_folder(output: Path | None) -> Path:
    """The folder that holds raw data sets: ``output``, else the environment's ``nnUNet_raw``.

    Raises:
        UserError: If neither is given.
    """
    folder = output or environment_folder("nnUNet_raw")
    if folder is None:
        raise UserError("nnUNet_raw is not set: export nnUNet_raw=/your/folder, or name a folder", about="output")
    return folder


def is_environments_raw_folder(folder: Path) -> bool:
    """Whether a folder is the environment's ``nnUNet_raw``, so that the other nnU-Net folders belong to it."""
    raw = environment_folder("nnUNet_raw")
    return raw is not None and raw.resolve() == folder.resolve()


def dataset_folder_name(number: int, name: str) -> str:
    """``Dataset501_COVIDSemiSeg``.

    Raises:
        UserError: If the number does not fit nnU-Net's three digits, or the name is none for a folder.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"the name {name!r} of a data set must consist of letters, digits, hyphens and underscores")
    if not 1 <= number <= 999:
        raise UserError(f"data set number {number} is not between 1 and 999; choose another", about="number")
    return f"Dataset{number:03d}_{name}"


def refuse_number_in_use(folder: Path, *, search_environment: bool) -> None:
    """nnU-Net finds data sets by number, so one number must not stand for two names.

    Args:
        folder: The data set folder that is to be written.
        search_environment: Whether to look in the environment's three nnU-Net folders as well.

    Raises:
        UserError: If another data set with the same number exists.
    """
    bases = [folder.parent, *(environment_folders() if search_environment else [])]
    prefix = folder.name[: len("Dataset000")]
    for base in bases:
        for other in sorted(base.glob(f"{prefix}*")) if base.is_dir() else []:
            if other.is_dir() and other.name != folder.name:
                raise UserError(f"{other} has the same number; choose another number", about="number")


def place_splits(folder: Path, *, use_environment: bool) -> str | None:
    """Copy ``splits_final.json`` to where nnU-Net looks for it, below ``nnUNet_preprocessed``.

    An existing file is never changed: it may be the user's own.

    Returns:
        A sentence for the user, or ``None`` where there is nothing to say.
    """
    splits = folder / "splits_final.json"
    base = environment_folder("nnUNet_preprocessed")
    if not splits.is_file():
        return None
    if not use_environment or base is None:
        where = f"nnUNet_preprocessed/{folder.name}/"
        return f"copy {splits} to {where} before training, or nnU-Net draws its own split"
    target = base / folder.name / splits.name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as unfinished:
                shutil.copyfile(splits, unfinished)
        except OSError as e:
            return f"cannot write {target} ({e.strerror}); copy {splits} there before training"
    elif line := other_folds(target, splits):
        return f"{line}; nothing was changed"
    return None


@dataclass(frozen=True)
class CaseRecord:
    """What became of one source case; one entry of ``conversion.json``.

    Attributes:
        case: Name of the source case.
        patient: Its patient.
        part: ``imagesTr``, ``imagesTs`` or ``imagesUn``.
        sources: Role to the source file's relative name and SHA-256.
        outputs: Name of each resulting case to its files and their SHA-256, relative to the data set folder.
        notes: What the reader recorded.
    """

    case: str
    patient: str
    part: str
    sources: dict[str, dict[str, str]]
    outputs: dict[str, dict[str, str]]
    notes: dict[str, Any]

    def __post_init__(self) -> None:
        """Refuse a record, read back from disk, whose files lie elsewhere: they are compared and may be deleted.

        Raises:
            ValueError: If it is no such record.
        """
        tables = all(
            isinstance(table, dict) and all(isinstance(files, dict) for files in table.values())
            for table in (self.sources, self.outputs)
        )
        if not (tables and isinstance(self.notes, dict) and all(map(stays_below, self.files()))):
            raise ValueError(f"no record of a case: {self.outputs}")

    def first_changed_file(self, folder: Path) -> Path | None:
        """The first of the outputs that is not there any more as it was written."""
        for files in self.outputs.values():
            for file, digest in files.items():
                if not (folder / file).is_file() or sha256_of(folder / file) != digest:
                    return folder / file
        return None

    def files(self) -> set[str]:
        """All output files, relative to the data set folder."""
        return {file for files in self.outputs.values() for file in files}


class Staging:
    """The hidden folder of one conversion."""

    def __init__(self, destination: Path, request: Mapping[str, Any]) -> None:
        """Open the folder, keeping what an interrupted run of the same ``request`` left in it."""
        self.destination = destination
        self.folder = unfinished_folder(destination)
        self._journal = self.folder / JOURNAL
        self.records: dict[str, CaseRecord] = {}
        journal = self._journal.read_text(encoding="utf-8") if self._journal.is_file() else ""
        found, *lines = journal.splitlines() or [""]
        head = json.dumps(request, sort_keys=True)
        if found == head:
            self._resume(lines)
        else:
            self.discard()
            self.folder.mkdir(parents=True)
        text = [head, *(json.dumps(asdict(record)) for record in self.records.values())]
        write_text(self._journal, "\n".join(text) + "\n")

    def _resume(self, journal: Iterable[str]) -> None:
        """Know the cases of which every file is as it was written, and remove all other files."""
        for line in journal:
            try:
                record = CaseRecord(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the line that was being written when the run was killed
            if record.first_changed_file(self.folder) is None:
                self.records[record.case] = record
        known = {file for record in self.records.values() for file in record.files()} | {JOURNAL}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in known:
                path.unlink()

    def forget(self, case: str) -> None:
        """Drop one case that would not come out as it did in the interrupted run."""
        for file in self.records.pop(case).files():
            (self.folder / file).unlink(missing_ok=True)

    def add(self, record: CaseRecord) -> None:
        """Enter a finished case into the journal."""
        self.records[record.case] = record
        with self._journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(record)) + "\n")

    def finish(self, documents: Mapping[str, Any], folders: Iterable[str]) -> None:
        """Write the JSON documents, make sure the folders exist and move everything to the destination."""
        for name in folders:
            (self.folder / name).mkdir(exist_ok=True)
        for name, content in documents.items():
            write_json(self.folder / name, content)
        self._journal.unlink()
        os.replace(self.folder, self.destination)

    def discard(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
