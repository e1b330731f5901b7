"""What of a source is no part of a case is named, whatever the data set."""

from __future__ import annotations

from pathlib import Path

import pytest
from image_files import blob, grey, hounsfield, write_picture, write_volume

from nnunet_covid.cli import main

SHAPE = (4, 10, 12)


def notes_of(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["convert", command, str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]) == 0
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: left out")]


def test_a_mask_of_another_name_and_what_was_not_unpacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        write_volume(tmp_path / f"source/studies/study_000{seed}.nii.gz", hounsfield(SHAPE, seed))
    write_volume(tmp_path / "source/masks/study_0000_mask.nii.gz", blob(SHAPE, 0))
    write_volume(tmp_path / "source/masks/mask_0001.nii.gz", blob(SHAPE, 0))
    (tmp_path / "source/CT-4.zip").write_bytes(b"PK")
    (tmp_path / "source/README.txt").write_text("words")
    expected = "note: left out CT-4.zip, masks/mask_0001.nii.gz: no part of a case of this data set"
    assert notes_of("mosmed", tmp_path, capsys) == [expected]


def test_a_second_copy_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for copy in ("a", "b"):
        write_volume(tmp_path / f"source/{copy}/rp_im/1.nii.gz", hounsfield(SHAPE, 0))
        write_volume(tmp_path / f"source/{copy}/rp_msk/1.nii.gz", blob(SHAPE, 0))
    expected = "note: left out b/rp_im/1.nii.gz, b/rp_msk/1.nii.gz: no part of a case of this data set"
    assert notes_of("medseg-9", tmp_path, capsys) == [expected]


def test_where_all_is_used_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "source/images/a.png", grey((20, 24), 0))
    write_picture(tmp_path / "source/masks/a.png", blob((20, 24), 0, 255))
    assert notes_of("folder", tmp_path, capsys) == []


def test_the_headers_of_a_folder_are_read_once_however_much_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_volume(tmp_path / "source/studies/study_0000.nii.gz", hounsfield(SHAPE, 0))
    write_volume(tmp_path / "source/masks/study_0000_mask.nii.gz", blob(SHAPE, 0))
    write_volume(tmp_path / "source/other/a.mhd", hounsfield(SHAPE, 0))
    for number in range(50):
        (tmp_path / f"source/other/{number}.nii.gz").touch()
        (tmp_path / f"source/other/{number}.gz").touch()
    listed: list[Path] = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda folder: (listed.append(folder), iterdir(folder))[1])
    (note,) = notes_of("mosmed", tmp_path, capsys)
    assert note.startswith("note: left out other/0.gz, other/0.nii.gz, other/1.gz and 98 more:")
    assert listed.count(tmp_path / "source/other") < 10
