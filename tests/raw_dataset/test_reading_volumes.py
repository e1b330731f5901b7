"""Volumes and DICOM series: order, geometry, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from image_files import hounsfield, write_dicom_series, write_volume

from nnunet_covid.raw_dataset import UnusableFile, dicom_folder, read_scan
from nnunet_covid.raw_dataset.volumes import array_of, difference_of_grids, read_volume

SHAPE = (6, 8, 9)


def test_slices_are_ordered_by_position_not_by_name(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "series", hounsfield(SHAPE, 0))
    image = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), hounsfield(SHAPE, 0))
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.7, 2.5), rtol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), (-10, 20, -30), rtol=1e-5)


def test_a_missing_slice_is_noticed(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, hounsfield(SHAPE, 0), skip=(3,))
    with pytest.raises(
        UnusableFile,
        match=r"slices are missing or unevenly spaced \(distances 2\.5 to 5 mm\), between .* download the whole",
    ):
        read_volume(tmp_path)


def test_two_series_in_one_folder_are_refused(tmp_path: Path) -> None:
    write_dicom_series(tmp_path, hounsfield((3, 8, 9), 0), series="1.2.3")
    write_dicom_series(tmp_path / "other", hounsfield((4, 8, 9), 0), series="1.2.4")
    (tmp_path / "other/0004.dcm").rename(tmp_path / "stray.dcm")
    with pytest.raises(UnusableFile, match=r"holds 2 DICOM series: .*; leave one"):
        read_volume(tmp_path)


def test_series_are_found_at_any_depth(tmp_path: Path) -> None:
    write_dicom_series(tmp_path / "a/b/c", hounsfield((3, 8, 9), 0))
    write_dicom_series(tmp_path / "a/rt", hounsfield((1, 8, 9), 0), modality="RTSTRUCT")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/readme.txt").write_text("no image")
    assert [series.folder for series in dicom_folder(tmp_path).series] == [tmp_path / "a/b/c"]


def test_hounsfield_units_are_recognised(tmp_path: Path) -> None:
    write_volume(tmp_path / "hu.nii.gz", hounsfield(SHAPE, 0))
    write_volume(tmp_path / "grey.nii.gz", hounsfield(SHAPE, 0).clip(0, 255))
    assert read_scan(tmp_path / "hu.nii.gz").is_hu
    assert not read_scan(tmp_path / "grey.nii.gz").is_hu


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], np.uint8), ([-1024, 3071], np.int16), ([0, 40000], np.int32), ([0.25, 1], np.float32)],
)
def test_voxels_get_the_smallest_type_that_holds_them(tmp_path: Path, values: list[float], dtype: type) -> None:
    array = np.resize(np.array(values, dtype=np.float64), (2, 3, 4))
    write_volume(tmp_path / "v.nii.gz", array)
    found = array_of(read_volume(tmp_path / "v.nii.gz"), tmp_path / "v.nii.gz")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    array = np.zeros((2, 3, 4), dtype=np.float32)
    array[0, 0, 0] = np.nan
    write_volume(tmp_path / "v.nrrd", array)
    with pytest.raises(UnusableFile, match="no finite numbers; replace"):
        read_scan(tmp_path / "v.nrrd")


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "v.nii.gz").write_bytes(b"no image")
    with pytest.raises(UnusableFile, match="cannot be read as an image; download or export it again"):
        read_scan(tmp_path / "v.nii.gz")


@pytest.mark.parametrize(
    ("geometry", "difference"),
    [
        ({}, None),
        ({"origin": (-10.001, 20.0, -30.0)}, None),
        ({"origin": (-9.0, 20.0, -30.0)}, "lies elsewhere"),
        ({"spacing": (0.8, 0.7, 2.6)}, "has spacing"),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)}, "lies elsewhere"),
    ],
)
def test_grids_agree_up_to_rounding(tmp_path: Path, geometry: dict[str, tuple], difference: str | None) -> None:
    write_volume(tmp_path / "a.nii.gz", hounsfield(SHAPE, 0))
    write_volume(tmp_path / "b.nii.gz", hounsfield(SHAPE, 0), **geometry)
    found = difference_of_grids(read_volume(tmp_path / "b.nii.gz"), read_volume(tmp_path / "a.nii.gz"))
    assert (found is None) if difference is None else (found is not None and difference in found)
