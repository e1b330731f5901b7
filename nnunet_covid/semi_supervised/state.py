"""What a run has done, on disk after every unit of work, so that it can be killed at any moment.

A unit is a function that may be done again from its start without harm. Its result is written down when it has ended;
from then on it is never done again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised.options import RoundOptions, differences

VERSION = 1
FILE = "state.json"


class RunState:
    """The units that are done and their results.

    Attributes:
        folder: Holds the state file.
        options: What decides the run.
        context: Data set, trainer and images it works on.
        units: Name of a unit to its result and its seconds.
    """

    def __init__(self, folder: Path, options: RoundOptions, context: dict[str, Any]) -> None:
        self.folder = folder
        self.options = options
        self.context = context
        self.units: dict[str, dict[str, Any]] = {}

    @classmethod
    def open(cls, folder: Path, options: RoundOptions, context: dict[str, Any]) -> RunState:
        """A new run, or the interrupted one of the same options.

        Raises:
            UserError: If the folder holds a run with other options, another trainer or other images.
        """
        state = cls(folder, options, context)
        found = read_state(folder)
        if found is None:
            return state
        changed = differences(found["options"], options)
        changed += [
            f"{key} was {found['context'].get(key)!r} and is {value!r}"
            for key, value in context.items()
            if found["context"].get(key) != value
        ]
        if changed:
            raise UserError(
                f"{folder} holds a run with other settings ({'; '.join(changed)}). Give the same ones to go on, "
                "another --name to start beside it, or delete the folder"
            )
        state.units = found["units"]
        return state

    def once(self, name: str, work: Callable[[], Any]) -> Any:
        """The result of a unit, doing it if it is not done yet."""
        if name not in self.units:
            start = time.perf_counter()
            result = work()
            self.units[name] = {"result": result, "seconds": round(time.perf_counter() - start, 3)}
            self.save()
            result = json.loads(json.dumps(result))
        return self.units[name]["result"]

    def done(self, name: str) -> bool:
        """Whether a unit has ended."""
        return name in self.units

    def save(self) -> None:
        """Write the state; a reader sees the old one or the new one."""
        content = {
            "version": VERSION,
            "options": self.options.to_json(),
            "context": self.context,
            "units": self.units,
        }
        write_durably(self.folder / FILE, json.dumps(content, indent=1) + "\n")


def read_state(folder: Path) -> dict[str, Any] | None:
    """The content of a state file; ``None`` if there is none.

    Raises:
        UserError: If it cannot be read or is of another version.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = int(content["version"])
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} cannot be read ({e}); restore it, or delete the folder to start afresh") from e
    if found != VERSION:
        raise UserError(
            f"{path} is of version {found}, this program writes {VERSION}; delete the folder to start afresh"
        )
    return content


def write_durably(path: Path, text: str) -> None:
    """Write a text file under a temporary name, force it to the disk and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
