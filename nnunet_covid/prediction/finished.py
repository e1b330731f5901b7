"""What is done in a folder of predictions: by name, the image's files and a digest of model and settings.

A line per image is appended to a file of the folder just before the prediction takes its name, and an earlier
prediction of that name is removed before that. So the newest line of an image, if its files are there in the size that
it tells, belongs to them, whenever the process was killed. Several processes may work on parts of one folder, each with
its own file; of their lines the time tells which is the newest.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, sha256_of

NAME = "predicted"
ENDING = ".jsonl"
WITH_PROBABILITIES = (".npz", ".pkl")
"""What nnU-Net writes beside a label map where probabilities are asked for."""
DIGITS = 16
"""Of the digest of a file."""
Files = dict[str, dict[str, int | str]]
"""Name of each file of an image to what tells whether it is the same: bytes, time of its last change, digest."""


def described(files: Sequence[Path]) -> Files:
    """What is recorded of files that are about to be read; those that are not there are left out.

    Raises:
        UserError: If one cannot be read.
    """
    found: Files = {}
    for path in files:
        try:
            if path.is_file():
                found[path.name] = {**_stamp(path.stat()), "sha256": sha256_of(path)[:DIGITS]}
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from e
    return found


def _stamp(status: os.stat_result) -> dict[str, int]:
    return {"bytes": status.st_size, "changed": status.st_mtime_ns}


def _is_same(path: Path, known: object) -> bool:
    """Whether a file is still the recorded one; its content is looked at only where its time is another."""
    try:
        stamp = _stamp(path.stat())
        if not isinstance(known, dict) or known.get("bytes") != stamp["bytes"]:
            return False
        return known.get("changed") == stamp["changed"] or known.get("sha256") == sha256_of(path)[:DIGITS]
    except OSError:
        return False


class Finished:
    """The record of one folder.

    Args:
        folder: Of the predictions; it need not exist before something is recorded.
        digest: Of model and settings.
        part: Number of this part and how many there are.
    """

    def __init__(self, folder: Path, digest: str, part: tuple[int, int] = (1, 1)) -> None:
        number, count = part
        self._folder = folder
        self._digest = digest
        self._file = folder / (f"{NAME}{ENDING}" if count == 1 else f"{NAME}_{number}_of_{count}{ENDING}")
        self._lock = Lock()
        self._known: dict[str, list[dict[str, Any]]] = {}
        for path in files_in(folder, ENDING):
            if path.name.startswith(NAME):
                self._read(path)

    def _read(self, path: Path) -> None:
        newest: dict[str, dict[str, Any]] = {}
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                newest[entry["case"]] = {**entry, "time": float(entry.get("time", 0))}  # earlier versions wrote none
            except (ValueError, KeyError, TypeError):
                continue  # cut short where the process was killed
        for case, entry in newest.items():
            self._known.setdefault(case, []).append(entry)

    def has(self, case: str, files: Sequence[Path], endings: tuple[str, ...]) -> bool:
        """Whether a case is done with this model from files of these names and contents, and its results are there."""
        found = self._known.get(case, [])
        newest = max((entry["time"] for entry in found), default=0)
        return any(
            entry["time"] == newest
            and entry.get("model") == self._digest
            and all(_size(self._folder / f"{case}{end}") == entry.get("outputs", {}).get(end, -1) for end in endings)
            and _are_same(files, entry.get("inputs"))
            for entry in found
        )

    def record(self, case: str, inputs: Files, outputs: Mapping[str, int]) -> None:
        """Append a case, while its results still have their temporary names; earlier results are removed.

        Args:
            case: Its name.
            inputs: Its image files as they were before they were read.
            outputs: Ending to size of its results.
        """
        for ending in {*outputs, *WITH_PROBABILITIES}:
            (self._folder / f"{case}{ending}").unlink(missing_ok=True)
        made = {"model": self._digest, "outputs": dict(outputs), "time": time.time()}
        line = json.dumps({"case": case, "inputs": inputs, **made}) + "\n"
        with self._lock, self._file.open("ab+") as stream:
            if stream.tell() and not self._ends_with_line():
                line = "\n" + line
            stream.write(line.encode())

    def _ends_with_line(self) -> bool:
        with self._file.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read() == b"\n"


def _are_same(files: Sequence[Path], known: object) -> bool:
    names = {path.name for path in files}
    return isinstance(known, dict) and set(known) == names and all(_is_same(path, known[path.name]) for path in files)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
