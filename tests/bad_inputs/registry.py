"""What a bad input is, of which kind, and where all of them are; tried by ``tests/cli/test_bad_inputs.py``.

To add one: an entry in ``BAD_INPUTS`` of the module of its room, or of a new module in this folder, which is found by
itself; then ``python docs/list_bad_inputs.py``, which writes docs/reference/bad-inputs.md.
"""

from __future__ import annotations

import enum
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import bad_inputs


class Kind(enum.Enum):
    """What is wrong with an input, and what the answer to all of its kind is."""

    UNUSED = (
        "something of the input would silently not be used",
        "Whatever is left out is named, with the reason; where a case would be lost the command ends.",
    )
    NAMES = (
        "file and folder names",
        "Every case gets a name of its own, or the files are named that would get none or the same one.",
    )
    LABELS = (
        "values, colours and tables of labels",
        "Values within 0.001 of a whole number are rounded; all others are told with their file, and what is allowed.",
    )
    UNITS = (
        "units, voxel sizes and axes",
        "They are decided case by case, compared, and never guessed where a header is blank.",
    )
    DAMAGED = (
        "damaged and odd files",
        "The file is named, and whether to copy, export or download it again; there is no traceback.",
    )
    HOSTILE = (
        "files made to do harm",
        "No memory is asked for by the word of a header, no code of a file is run, no name leads to another folder.",
    )
    STALE = (
        "files that were changed since",
        "What belongs to other files than before is told, or done anew.",
    )
    ONE_OF_MANY = (
        "one bad image in a folder",
        "Commands that work image by image go on with the others, and end with a list and exit status 1.",
    )
    OPTIONS = (
        "options and arguments",
        "The option is named, and what it takes.",
    )
    UNSUPPORTED = (
        "what a trainer does not support",
        "The training ends with one line before anything is written.",
    )
    PLACES = (
        "folders and disks",
        "The folder is named; nothing is left half-written.",
    )

    @property
    def title(self) -> str:
        return self.value[0]

    @property
    def answer(self) -> str:
        return self.value[1]


@dataclass(frozen=True)
class BadInput:
    """One wrong input of one command.

    Attributes:
        name: Its name among the tests; unique.
        kind: What is wrong with it.
        situation: What the user has, in a few words; stands on the page.
        command: As the user would type it in the folder that ``make`` fills: ``nnunet-covid`` or one of nnU-Net's
            commands. nnU-Net's three folders are ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results`` there.
        make: Fills the folder, which is the working directory then.
        says: What the error message must contain, in this order: what is wrong, where, and the remedy.
        exit_status: 2; 1 where the command went on with the other images.
        leaves: The files that are there afterwards and were not before, as patterns; each must match at least one.
        environment: Variables to set beside nnU-Net's folders.
    """

    name: str
    kind: Kind
    situation: str
    command: str
    make: Callable[[Path], object]
    says: tuple[str, ...]
    exit_status: int = 2
    leaves: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def rooms() -> dict[str, list[BadInput]]:
    """Module of this folder to its entries."""
    names = sorted(found.name for found in pkgutil.iter_modules(bad_inputs.__path__))
    modules = {name: importlib.import_module(f"bad_inputs.{name}") for name in names}
    return {name: module.BAD_INPUTS for name, module in modules.items() if hasattr(module, "BAD_INPUTS")}


def page() -> str:
    """The reference page: the kinds with their answers, and every bad input by room."""
    count = sum(map(len, rooms().values()))
    lines = [
        "# Bad inputs",
        "",
        f"{count} wrong inputs, each of one command, and what it says.",
        "Made by `python docs/list_bad_inputs.py` from `tests/bad_inputs/`: a test tries each line as it stands.",
        "The message is one sentence on the error output; nothing is written unless the exit status is 1.",
        "",
        "## Kinds and answers",
        "",
        "| kind | answer |",
        "| --- | --- |",
        *(f"| {kind.title} | {kind.answer} |" for kind in Kind),
    ]
    for room, entries in rooms().items():
        heading = room.replace("_", " ")
        lines += ["", f"## {heading[0].upper()}{heading[1:]}", ""]
        lines += ["| situation | kind | command | what it says | exit |", "| --- | --- | --- | --- | --- |"]
        lines += [_row(entry) for entry in entries]
    return "\n".join(lines) + "\n"


def _row(entry: BadInput) -> str:
    said = " … ".join(entry.says)
    cells = (entry.situation, entry.kind.title, f"`{entry.command}`", said, str(entry.exit_status))
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
