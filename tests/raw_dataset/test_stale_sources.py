"""What a conversion believes of its sources: the files behind a header and behind a link count, their times do not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import hounsfield, read_array, write_volume

from nnunet_covid.cli import main
from nnunet_covid.raw_dataset import convert as conversion

VOXELS = hounsfield((4, 8, 8), 0)
OTHER = hounsfield((4, 8, 8), 1)
DATA = {".mhd": ".raw", ".nhdr": ".raw", ".hdr": ".img"}


def convert(folder: Path) -> int:
    return main(["convert", "folder", str(folder), "-o", str(folder.parent / "raw"), "--workers", "1"])


def replaced_unnoticeably(path: Path, write: Callable[[], object]) -> None:
    """Other content with the size and the times of the file."""
    before = path.stat()
    write()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


@pytest.mark.parametrize("ending", list(DATA))
def test_a_data_file_that_was_replaced_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str
) -> None:
    source = tmp_path / "source/images"
    write_volume(source / f"a{ending}", VOXELS)
    data = source / f"a{DATA[ending]}"
    assert convert(tmp_path / "source") == 0
    assert convert(tmp_path / "source") == 0
    assert "already holds this conversion" in capsys.readouterr().out
    new = data.read_bytes().replace(VOXELS.tobytes(), OTHER.tobytes())
    replaced_unnoticeably(data, lambda: data.write_bytes(new))
    assert convert(tmp_path / "source") == 2
    error = capsys.readouterr().err
    assert f"was converted from other source files (images/{data.name})" in error
    assert "delete it to convert again, or choose another number (--number)" in error


def test_an_interrupted_conversion_converts_a_replaced_data_file_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source/images"
    for name in "ab":
        write_volume(source / f"{name}.mhd", VOXELS)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(conversion._Conversion, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            conversion_of(tmp_path)
    data = source / "b.raw"
    replaced_unnoticeably(data, lambda: data.write_bytes(OTHER.tobytes()))
    assert convert(tmp_path / "source") == 0
    for name, expected in (("a", VOXELS), ("b", OTHER)):
        converted = read_array(tmp_path / f"raw/Dataset599_Folder/imagesTs/{name}_0000.nii.gz")
        np.testing.assert_array_equal(converted, expected)


def conversion_of(folder: Path) -> None:
    from nnunet_covid.dataset_conversion.folder import convert_folder

    convert_folder(folder / "source", output=folder / "raw")


def test_a_link_that_leads_to_another_file_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, voxels in (("old", VOXELS), ("new", OTHER)):
        write_volume(tmp_path / f"{name}.nii", voxels)
        os.utime(tmp_path / f"{name}.nii", (0, 0))
    link = tmp_path / "source/images/a.nii"
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "old.nii")
    assert convert(tmp_path / "source") == 0
    link.unlink()
    link.symlink_to(tmp_path / "new.nii")
    assert convert(tmp_path / "source") == 2
    assert "was converted from other source files (images/a.nii)" in capsys.readouterr().err


def test_a_file_of_the_same_size_and_time_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "source/images/a.nii"
    write_volume(path, VOXELS)
    assert convert(tmp_path / "source") == 0
    replaced_unnoticeably(path, lambda: write_volume(path, OTHER))
    assert convert(tmp_path / "source") == 2
    assert "was converted from other source files (images/a.nii)" in capsys.readouterr().err


def test_cases_that_came_and_went_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        write_volume(tmp_path / f"source/images/{name}.nii", VOXELS)
    assert convert(tmp_path / "source") == 0
    (tmp_path / "source/images/b.nii").rename(tmp_path / "source/images/c.nii")
    assert convert(tmp_path / "source") == 2
    assert "was converted from other source files (b, c)" in capsys.readouterr().err
