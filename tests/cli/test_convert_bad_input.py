"""What can be wrong with a source: one error, every file named, exit status 2, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import blob, checksums, grey, write_picture

from nnunet_covid.cli import main

LABELLED = Path("TrainingSet/LungInfection-Train/Doctor-label")


def image(root: Path, stem: str) -> Path:
    return root / LABELLED / "Imgs" / f"{stem}.png"


def mask(root: Path, stem: str) -> Path:
    return root / LABELLED / "GT" / f"{stem}.png"


def wrong_size(root: Path) -> None:
    write_picture(mask(root, "1"), blob((20, 31), 0, 255))
    write_picture(mask(root, "3"), blob((19, 30), 0, 255))


def coloured(root: Path) -> None:
    write_picture(image(root, "1"), np.dstack([grey((20, 30), i) for i in range(3)]))


def coloured_with_alpha(root: Path) -> None:
    opaque = np.full((20, 30), 255, dtype=np.uint8)
    write_picture(image(root, "1"), np.dstack([*(grey((20, 30), i) for i in range(3)), opaque]))


def transparent(root: Path) -> None:
    write_picture(image(root, "1"), np.dstack([grey((20, 30), 0)] * 4))


def grey_mask(root: Path) -> None:
    write_picture(mask(root, "1"), grey((20, 30), 1))
    write_picture(mask(root, "3"), blob((20, 30), 1, 254))


def missing_mask(root: Path) -> None:
    mask(root, "1").unlink()
    mask(root, "3").unlink()


def missing_image(root: Path) -> None:
    image(root, "3").unlink()


def no_picture(root: Path) -> None:
    image(root, "1").write_bytes(b"no picture at all")


def truncated(root: Path) -> None:
    data = image(root, "1").read_bytes()
    image(root, "1").write_bytes(data[: len(data) // 2])


def sixteen_bits(root: Path) -> None:
    write_picture(image(root, "1"), grey((20, 30), 1).astype(np.uint16) * 257)


def foreign_file(root: Path) -> None:
    (root / LABELLED / "Imgs" / "notes.docx").write_bytes(b"")


def two_of_one_name(root: Path) -> None:
    write_picture(image(root, "1").with_suffix(".jpg"), grey((20, 30), 5))


def one_case_twice(root: Path) -> None:
    write_picture(image(root, "01"), grey((20, 30), 5))
    write_picture(mask(root, "01"), blob((20, 30), 5, 255))


def empty_folder(root: Path) -> None:
    for path in (root / LABELLED / "Imgs").iterdir():
        path.unlink()


def missing_folder(root: Path) -> None:
    for path in (root / LABELLED / "GT").iterdir():
        path.unlink()
    (root / LABELLED / "GT").rmdir()


@pytest.mark.parametrize(
    ("spoil", "messages"),
    [
        (wrong_size, ["GT/1.png: is 31×20 pixels, its image 1.png 30×20; export", "GT/3.png: is 30×19"]),
        (coloured, ["Imgs/1.png: red, green and blue differ in", "export it with one grey channel"]),
        (coloured_with_alpha, ["Imgs/1.png: red, green and blue differ in"]),
        (transparent, ["Imgs/1.png: is partly transparent; export"]),
        (grey_mask, ["GT/1.png: mask holds", "GT/3.png: mask holds 1 values", "(254; allowed: 0, 255); export"]),
        (missing_mask, ["Imgs/1.png: has no mask", "Imgs/3.png: has no mask", "add 3.* there"]),
        (missing_image, ["GT/3.png: is a mask without an image; add"]),
        (no_picture, ["Imgs/1.png: not a readable picture", "download or export it again"]),
        (truncated, ["Imgs/1.png: not a readable picture"]),
        (sixteen_bits, ["Imgs/1.png: I;16 pixels, expected 8 bits", "export it as 8 bit"]),
        (foreign_file, ["Imgs/notes.docx: is none of", "move it out"]),
        (two_of_one_name, ["has the same name as 1.jpg; keep one of them"]),
        (one_case_twice, ["would become the case covidsemiseg_001", "rename one of them"]),
        (empty_folder, ["Doctor-label/Imgs: folder holds no .png", "GT/1.png: is a mask without an image"]),
        (missing_folder, ["Doctor-label/GT: folder is missing; unpack", "Imgs/3.png: has no mask"]),
    ],
)
def test_bad_input_is_told_once_and_completely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], messages: list[str]
) -> None:
    source = tmp_path / "source"
    for seed, stem in enumerate("0123"):
        write_picture(image(source, stem), grey((20, 30), seed))
        write_picture(mask(source, stem), blob((20, 30), seed, 255))
    spoil(source)
    before = checksums(source)
    status = main(["convert", "covid-semiseg", str(source), "-o", str(tmp_path / "raw"), "--workers", "1"])
    captured = capsys.readouterr()
    assert status == 2
    assert captured.err.startswith("error: ")
    assert captured.err.count("error: ") == 1
    for message in messages:
        assert message in captured.err
    assert checksums(source) == before
    assert not (tmp_path / "raw").exists() or not any((tmp_path / "raw").iterdir())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "is not a folder; give the folder into which the data set was unpacked"),
        (lambda path: path.mkdir(), "is empty; expected there: TrainingSet/"),
        (lambda path: (path / "other").mkdir(parents=True), "holds no TrainingSet/LungInfection-Train; expected"),
    ],
)
def test_a_source_that_is_not_the_data_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path / "source")
    assert main(["convert", "covid-semiseg", str(tmp_path / "source"), "-o", str(tmp_path / "raw")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "raw").exists()


def test_an_unknown_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "nothing", "source"]) == 2
    assert "no converter is called 'nothing'" in capsys.readouterr().err
