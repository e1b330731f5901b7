"""macOS leaves ``._NAME`` beside NAME: every command passes over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chest_phantom import chest_volume
from dicom_files import write_series
from image_files import blob, hounsfield, write_volume
from tiny_data_set import make_tiny_data_set

from nnunet_covid.cli import main
from nnunet_covid.nnunet.cases import list_cases

COMPANION = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(100)


def add_companions(folder: Path) -> None:
    """One beside every file and folder."""
    for path in list(folder.rglob("*")):
        path.with_name(f"._{path.name}").write_bytes(COMPANION)


def test_convert_and_lung_mask(tmp_path: Path) -> None:
    volume = chest_volume(depth=6, size=64)[0].astype("int16")
    write_series(tmp_path / "in/images/a", volume)
    write_volume(tmp_path / "in/images/b.nii.gz", volume)
    for name in "ab":
        write_volume(tmp_path / f"in/masks/{name}.nii.gz", blob(volume.shape, 0), spacing=(0.8, 0.7, 2.5))
    add_companions(tmp_path / "in")
    arguments = ["convert", "folder", str(tmp_path / "in"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main([*arguments, "--resample-masks"]) == 0
    converted = (tmp_path / "raw/Dataset599_Folder/imagesTr").iterdir()
    assert sorted(path.name for path in converted) == ["a_0000.nii.gz", "b_0000.nii.gz"]
    arguments = ["lung-mask", str(tmp_path / "in/images"), str(tmp_path / "lungs"), "--method", "threshold"]
    assert main(arguments) == 0
    assert sorted(path.name for path in (tmp_path / "lungs").iterdir()) == ["a.nii.gz", "b.nii.gz"]


def test_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("predictions", "references"):
        for seed in range(2):
            write_volume(tmp_path / folder / f"c{seed}.nii.gz", blob((6, 20, 20), seed))
        add_companions(tmp_path / folder)
    arguments = ["evaluate", str(tmp_path / "predictions"), str(tmp_path / "references"), "--labels", "infection=1"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("2 cases")


def test_check_and_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_tiny_data_set(tmp_path)
    for variable, value in made.environment().items():
        monkeypatch.setenv(variable, value)
    add_companions(made.raw)
    add_companions(made.unlabelled)
    monkeypatch.chdir(tmp_path)
    assert main(["check", "940"]) in (0, 1)
    assert "in 7 cases" in capsys.readouterr().out
    assert main(["link", "-d", "940", "-c", "2d", "-p", "testPlans", "--unlabelled", str(made.unlabelled)]) == 0
    assert "5 unlabelled images" in capsys.readouterr().out


def test_images_of_rounds(tmp_path: Path) -> None:
    made = make_tiny_data_set(tmp_path)
    add_companions(made.unlabelled)
    assert [case.name for case in list_cases(made.unlabelled, made.ending, 1)] == [f"un_{i}" for i in range(5)]


def test_series_of_companions_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "in/a", hounsfield((4, 10, 12), 0))
    add_companions(tmp_path / "in/a")
    for path in (tmp_path / "in/a").glob("0*.dcm"):
        path.unlink()
    assert main(["convert", "folder", str(tmp_path / "in"), "-o", str(tmp_path / "raw")]) == 2
    assert "in/a: is empty" in capsys.readouterr().err
