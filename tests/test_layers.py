"""The rooms of the house stand one above the other, are small enough to be read, and parse arguments in one alone."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROOMS = [REPOSITORY / name for name in ("nnunet_covid", "trainers", "dataset_conversion")]
MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 60


def test_rooms_import_only_what_stands_below_them() -> None:
    pytest.importorskip("importlinter")
    found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [shutil.which("bash") or "bash", str(REPOSITORY / ".ci" / "layers")]
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, "PATH": found}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_arguments_are_parsed_in_the_command_line_alone() -> None:
    files = [path for room in ROOMS for path in room.rglob("*.py") if (room / "cli") not in path.parents]
    parsing = [
        str(path)
        for path in files
        if re.search(r"^\s*(import|from) argparse", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert parsing == []


def test_files_and_functions_can_be_read_at_a_sitting() -> None:
    long = []
    for path in [path for room in [*ROOMS, REPOSITORY / "tests"] for path in room.rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > MOST_LINES_OF_A_FILE:
            long.append(f"{path}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None:
                lines = node.end_lineno - node.lineno + 1
                if lines > MOST_LINES_OF_A_FUNCTION:
                    long.append(f"{path}: {node.name} has {lines} lines")
    assert long == []


def test_every_test_file_has_a_name_of_its_own() -> None:
    """Two of one name in different folders are one module for pytest: the second is not run."""
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
