"""What is done in a folder of predictions: by name, sizes of the image's files and a digest of model and settings.

A line per image is appended to a file of the folder just before the prediction takes its name, and an earlier
prediction of that name is removed before that. So a line whose files are there, in the size that it tells, belongs to
them, whenever the process was killed. Several processes may work on parts of one folder, each with its own file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from nnunet_covid.files import files_in

NAME = "predicted"
ENDING = ".jsonl"


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
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
                self._known.setdefault(entry["case"], []).append(entry)
            except (ValueError, KeyError, TypeError):
                continue  # cut short where the process was killed

    def has(self, case: str, inputs: Mapping[str, int], endings: tuple[str, ...]) -> bool:
        """Whether a case is done with this model from files of these names and sizes, and its results are there."""
        return any(
            entry.get("model") == self._digest
            and entry.get("inputs") == dict(inputs)
            and all(_size(self._folder / f"{case}{end}") == entry.get("outputs", {}).get(end, -1) for end in endings)
            for entry in self._known.get(case, [])
        )

    def record(self, case: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        """Append a case, while its results still have their temporary names; earlier results are removed.

        Args:
            case: Its name.
            inputs: Name to size of its image files.
            outputs: Ending to size of its results.
        """
        for ending in outputs:
            (self._folder / f"{case}{ending}").unlink(missing_ok=True)
        entry = {"case": case, "inputs": dict(inputs), "model": self._digest, "outputs": dict(outputs)}
        line = json.dumps(entry) + "\n"
        with self._lock, self._file.open("ab+") as stream:
            if stream.tell() and not self._ends_with_line():
                line = "\n" + line
            stream.write(line.encode())

    def _ends_with_line(self) -> bool:
        with self._file.open("rb") as stream:
            stream.seek(-1, 2)
            return stream.read() == b"\n"


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
