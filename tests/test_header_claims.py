"""No memory is asked for by the word of a header alone."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from image_files import write_dicom_series, write_picture, write_volume
from odd_volumes import HUGE, claiming_more

from nnunet_covid.errors import UserError
from nnunet_covid.header_claims import false_claim, read_probabilities

VOXELS = np.zeros((8, 64, 64), np.int16)  # as compressible as voxels can be
ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_volume_that_promises_what_its_file_cannot_hold(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    write_volume(path, VOXELS)
    assert false_claim(path) is None
    said = false_claim(claiming_more(path))
    assert said is not None
    assert f"promises {HUGE}×{HUGE}×{HUGE} voxels" in said
    assert "copy or export it again" in said


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_the_best_compression_is_no_false_claim(ending: str, tmp_path: Path) -> None:
    import SimpleITK as sitk

    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((64, 256, 256), np.int16)), str(path), True)
    assert path.stat().st_size < 64 * 256 * 256 / 100
    assert false_claim(path) is None


def test_a_header_of_another_files_voxels_counts_them(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.mhd", VOXELS)
    assert false_claim(tmp_path / "a.mhd") is None
    (tmp_path / "a.raw").write_bytes(b"0")
    assert "promises 64×64×8 voxels" in str(false_claim(tmp_path / "a.mhd"))


def test_dicom(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "series", VOXELS)
    path = sorted((tmp_path / "series").iterdir())[0]
    assert false_claim(path) is None
    content = path.read_bytes()
    rows = b"\x28\x00\x10\x00\x02\x00\x00\x00" + struct.pack("<H", 64)
    assert content.count(rows) == 1
    path.write_bytes(content.replace(rows, rows[:-2] + struct.pack("<H", 65_000)))
    assert "voxels, but the file has only" in str(false_claim(path))


def test_tiff_and_pictures(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", VOXELS)
    assert false_claim(tmp_path / "a.tif") is None
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(2**30)
    assert "voxels, but the file has only" in str(false_claim(tmp_path / "a.tif"))
    write_picture(tmp_path / "a.png", np.zeros((512, 512), np.uint8))
    assert false_claim(tmp_path / "a.png") is None


def _npz(path: Path, header: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("probabilities.npy", header)
    return path


def test_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, probabilities=np.zeros((2, 1, 512, 512), np.float32))
    assert read_probabilities(path).shape == (2, 1, 512, 512)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 100000, 100000), }"
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    with pytest.raises(UserError, match=r"a\.npz: its header promises 2×100000×100000 voxels"):
        read_probabilities(_npz(path, header + bytes(64)))
    np.savez(path, probabilities=np.array([{}], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz: cannot be read \(.*pickle"):
        read_probabilities(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(UserError, match="has no array 'probabilities'"):
        read_probabilities(path)
    path.write_bytes(b"PK")
    with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
        read_probabilities(path)
