"""What a header says is believed where nothing is wrong with it, and the files behind it are found."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import odd_volumes
import pytest
import SimpleITK as sitk
from image_files import hounsfield, read_array, write_volume

from nnunet_covid.raw_dataset.volumes import read_volume
from nnunet_covid.volume_files import data_files, header_fault, loses_values, one_volume

IMAGE = hounsfield((4, 8, 8), 0)
ANGLE = np.deg2rad(20)
OBLIQUE = (np.cos(ANGLE), -np.sin(ANGLE), 0.0, np.sin(ANGLE), np.cos(ANGLE), 0.0, 0.0, 0.0, 1.0)
ENDINGS = (".nii", ".nii.gz", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr")


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_itk_writes_is_believed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    write_volume(path, IMAGE, direction=OBLIQUE)
    assert header_fault(path) is None
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(path)), IMAGE)
    beside = {other for other in tmp_path.iterdir() if other != path}
    assert set(data_files(path)) == beside
    assert len(beside) == (ending in {".hdr", ".mhd", ".nhdr"})


@pytest.mark.parametrize("ending", [".mhd", ".nhdr", ".nii.gz"])
def test_compressed_voxels_are_believed(tmp_path: Path, ending: str) -> None:
    image = sitk.GetImageFromArray(IMAGE)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), True)
    assert header_fault(tmp_path / f"a{ending}") is None
    assert {path.suffix for path in data_files(tmp_path / f"a{ending}")} <= {".zraw", ".gz"}
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path / f"a{ending}")), IMAGE)


@pytest.mark.parametrize("listed", ["LIST\n0.raw\n1.raw\n2.raw\n3.raw", "%d.raw 0 3 1"])
def test_voxels_in_a_file_per_slice(tmp_path: Path, listed: str) -> None:
    odd_volumes.meta_image(tmp_path / "a.mhd", IMAGE, ElementDataFile=listed)
    for index, plane in enumerate(IMAGE):
        (tmp_path / f"{index}.raw").write_bytes(plane.tobytes())
    assert [path.name for path in data_files(tmp_path / "a.mhd")] == [f"{index}.raw" for index in range(4)]
    assert header_fault(tmp_path / "a.mhd") is None
    np.testing.assert_array_equal(read_array(tmp_path / "a.mhd"), IMAGE)


@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
@pytest.mark.parametrize(
    "pattern",
    [
        "a%d%d.raw 1 3 1",
        "a%d.raw 1 2000000000",
        "a%s.raw 1 3 1",
        "a%s.raw",
        "a%n%d.raw 1 3 1",
        "a%999999999d.raw 1 3 1",
        "a%d.raw 1 3 0",
        "a%d.raw 3 1 1",
        "a%d.raw one two",
    ],
)
def test_a_pattern_of_data_files_that_is_none_is_refused(tmp_path: Path, ending: str, pattern: str) -> None:
    if ending == ".mhd":
        odd_volumes.meta_image(tmp_path / "a.mhd", IMAGE, ElementDataFile=pattern)
    else:
        odd_volumes.nrrd(tmp_path / "a.nhdr", IMAGE, data_file=pattern)
    assert header_fault(tmp_path / f"a{ending}") == (
        f"its header gives {pattern!r} for its data files, no pattern of names; export it again"
    )


def test_a_list_of_files_in_a_nrrd(tmp_path: Path) -> None:
    odd_volumes.nrrd(tmp_path / "a.nhdr", IMAGE, data_file="LIST\n0.raw\n1.raw")
    for index in range(2):
        (tmp_path / f"{index}.raw").write_bytes(IMAGE[2 * index : 2 * index + 2].tobytes())
    assert [path.name for path in data_files(tmp_path / "a.nhdr")] == ["0.raw", "1.raw"]
    assert header_fault(tmp_path / "a.nhdr") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"qform_code": 0, "sform_code": 0},
        {"sform_code": 0},
        {"xyzt_units": 0},
        {"pixdim_3": 6.03},
        {"quatern": (0.0, 0.17, 0.985)},
        {"scl": (np.nan, np.nan)},
    ],
)
def test_usual_nifti_headers_are_believed(tmp_path: Path, fields: dict) -> None:
    odd_volumes.nifti(tmp_path / "a.nii", IMAGE, **fields)
    assert header_fault(tmp_path / "a.nii") is None


@pytest.mark.parametrize("unit", ["mm", "", "?", "millimeter", " mm "])
def test_millimetres_and_no_unit_at_all_are_believed(tmp_path: Path, unit: str) -> None:
    odd_volumes.meta_image(tmp_path / "a.mha", IMAGE, DistanceUnits=unit)
    odd_volumes.nrrd(tmp_path / "a.nrrd", IMAGE, space_units=" ".join([f'"{unit}"'] * 3))
    assert header_fault(tmp_path / "a.mha") is None
    assert header_fault(tmp_path / "a.nrrd") is None


def test_spacings_in_another_unit_are_told(tmp_path: Path) -> None:
    plain = {"space": None, "space_directions": None, "space_origin": None, "spacings": "6 6 6"}
    odd_volumes.nrrd(tmp_path / "a.nrrd", IMAGE, **plain, units='"m" "m" "m"')
    assert "gives the voxel size in m (field spacings)" in str(header_fault(tmp_path / "a.nrrd"))


def test_a_header_in_the_other_byte_order(tmp_path: Path) -> None:
    odd_volumes.nifti(tmp_path / "a.nii", IMAGE)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    for name in ("sizeof_hdr", "dim", "datatype", "bitpix", "pixdim", "qform_code", "sform_code", "quatern", "srow"):
        offset, kind = odd_volumes.FIELDS[name]
        struct.pack_into(f">{kind}", content, offset, *struct.unpack_from(f"<{kind}", content, offset))
    (tmp_path / "a.nii").write_bytes(content)
    assert header_fault(tmp_path / "a.nii") is None
    struct.pack_into(">f", content, 76 + 8, 0.0)
    (tmp_path / "a.nii").write_bytes(content)
    assert "voxel size 0 (field pixdim, axis 2)" in str(header_fault(tmp_path / "a.nii"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mhd", "a.nrrd", "a.hdr", "missing.nii"])
@pytest.mark.parametrize("content", [b"", b"NRRD", b"\x1f\x8b\x08", bytes(400)])
def test_what_is_no_header_is_left_to_the_reader(tmp_path: Path, name: str, content: bytes) -> None:
    if name != "missing.nii":
        (tmp_path / name).write_bytes(content)
    assert header_fault(tmp_path / name) is None
    assert data_files(tmp_path / name) == ()


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".hdr"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_values_that_nifti_turns_into_zeros(tmp_path: Path, ending: str, kind: type, value: float) -> None:
    array = np.ones((4, 8, 8), kind)
    array[3, 7, 7] = value
    write_volume(tmp_path / f"a{ending}", array)
    read = read_array(tmp_path / f"a{ending}")
    assert read[3, 7, 7] == 0, "why the file is read once more"
    assert loses_values(tmp_path / f"a{ending}", read) is (value != 0)


def test_axes_of_length_one_are_dropped_behind_the_third() -> None:
    image = sitk.GetImageFromArray(IMAGE[:1])
    image.SetSpacing((2.0, 3.0, 4.0))
    for more in (image, sitk.JoinSeries([image]), sitk.JoinSeries([sitk.JoinSeries([image])])):
        volume, fault = one_volume(more)
        assert fault is None
        assert (volume.GetSize(), volume.GetSpacing()) == ((8, 8, 1), (2.0, 3.0, 4.0))
