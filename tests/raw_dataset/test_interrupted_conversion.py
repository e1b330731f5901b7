"""Killed, repeated, disturbed: a conversion gives the same bytes, or says why it does not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from image_files import blob, checksums, grey, write_picture

from nnunet_covid.dataset_conversion import Dataset501_COVIDSemiSeg
from nnunet_covid.dataset_conversion.folder import FolderLayout, convert_folder
from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask import pretrained
from nnunet_covid.raw_dataset import Options, SourceCase, convert_dataset
from nnunet_covid.raw_dataset.destination import CaseRecord, Staging

LABELLED = "TrainingSet/LungInfection-Train/Doctor-label"
CASES = 60


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for index in range(CASES):
        write_picture(tmp_path / "source" / LABELLED / f"Imgs/{index}.jpg", grey((120, 130), index))
        write_picture(tmp_path / "source" / LABELLED / f"GT/{index}.png", blob((120, 130), index, 255))
    return tmp_path / "source"


def convert(source: Path, output: Path, **arguments: object) -> Path:
    return convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, output=output, tell=lambda _: None, **arguments)


def kill_in_the_middle(source: Path, output: Path, workers: int = 1) -> Path:
    """Start a conversion in its own process and kill it without warning; returns what it left behind."""
    code = (
        "import sys; from pathlib import Path; "
        "from nnunet_covid.dataset_conversion import Dataset501_COVIDSemiSeg as d; "
        "from nnunet_covid.raw_dataset import convert_dataset; "
        "convert_dataset(d.RECIPE, Path(sys.argv[1]), output=Path(sys.argv[2]), workers=int(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(source), str(output), str(workers)]
    process = subprocess.Popen(command, env={**os.environ, "CONVERSION": str(output)})
    partial = output / ".Dataset501_COVIDSemiSeg.partial"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(list((partial / "labelsTr").glob("[!.]*.png"))) >= 5:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    return partial


def test_a_killed_conversion_goes_on_and_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    before = checksums(source)
    undisturbed = convert(source, tmp_path / "undisturbed")
    partial = kill_in_the_middle(source, tmp_path / "killed")
    assert partial.is_dir(), "killed too late or too early to show anything"
    done = len(list((partial / "labelsTr").glob("[!.]*.png")))
    assert 0 < done < CASES
    assert not (tmp_path / "killed/Dataset501_COVIDSemiSeg").exists(), "nothing may look finished"
    (partial / "labelsTr/leftover.tmp.png").write_bytes(b"half a file")
    kept = min((partial / "imagesTr").glob("[!.]*.png"))
    written_at = kept.stat().st_mtime_ns
    resumed = convert(source, tmp_path / "killed")
    assert checksums(resumed) == checksums(undisturbed)
    assert (resumed / "imagesTr" / kept.name).stat().st_mtime_ns == written_at, "finished cases are kept"
    assert not partial.exists()
    assert checksums(source) == before


def test_processes_make_no_difference(source: Path, tmp_path: Path) -> None:
    assert checksums(convert(source, tmp_path / "two", workers=2)) == checksums(convert(source, tmp_path / "one"))


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_processes_end_when_the_conversion_is_killed(source: Path, tmp_path: Path) -> None:
    kill_in_the_middle(source, tmp_path / "killed", workers=2)
    mark = str(tmp_path / "killed").encode()
    deadline = time.monotonic() + 20
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def processes_of(mark: bytes) -> list[str]:
    """Processes whose environment holds the mark; children inherit it."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes() and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(folder.name)
        except OSError:
            continue
    return found


def test_a_case_with_another_patient_is_converted_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for index in range(3):
        write_picture(source / f"images/p_{index}.png", grey((20, 24), index))
        write_picture(source / f"masks/p_{index}.png", blob((20, 24), index, 255))
    partial = tmp_path / "raw/.Dataset599_Folder.partial"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "finish", fails)
        with pytest.raises(UserError, match="nothing is lost: make room and give the same command again"):
            convert_folder(source, output=tmp_path / "raw")
    assert len(list((partial / "labelsTr").iterdir())) == 3
    converted = convert_folder(source, output=tmp_path / "raw", layout=FolderLayout(patient_pattern="^p"))
    assert not (converted / "splits_final.json").exists()
    cases = json.loads((converted / "conversion.json").read_text())["cases"]
    assert {entry["patient"] for entry in cases} == {"p"}


def interrupted(source: Path, output: Path, **arguments: object) -> None:
    """A conversion that ends when all cases are done, before anything is moved into place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Staging, "finish", fails)
        with pytest.raises(UserError, match="nothing is lost"):
            convert_folder(source, output=output, **arguments)


def test_an_image_that_has_become_unlabelled_is_converted_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for index in range(3):
        write_picture(source / f"images/p_{index}.png", grey((20, 24), index))
    interrupted(source, tmp_path / "raw")
    write_picture(source / "masks/p_0.png", blob((20, 24), 0, 255))
    converted = convert_folder(source, output=tmp_path / "raw", layout=FolderLayout(allow_missing_masks=True))
    images = sorted(path.relative_to(converted).as_posix() for path in converted.glob("images*/*"))
    assert images == ["imagesTr/p_000_0000.png", "imagesUn/p_001_0000.png", "imagesUn/p_002_0000.png"]


def test_lung_masks_of_one_conversion_are_of_one_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, options = tmp_path / "source", Options(lung_mask_channel=True)
    for index in range(3):
        write_picture(source / f"images/p_{index}.png", grey((20, 24), index))
    monkeypatch.setattr(pretrained, "is_ready", lambda *_: False)
    interrupted(source, tmp_path / "raw", options=options)
    monkeypatch.setattr(pretrained, "is_ready", lambda *_: True)
    monkeypatch.setattr(pretrained, "lungs_by_network", lambda image, **_: image > 100)
    (source / "images/p_2.png").unlink()
    write_picture(source / "images/p_3.png", grey((20, 24), 3))
    converted = convert_folder(source, output=tmp_path / "raw", options=options)
    cases = json.loads((converted / "conversion.json").read_text())["cases"]
    assert [entry["notes"]["lung_mask"] for entry in cases] == ["lungmask R231"] * 3


def fails(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_killed_process_of_many_does_not_cost_the_others_work(source: Path, tmp_path: Path) -> None:
    def two_and_no_more(work: Callable[[SourceCase], CaseRecord], cases: list[SourceCase], workers: int) -> Iterator:
        yield from map(work, cases[:2])
        raise UserError("a process was killed") from BrokenProcessPool()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunet_covid.raw_dataset.convert.map_in_processes", two_and_no_more)
        with pytest.raises(UserError, match="was killed"):
            convert(source, tmp_path / "killed", workers=2)
    kept = sorted((tmp_path / "killed/.Dataset501_COVIDSemiSeg.partial/imagesTr").iterdir())
    written_at = [path.stat().st_mtime_ns for path in kept]
    resumed = convert(source, tmp_path / "killed")
    assert [(resumed / "imagesTr" / path.name).stat().st_mtime_ns for path in kept] == written_at
    assert len(kept) == 2


def test_damage_in_a_left_over_file_is_repaired(source: Path, tmp_path: Path) -> None:
    partial = kill_in_the_middle(source, tmp_path / "killed")
    min((partial / "labelsTr").glob("[!.]*.png")).write_bytes(b"damaged")
    resumed = convert(source, tmp_path / "killed")
    assert checksums(resumed) == checksums(convert(source, tmp_path / "undisturbed"))


def test_a_second_run_changes_nothing(source: Path, tmp_path: Path) -> None:
    folder = convert(source, tmp_path / "raw")
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    said: list[str] = []
    convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, output=tmp_path / "raw", tell=said.append)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps
    assert "already holds this conversion" in said[0]


def test_other_content_at_the_destination_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    folder = convert(source, tmp_path / "raw")
    before = checksums(folder)
    with pytest.raises(UserError, match=r"converted with other options; delete it .* another number") as e:
        convert(source, tmp_path / "raw", options=Options(lung_mask_channel=True))
    assert e.value.about == "number"
    (source / LABELLED / "Imgs/3.jpg").unlink()
    write_picture(source / LABELLED / "Imgs/3.jpg", grey((120, 130), 999))
    with pytest.raises(UserError, match="converted from other source files"):
        convert(source, tmp_path / "raw")
    assert checksums(folder) == before


def test_a_file_changed_after_the_conversion_is_named(source: Path, tmp_path: Path) -> None:
    folder = convert(source, tmp_path / "raw")
    (folder / "labelsTr/covidsemiseg_007.png").unlink()
    with pytest.raises(UserError, match=r"labelsTr/covidsemiseg_007\.png was changed or removed"):
        convert(source, tmp_path / "raw")


def test_a_folder_of_unknown_content_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "raw/Dataset501_COVIDSemiSeg").mkdir(parents=True)
    (tmp_path / "raw/Dataset501_COVIDSemiSeg/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is no finished conversion of ours"):
        convert(source, tmp_path / "raw")
    assert (tmp_path / "raw/Dataset501_COVIDSemiSeg/mine.txt").read_text() == "mine"


def test_splits_reach_nnunet_but_replace_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.delenv("nnUNet_results", raising=False)
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, tell=lambda _: None)
    placed = tmp_path / "preprocessed/Dataset501_COVIDSemiSeg/splits_final.json"
    assert placed.read_bytes() == (folder / "splits_final.json").read_bytes()
    placed.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    said: list[str] = []
    convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, tell=said.append)
    assert json.loads(placed.read_text()) == [{"train": ["a"], "val": ["b"]}]
    assert "has other folds than" in said[-1]
    assert "will not plan with both: delete one of them; nothing was changed" in said[-1]
    placed.write_text("[")
    convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, tell=said.append)
    assert f"{placed} holds no splits" in said[-1]
    folds = json.loads((folder / "splits_final.json").read_text())
    placed.write_text(json.dumps([*folds, {"train": ["a"], "val": ["b"]}]))
    said.clear()
    convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source, tell=said.append)
    assert not [line for line in said if "folds" in line], "folds beyond the raw data set's are nnU-Net's to take"


def test_one_number_stands_for_one_data_set(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    (tmp_path / "preprocessed/Dataset501_Other").mkdir(parents=True)
    with pytest.raises(UserError, match="Dataset501_Other has the same number; choose another number") as e:
        convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source)
    assert e.value.about == "number"


def test_a_destination_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*Dataset501_COVIDSemiSeg \(Not a directory\)"):
        convert(source, tmp_path / "raw")


def test_the_raw_folder_must_be_known(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(UserError, match=r"nnUNet_raw is not set: export nnUNet_raw=.* or name a folder") as e:
        convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, source)
    assert e.value.about == "output"
