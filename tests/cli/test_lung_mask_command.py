"""``nnunet-covid lung-mask`` on files, DICOM series and folders."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from chest_phantom import chest_slice, chest_volume, dice
from image_files import checksums, read_array, write_dicom_series, write_picture, write_volume
from PIL import Image

from nnunet_covid.cli import main
from nnunet_covid.raw_dataset import Problems
from nnunet_covid.raw_dataset.images import images_and_masks
from nnunet_covid.raw_dataset.scan import to_8_bit

SPACING = (2.5, 2.5, 8.0)


def test_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, lungs = chest_slice()
    write_picture(tmp_path / "a.jpg", to_8_bit(image, -1250, 250))
    arguments = ["lung-mask", str(tmp_path / "a.jpg"), str(tmp_path / "out/a.png"), "--method", "threshold"]
    assert main([*arguments, "--overlay", str(tmp_path / "overlay")]) == 0
    mask = read_array(tmp_path / "out/a.png")
    assert set(np.unique(mask)) == {0, 255}
    assert dice(mask > 0, lungs) > 0.9
    assert "by threshold (grey values)" in capsys.readouterr().out
    assert read_array(tmp_path / "overlay/a.png.png").shape == (128, 128, 3)


def test_a_folder_of_volumes_and_series(tmp_path: Path) -> None:
    image, lungs = chest_volume()
    write_volume(tmp_path / "in/a.nrrd", image.astype(np.int16), spacing=SPACING)
    write_dicom_series(tmp_path / "in/patient/series", image.astype(np.int16), spacing=SPACING)
    assert main(["lung-mask", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "threshold"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "patient.nii.gz"]
    for name in ("a", "patient"):
        mask = sitk.ReadImage(str(tmp_path / f"out/{name}.nii.gz"))
        np.testing.assert_allclose(mask.GetSpacing(), SPACING, rtol=1e-5)
        assert dice(sitk.GetArrayFromImage(mask) > 0, lungs) > 0.95


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("missing.png", "o.png", "does not exist"),
        ("a.png", "o.nii.gz", "cannot be written as o.nii.gz; use .png"),
        ("empty", "o", "holds no image"),
        ("broken.nii.gz", "o.nii.gz", "cannot be read as an image"),
        (".", "o.png", "must be a folder as well"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str, output: str, message: str) -> None:
    write_picture(tmp_path / "a.png", to_8_bit(chest_slice()[0], -1250, 250))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.nii.gz").write_bytes(b"broken")
    assert main(["lung-mask", str(tmp_path / source), str(tmp_path / output)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "source", "output", "message"),
    [
        (["a/y.png"], "a/y.png", "a/y.png", "would replace the images y.png in"),
        (["a/y.png"], "a/y.png", "a/../a/y.png", "would replace the images y.png in"),
        (["a/x.png", "a/y.png"], "a", "a", "would replace the images x.png, y.png in"),
        (["a/x.jpg"], "a", "a", "a is read, too: masks there would be taken for its own files; name another output"),
        (["a/x.png", "a/x.jpg"], "a", "out", "x.jpg and"),
        (["a/x.png", "a/X.jpg"], "a", "out", "X.jpg and"),
    ],
)
def test_no_file_is_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: list[str], source: str, output: str, message: str
) -> None:
    for name in images:
        write_picture(tmp_path / name, to_8_bit(chest_slice()[0], -1250, 250))
    before = checksums(tmp_path)
    assert main(["lung-mask", str(tmp_path / source), str(tmp_path / output), "--method", "threshold"]) == 2
    assert message in capsys.readouterr().err
    assert checksums(tmp_path) == before


def test_two_volumes_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for ending in (".nii.gz", ".nrrd"):
        write_volume(tmp_path / f"in/y{ending}", chest_volume()[0].astype(np.int16), spacing=SPACING)
    assert main(["lung-mask", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "threshold"]) == 2
    error = capsys.readouterr().err
    assert "y.nii.gz and" in error
    assert "in/y.nrrd would both get the mask" in error
    assert not (tmp_path / "out").exists()


def test_weights_are_refused_where_nothing_uses_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(tmp_path / "a.png", to_8_bit(chest_slice()[0], -1250, 250))
    arguments = ["lung-mask", str(tmp_path / "a.png"), str(tmp_path / "o.png"), "--method", "threshold"]
    assert main([*arguments, "--weights", "nofile"]) == 2
    assert "the method threshold has no use for nofile" in capsys.readouterr().err
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize("options", [["out/masks"], ["masks", "--overlay", "out/overlays"]])
def test_a_place_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "in/a.png", to_8_bit(chest_slice()[0], -1250, 250))
    (tmp_path / "out").write_text("a file")
    assert main(["lung-mask", "in", *options, "--method", "threshold"]) == 2
    assert "cannot be written into (Not a directory); name another folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("masks/*"))


def test_a_full_disk_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    write_volume(tmp_path / "in/a.nii.gz", np.zeros((1, 40, 40), dtype=np.int16))
    command = ["lung-mask", str(tmp_path / "in"), str(tmp_path / "out"), "--method", "threshold"]
    assert main([*command, "--overlay", str(tmp_path / "overlays")]) == 2
    assert "is full; nothing is lost: make room and give the same command again" in capsys.readouterr().err
    assert not list(tmp_path.glob("overlays/*"))


def test_the_names_of_many_masks_are_found_without_comparing_all_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [tmp_path / f"in/{patient}/{name}.png" for patient in range(100) for name in "ab"[: 1 + patient % 2]]
    for image in images:
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    seen = []
    relative_to = Path.relative_to
    monkeypatch.setattr(Path, "relative_to", lambda *paths: (seen.append(paths), relative_to(*paths))[1])
    pairs = images_and_masks(tmp_path / "in", tmp_path / "out", Problems(tmp_path / "in"))
    names = {output.name for _, output in pairs}
    assert names == {name for n in range(100) for name in ([f"{n}_a.png", f"{n}_b.png"] if n % 2 else [f"{n}.png"])}
    assert len(seen) < 10 * len(images)
