"""The half-finished data set: a hidden folder beside its destination, and a journal of what it already holds.

The destination appears by one rename when everything is there. A conversion that was killed leaves the hidden
folder; the next run of the same conversion goes on where the journal ends.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.raw_dataset.case import sha256_of

_JOURNAL = "journal.jsonl"


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

    def to_json(self) -> dict[str, Any]:
        """The entry in ``conversion.json``."""
        return asdict(self)

    def files(self) -> dict[str, str]:
        """All output files and their SHA-256."""
        return {file: digest for files in self.outputs.values() for file, digest in files.items()}


class Staging:
    """The hidden folder of one conversion."""

    def __init__(self, destination: Path, request: Mapping[str, Any]) -> None:
        """Open the folder, keeping what an interrupted run of the same ``request`` left in it."""
        self.destination = destination
        self.folder = destination.with_name(f".{destination.name}.partial")
        self._journal = self.folder / _JOURNAL
        self._head = json.dumps(request, sort_keys=True)
        self.records: dict[str, CaseRecord] = {}
        if self._journal.is_file():
            self._resume()
        else:
            self._start_afresh()

    def _start_afresh(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._journal.write_text(self._head + "\n", encoding="utf-8")

    def _resume(self) -> None:
        head, *lines = self._journal.read_text(encoding="utf-8").splitlines() or [""]
        if head != self._head:
            self._start_afresh()
            return
        for line in lines:
            try:
                record = CaseRecord(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                continue  # the line that was being written when the run was killed
            if all(_intact(self.folder / file, digest) for file, digest in record.files().items()):
                self.records[record.case] = record
        self._remove_unrecorded()
        text = [self._head, *(json.dumps(record.to_json()) for record in self.records.values())]
        write_atomically(self._journal, "\n".join(text) + "\n")

    def _remove_unrecorded(self) -> None:
        known = {file for record in self.records.values() for file in record.files()} | {_JOURNAL}
        for path in sorted(self.folder.rglob("*")):
            if path.is_file() and path.relative_to(self.folder).as_posix() not in known:
                path.unlink()

    def forget(self, case: str) -> None:
        """Drop one case whose source has changed since the interrupted run."""
        for file in self.records.pop(case).files():
            (self.folder / file).unlink(missing_ok=True)

    def add(self, record: CaseRecord) -> None:
        """Enter a finished case into the journal."""
        self.records[record.case] = record
        with self._journal.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(record.to_json()) + "\n")

    def finish(self, documents: Mapping[str, Any], folders: Iterable[str]) -> None:
        """Write the JSON documents, make sure the folders exist and move everything to the destination."""
        for name in folders:
            (self.folder / name).mkdir(exist_ok=True)
        for name, content in documents.items():
            write_atomically(self.folder / name, json.dumps(content, indent=2) + "\n")
        self._journal.unlink()
        os.replace(self.folder, self.destination)

    def discard(self) -> None:
        """Remove the folder and all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under a temporary name and rename it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _intact(path: Path, digest: str) -> bool:
    return path.is_file() and sha256_of(path) == digest
