"""Killed at random moments, on a full disk, in a folder of somebody else, beside a second process: nothing is lost.

``NNUNET_COVID_KILLS=100`` kills every command so often; docs/explanation/robustness.md has the counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from killing.harness import KILLS, Run, Zygote, kill_and_go_on
from killing.runs import FOLDERS, RUNS

from nnunet_covid.disturbances import alone
from nnunet_covid.errors import UserError
from nnunet_covid.files import UNFINISHED

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="no fork, SIGKILL or tmpfs")

QUICK = ("convert", "evaluate", "link")
LONG = ("training", "consistency", "pseudo-label", "pretrain")
"""Minutes of torch each: only where the variable asks for kills."""
NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk or become somebody else")
WRITTEN = {
    "convert": "raw",
    "evaluate": "scores",
    "link": "nnUNet_preprocessed",
    **dict.fromkeys(LONG, "nnUNet_results"),
}
"""Where a command writes most, in the folder of a life."""
FIRST_WRITTEN = {**WRITTEN, "pseudo-label": "nnUNet_preprocessed", "pretrain": "nnUNet_preprocessed"}
"""Where it writes first."""
WHERE_ASKED = pytest.mark.skipif("NNUNET_COVID_KILLS" not in os.environ, reason="minutes: set NNUNET_COVID_KILLS")
DISTURBED = [*QUICK, "training", *(pytest.param(name, marks=WHERE_ASKED) for name in LONG if name != "training")]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    made.close()


@pytest.mark.parametrize("name", QUICK)
def test_killed_and_given_again(name: str, zygote: Zygote, tmp_path: Path) -> None:
    assert kill_and_go_on(RUNS[name], zygote, tmp_path, KILLS).kills >= KILLS


@pytest.mark.e2e
@WHERE_ASKED
@pytest.mark.parametrize("name", LONG)
def test_killed_trainings_go_on(name: str, zygote: Zygote, tmp_path: Path) -> None:
    assert kill_and_go_on(RUNS[name], zygote, tmp_path, KILLS).kills >= KILLS


def told(run: Run, zygote: Zygote, folder: Path, *, user: int | None = None) -> str:
    """The one sentence at which a command ends."""
    log = folder.with_name(folder.name + ".log")
    log.unlink(missing_ok=True)
    zygote.start(run, folder, user=user)
    status = zygote.ended(300)
    said = log.read_text(encoding="utf-8")
    assert status == 2, said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    return line


@as_root
@pytest.mark.parametrize("name", DISTURBED)
def test_a_full_disk_is_told_and_leaves_nothing_half_written(name: str, zygote: Zygote, tmp_path: Path) -> None:
    run, folder = RUNS[name], tmp_path / "life"
    folder.mkdir()
    run.make(folder)
    disk = folder / WRITTEN[name]
    before = shutil.copytree(disk, tmp_path / "before") if disk.exists() else None
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], check=True)
    try:
        if before is not None:
            shutil.copytree(before, disk, dirs_exist_ok=True)
        filler = disk / "filler"
        filler.write_bytes(b"")
        _fill(filler, leaving=8192)
        said = told(run, zygote, folder)
        assert "is full" in said
        assert "make room and give the same command again" in said
        again = replace(run, command=run.command + run.again) if said.endswith("with --c") else run
        assert [str(path) for path in disk.rglob(f"{UNFINISHED}*")] == []
        run.whole(folder)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        zygote.start(again, folder)
        assert zygote.ended(300) == 0, "with room it goes on"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def _fill(path: Path, leaving: int) -> None:
    """Write until there is only so much room."""
    free = shutil.disk_usage(path.parent).free - leaving
    path.write_bytes(bytes(max(0, free)))


@as_root
@pytest.mark.parametrize("name", DISTURBED)
def test_a_folder_that_must_not_be_written_is_named(name: str, zygote: Zygote, tmp_path: Path) -> None:
    run, folder = RUNS[name], tmp_path / "life"
    folder.mkdir()
    run.make(folder)
    written = folder / FIRST_WRITTEN[name]
    written.mkdir(exist_ok=True)
    for path in (tmp_path, *tmp_path.rglob("*"), *list(tmp_path.parents)[:3]):
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = sorted(str(path) for path in written.rglob("*"))
    said = told(run, zygote, folder, user=NOBODY)
    assert str(written) in said
    assert "Permission denied" in said or "cannot be written" in said
    assert sorted(str(path) for path in written.rglob("*")) == before


@pytest.mark.parametrize("name", ["convert", "link"])
def test_a_second_process_is_told(name: str, zygote: Zygote, tmp_path: Path) -> None:
    run, folder = RUNS[name], tmp_path / "life"
    folder.mkdir()
    run.make(folder)
    (folder / "raw").mkdir(exist_ok=True)
    preprocessed = folder / FOLDERS[1] / "Dataset601_Covid"
    lock = {"convert": folder / "raw/.Dataset599_Folder.lock", "link": preprocessed / ".nnUNetPlans_link.json.lock"}[
        name
    ]
    with alone(lock, "this", "wait"):
        assert "another process is at work on" in told(run, zygote, folder)
    zygote.start(run, folder)
    assert zygote.ended(300) == 0
    assert not lock.exists()


@pytest.mark.parametrize("name", [name for name in DISTURBED if name != "evaluate"])
def test_two_at_once_do_not_mix(name: str, zygote: Zygote, tmp_path: Path) -> None:
    """Started at the same moment, one does the work; the other is told, or finds it done."""
    run, folder = RUNS[name], tmp_path / "life"
    folder.mkdir()
    run.make(folder)
    second = Zygote()
    try:
        zygote.start(run, folder)
        second.start(run, folder)
        statuses = {one.ended(300) for one in (zygote, second)}
        assert statuses <= {0, 2}
        assert 0 in statuses
    finally:
        second.close()
    alone_there = tmp_path / "alone"
    alone_there.mkdir()
    run.make(alone_there)
    zygote.start(run, alone_there)
    assert zygote.ended(300) == 0
    assert run.result(folder) == run.result(alone_there)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = (
        "import sys, time; from pathlib import Path; from nnunet_covid.disturbances import alone\n"
        "with alone(Path(sys.argv[1]), 'it', 'wait'):\n    print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(lock)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with (
        pytest.raises(UserError, match="another process is at work on it; wait for it, or wait"),
        alone(lock, "it", "wait"),
    ):
        pass
    process.kill()
    process.wait()
    with alone(lock, "it", "wait"):
        assert lock.exists()
    assert not lock.exists()
