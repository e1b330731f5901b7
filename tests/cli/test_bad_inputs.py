"""Every bad input of the registry: one sentence with file and remedy, the exit status, and nothing half-written."""

from __future__ import annotations

import fnmatch
import re
import shlex
import sys
from collections import Counter
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from bad_inputs.registry import BadInput, page, rooms
from image_files import checksums

from nnunet_covid.cli import main
from nnunet_covid.files import NNUNET_FOLDERS
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/bad-inputs.md"
ENTRIES = [entry for entries in rooms().values() for entry in entries]


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])
def test_is_told(
    entry: BadInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    _set_environment(tmp_path, entry, monkeypatch)
    entry.make(tmp_path)
    before = checksums(tmp_path)
    capfd.readouterr()
    status = _status_of(entry.command, monkeypatch)
    captured = capfd.readouterr()
    assert status == entry.exit_status, captured.out + captured.err
    assert "Traceback" not in captured.out + captured.err
    _assert_said(entry, captured.err)
    after = checksums(tmp_path)
    before = {
        name: digest for name, digest in before.items() if not name.endswith("lock")
    }  # newer filelocks remove theirs
    assert {name: after.get(name) for name in before} == before, "no file is changed or removed"
    new = set(after) - set(before)
    wanted = {name for pattern in entry.leaves for name in fnmatch.filter(new, pattern)}
    assert new == wanted, "nothing else is written"
    assert all(fnmatch.filter(new, pattern) for pattern in entry.leaves)
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir() and "partial" in path.name]


def _set_environment(folder: Path, entry: BadInput, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net looks up its folders there whenever it needs them."""
    given = {variable: str(folder / variable) for variable in NNUNET_FOLDERS}
    for variable, value in {**given, VARIABLE: str(TRAINERS_FOLDER), **dict(entry.environment)}.items():
        monkeypatch.setenv(variable, value)


def _status_of(command: str, monkeypatch: pytest.MonkeyPatch) -> int:
    program, *arguments = shlex.split(command)
    try:
        if program == "nnunet-covid":
            return main(arguments)
        (entry_point,) = entry_points(group="console_scripts", name=program)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        return int(entry_point.load()() or 0)
    except SystemExit as e:  # argparse, and a trainer that refuses
        return int(e.code or 0) if not isinstance(e.code, str) else 1


def _assert_said(entry: BadInput, error: str) -> None:
    """The sentences in their order; where the command ended for it, once and as one error."""
    error = re.sub(r"[^\n]*\r|[^\n]*%\|[^\n]*\n", "", error)  # progress bars, written over or left where they were
    position = 0
    for part in entry.says:
        position = error.find(part, position)
        assert position >= 0, f"{part!r} is missing, or before what should precede it, in:\n{error}"
    if entry.exit_status == 2:
        assert error.count("error: ") == 1, error
        assert error.startswith(("error: ", "usage: ", "note: ", "warning: ", "refused: ")), error


def test_they_are_many_and_have_names_of_their_own() -> None:
    assert len(ENTRIES) >= 100
    assert [name for name, count in Counter(entry.name for entry in ENTRIES).items() if count > 1] == []


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python docs/list_bad_inputs.py"
