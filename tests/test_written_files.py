from __future__ import annotations

import importlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import image_files
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_covid import files, shared_work
from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.whole_volumes import write_volume


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "map.nii.gz"
    path.write_text("old")
    with files.replacing(path) as unfinished:
        assert unfinished.parent == tmp_path
        assert unfinished.name.startswith(".")
        assert unfinished.name.endswith(".nii.gz")
        unfinished.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["map.nii.gz"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(path) as unfinished:
        _ = unfinished.write_text("half") / 0
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_several_files_of_one_case_are_renamed_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renamed = []
    replace = os.replace
    monkeypatch.setattr(files.os, "replace", lambda a, b: (renamed.append(Path(b).name), replace(a, b)))
    with files.replacing(tmp_path / "case", (".b2nd", "_seg.b2nd", ".pkl")) as unfinished:
        for ending in (".pkl", ".b2nd", "_seg.b2nd"):
            unfinished.with_name(unfinished.name + ending).touch()
    assert renamed == ["case.b2nd", "case_seg.b2nd", "case.pkl"]


def test_a_folder_appears_when_it_is_whole_and_what_was_interrupted_is_swept_away(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset999_X"
    files.unfinished_folder(folder).mkdir()
    (files.unfinished_folder(folder) / "rest").touch()
    with files.replacing_folder(folder) as unfinished:
        assert list(unfinished.iterdir()) == []
        (unfinished / "dataset.json").touch()
        assert not folder.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["Dataset999_X"]
    with pytest.raises(ZeroDivisionError), files.replacing_folder(tmp_path / "other"):
        _ = 1 / 0
    assert len(list(tmp_path.iterdir())) == 1


def test_only_old_unfinished_files_are_removed(tmp_path: Path) -> None:
    old, young, other = (tmp_path / name for name in (".partial.1.a.png", ".partial.2.b.png", "c.png"))
    for path in (old, young, other):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    files.remove_abandoned(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {young.name, other.name}


@pytest.mark.parametrize("durable", [False, True])
def test_documents_end_with_a_line_end(tmp_path: Path, durable: bool) -> None:
    files.write_json(tmp_path / "a.json", {"ä": [1]}, indent=None, durable=durable)
    assert (tmp_path / "a.json").read_bytes() == b'{"\\u00e4": [1]}\n'
    files.write_text(tmp_path / "a.csv", "a\r\nb\n", durable=durable)
    assert (tmp_path / "a.csv").read_bytes() == b"a\r\nb\n"


def test_digest_of_a_folder_knows_names_and_contents_but_no_companions(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "series").mkdir(parents=True)
        (tmp_path / name / "series" / "1.dcm").write_bytes(b"slice")
    (tmp_path / "two" / "series" / "._1.dcm").write_bytes(b"companion")
    first = files.sha256_of(tmp_path / "one")
    assert files.sha256_of(tmp_path / "two") == first
    (tmp_path / "two" / "series" / "1.dcm").rename(tmp_path / "two" / "series" / "2.dcm")
    assert files.sha256_of(tmp_path / "two") != first


def test_digest_of_content_does_not_depend_on_the_order_of_keys() -> None:
    assert files.digest_of({"a": 1, "b": Path("x")}, 8) == files.digest_of({"b": Path("x"), "a": 1}, 8)
    assert len(files.digest_of({}, 16)) == 16
    assert files.digest_of({"a": 1}, 8) != files.digest_of({"a": 2}, 8)


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "._a.png", ".DS_Store", "Thumbs.db", "c.txt"):
        (tmp_path / name).touch()
    for folder in ("sub", ".hidden"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "d.png").touch()
    assert [p.name for p in files.files_in(tmp_path, ".png")] == ["a.png", "b.png"]
    assert [p.name for p in files.files_in(tmp_path, below=True)] == ["a.png", "b.png", "c.txt", "d.png"]
    assert files.files_in(tmp_path / "missing") == []


def test_linked_folders_are_listed_but_no_loop_is_followed(tmp_path: Path) -> None:
    for folder in ("source/one", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.png").touch()
    source = tmp_path / "source"
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "one" / "up").symlink_to(source)
    (tmp_path / "elsewhere" / "back").symlink_to(source / "one")
    (source / "one" / "there").symlink_to(tmp_path / "elsewhere")
    found = [path.relative_to(source).as_posix() for path in files.files_in(source, below=True)]
    assert found == ["linked/a.png", "linked/back/a.png", "one/a.png", "one/there/a.png"]


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert files.writable_folder(tmp_path / "new" / "one").is_dir()
    with pytest.raises(UserError, match="cannot be written into"):
        files.writable_folder(tmp_path / "file" / "below")


def test_names_that_would_become_one_file_are_numbered() -> None:
    names = ["a+", "a-", "A?", "a_2", "b"]
    found = files.names_apart(names, lambda name: re.sub(r"\W", "_", name))
    assert list(found) == names
    assert list(found.values()) == ["a_", "a__2", "A__3", "a_2", "b"]


def test_some_names_and_how_many_more() -> None:
    assert files.some_of(["c", "a", "b"]) == "a, b, c"
    assert files.some_of("gfedcba") == "a, b, c, d, e and 2 more"
    assert files.some_of(["b", "a"], at_most=1) == "a and 1 more"


def square_or_fail(number: int) -> int:
    if number < 0:
        raise ValueError(number)
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_the_order_of_the_tasks(processes: int) -> None:
    assert list(shared_work.map_in_processes(square_or_fail, range(5), processes)) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match="-1"):
        list(shared_work.map_in_processes(square_or_fail, [1, -1, 2], processes))


def test_a_killed_process_is_told_in_one_line() -> None:
    with pytest.raises(UserError, match="lack of memory"):
        list(shared_work.map_in_processes(die, [1, 2], 2))


def say_and_sleep(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


def test_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_written_files as t\n"
        "from nnunet_covid import shared_work\n"
        "if __name__ == '__main__': list(shared_work.map_in_processes(t.say_and_sleep, sys.argv[2:], 2))"
    )
    script = tmp_path / "parent.py"
    script.write_text(code)
    told = [tmp_path / "first", tmp_path / "second"]
    parent = subprocess.Popen([sys.executable, str(script), str(Path(__file__).parent), *map(str, told)])
    deadline = time.time() + 60
    while not all(path.is_file() and path.read_text() for path in told) and time.time() < deadline:
        time.sleep(0.05)
    children = [int(path.read_text()) for path in told]
    parent.kill()
    parent.wait()
    while any(_runs(child) for child in children) and time.time() < deadline:
        time.sleep(0.05)
    assert not any(_runs(child) for child in children)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.is_file() or ") Z " not in stat.read_text()  # nobody may have collected its end yet


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file become longer, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 200, 20000])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_volume_that_the_disk_has_no_room_for_is_told_and_not_left(ending: str, room: int, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 64, 64)).astype(np.int16)
    path = tmp_path / f"a{ending}"
    with room_for(room), pytest.raises(OSError, match=re.escape(str(path))):
        write_volume(sitk.GetImageFromArray(noise), path)
    assert not list(tmp_path.iterdir())
    write_volume(sitk.GetImageFromArray(noise), path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), noise)


def test_a_conversion_ends_with_an_error_where_a_volume_is_cut(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (8, 64, 64)).astype(np.int16)
    image_files.write_volume(tmp_path / "source/images/a.nii.gz", noise)
    image_files.write_volume(tmp_path / "source/masks/a.nii.gz", (noise > 900).astype(np.uint8))
    command = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    with room_for(20000):
        assert main(command) == 2
    assert "imagesTr/a_0000.nii.gz: it could not be written as a whole" in capfd.readouterr().err
    assert not list(tmp_path.glob("raw/Dataset*"))
    assert main(command) == 0


def test_volumes_are_written_by_the_one_function_that_looks_whether_they_are_whole() -> None:
    package = Path(files.__file__).parent
    rooms = [package, Path(importlib.import_module("nnunet_covid.dataset_conversion").__path__[0])]
    writing = {
        path.name for room in rooms for path in room.rglob("*.py") if "sitk.WriteImage" in path.read_text("utf-8")
    }
    assert writing == {"whole_volumes.py"}
