"""NIfTI files that are cut short or damaged, which ITK reads without an error, and whole ones of unusual make."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import hounsfield, write_volume

from nnunet_covid import whole_files
from nnunet_covid.raw_dataset import UnusableFile
from nnunet_covid.raw_dataset.volumes import read_volume

VOXELS = hounsfield((40, 64, 64), 0)  # ITK refuses damage within its first read-ahead of a file
DIMENSIONS, BITS_PER_VOXEL, OFFSET = 40, 72, 108  # where a NIfTI-1 header has them


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    """The bytes of a whole .nii.gz file of VOXELS."""
    write_volume(tmp_path / "whole.nii.gz", VOXELS)
    return (tmp_path / "whole.nii.gz").read_bytes()


def cut_in_half(packed: bytes) -> bytes:
    return packed[: len(packed) // 2]


def without_trailer(packed: bytes) -> bytes:
    return packed[:-8]


def with_a_flipped_bit(packed: bytes) -> bytes:
    return packed[: len(packed) // 2] + bytes([packed[len(packed) // 2] ^ 1]) + packed[len(packed) // 2 + 1 :]


def with_another_checksum(packed: bytes) -> bytes:
    return packed[:-8] + bytes(4) + packed[-4:]


def packed_after_it_was_cut(packed: bytes) -> bytes:
    return gzip.compress(cut_in_half(gzip.decompress(packed)))


def cut_and_not_packed(packed: bytes) -> bytes:
    return cut_in_half(gzip.decompress(packed))


@pytest.mark.parametrize(
    "damage",
    [
        cut_in_half,
        without_trailer,
        with_a_flipped_bit,
        with_another_checksum,
        packed_after_it_was_cut,
        cut_and_not_packed,
    ],
)
def test_damage_is_refused(tmp_path: Path, packed: bytes, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(damage(packed))
    sitk.ReadImage(str(path))  # no error: the reason for the check
    with pytest.raises(UnusableFile, match=r"is cut short or damaged; copy it again"):
        read_volume(path)


def test_a_plain_file_that_is_cut_short_is_refused(tmp_path: Path, packed: bytes) -> None:
    path = tmp_path / "v.nii"
    path.write_bytes(cut_and_not_packed(packed))
    with pytest.raises(UnusableFile, match=r"is cut short or damaged; copy it again"):
        read_volume(path)


@pytest.mark.parametrize("damage", [cut_in_half, without_trailer, with_another_checksum, packed_after_it_was_cut])
def test_a_pair_whose_packed_voxels_are_damaged_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_volume(tmp_path / "v.hdr", VOXELS)
    voxels = gzip.compress((tmp_path / "v.img").read_bytes())
    (tmp_path / "v.img").unlink()
    (tmp_path / "v.img.gz").write_bytes(voxels)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / "v.hdr")), VOXELS)
    (tmp_path / "v.img.gz").write_bytes(in_two_members(voxels))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / "v.hdr")), VOXELS)
    (tmp_path / "v.img.gz").write_bytes(damage(voxels))
    sitk.ReadImage(str(tmp_path / "v.hdr"))  # no error: the reason for the check
    with pytest.raises(UnusableFile, match=r"is cut short or damaged; copy it again"):
        read_volume(tmp_path / "v.hdr")


def as_it_is(packed: bytes) -> bytes:
    return packed


def in_two_members(packed: bytes) -> bytes:
    content = gzip.decompress(packed)
    return gzip.compress(content[:1000]) + gzip.compress(content[1000:])


def padded_with_zeros(packed: bytes) -> bytes:
    return packed + bytes(512)


def with_more_behind_the_voxels(packed: bytes) -> bytes:
    return gzip.compress(gzip.decompress(packed) + b"more")


def not_packed(packed: bytes) -> bytes:
    return gzip.decompress(packed)


@pytest.mark.parametrize(
    "change", [as_it_is, in_two_members, padded_with_zeros, with_more_behind_the_voxels, not_packed]
)
def test_whole_files_are_read(tmp_path: Path, packed: bytes, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(change(packed))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path)), VOXELS)


def test_whole_files_whose_values_are_rescaled_are_read(tmp_path: Path, packed: bytes) -> None:
    content = bytearray(gzip.decompress(packed))
    struct.pack_into("<2f", content, 112, 2.0, 10.0)  # slope and intercept
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(bytes(content)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path)), 2.0 * VOXELS + 10)


def big_endian(content: bytes) -> bytes:
    """A NIfTI-1 file in which the fields that matter and the voxels have the other byte order."""
    header, voxels = bytearray(352), np.frombuffer(content[352:], dtype="<i2")
    header[344:348] = b"n+1\0"
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, DIMENSIONS, *struct.unpack_from("<8h", content, DIMENSIONS))
    struct.pack_into(">2h", header, BITS_PER_VOXEL - 2, 4, 16)  # 16-bit integers
    struct.pack_into(">8f", header, 76, *struct.unpack_from("<8f", content, 76))
    struct.pack_into(">f", header, OFFSET, 352)
    return bytes(header) + voxels.astype(">i2").tobytes()


def test_the_other_byte_order(tmp_path: Path, packed: bytes) -> None:
    content = big_endian(gzip.decompress(packed))
    path = tmp_path / "v.nii.gz"
    path.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path)), VOXELS)
    path.write_bytes(gzip.compress(cut_in_half(content)))
    with pytest.raises(UnusableFile, match="cut short"):
        read_volume(path)


def test_a_usual_file_is_not_unpacked_a_second_time(
    tmp_path: Path, packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.nii.gz"
    path.write_bytes(packed)
    monkeypatch.setattr(whole_files, "_unpacked_to_its_end", lambda *_: pytest.fail("unpacked again"))
    read_volume(path)


def test_files_of_other_formats_are_left_to_itk(tmp_path: Path) -> None:
    path = tmp_path / "v.nrrd"
    write_volume(path, VOXELS)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path)), VOXELS)
    path.write_bytes(cut_in_half(path.read_bytes()))
    with pytest.raises(UnusableFile, match="cannot be read as an image"):
        read_volume(path)
