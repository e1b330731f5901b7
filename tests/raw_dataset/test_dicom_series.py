"""DICOM as archives hand it out, all of it read: frames, parts, odd encodings, other objects beside the slices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    ORIGIN,
    SECONDARY_CAPTURE,
    SPACING,
    STEP,
    at,
    ct_slice,
    dicom_object,
    enhanced,
    multi_frame,
    structure_set,
    write,
    write_series,
    write_without_preamble,
)
from image_files import blob, hounsfield, read_array, write_volume
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless

from nnunet_covid.cli import main
from nnunet_covid.raw_dataset.volumes import read_volume

VOLUME = hounsfield((6, 10, 12), 3)


def converted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: str = "source"
) -> tuple[dict[str, Path], str]:
    """Case to image, and what was printed."""
    assert main(["convert", "folder", str(tmp_path / source), "-o", str(tmp_path / "raw"), "--workers", "1"]) == 0
    images = (tmp_path / "raw").glob("Dataset599_Folder/images*/*_0000.nii.gz")
    return {path.name.removesuffix("_0000.nii.gz"): path for path in images}, capsys.readouterr().out


def assert_is_the_volume(path: Path) -> None:
    image = read_volume(path)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), VOLUME)
    np.testing.assert_allclose(image.GetSpacing(), (SPACING[1], SPACING[0], STEP), rtol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), ORIGIN, rtol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel(), atol=1e-6)


SHUFFLED = [3, 0, 5, 1, 4, 2]


@pytest.mark.parametrize(
    "ds",
    [
        multi_frame(VOLUME),
        multi_frame(VOLUME, SliceThickness=6.0, SpacingBetweenSlices=STEP),
        enhanced(VOLUME),
        enhanced(VOLUME[::-1], [at(number) for number in range(5, -1, -1)]),
        enhanced(VOLUME[SHUFFLED], [at(number) for number in SHUFFLED]),
    ],
    ids=["old", "old, with its own distance", "new", "new, from the head down", "new, in any order"],
)
def test_frames_are_read_in_their_place(tmp_path: Path, ds: Dataset) -> None:
    write(ds, tmp_path / "case/frames.dcm")
    assert_is_the_volume(tmp_path / "case")
    assert_is_the_volume(tmp_path / "case/frames.dcm")


def of_syntax(syntax: str) -> Callable[[Dataset, Path], None]:
    def write_slice(ds: Dataset, path: Path) -> None:
        if syntax == RLELossless:
            ds.compress(RLELossless)
        elif syntax == ExplicitVRBigEndian:
            ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()
        ds.file_meta.TransferSyntaxUID = syntax
        write(ds, path)

    return write_slice


@pytest.mark.parametrize(
    "write_slice",
    [
        write_without_preamble,
        of_syntax(DeflatedExplicitVRLittleEndian),
        of_syntax(ExplicitVRBigEndian),
        of_syntax(RLELossless),
    ],
    ids=["without preamble", "deflated", "big endian", "run-length"],
)
@pytest.mark.parametrize("name", ["{:03d}.dcm", "1.2.840.{}", "IM{}"])
def test_slices_of_any_encoding_and_name(
    tmp_path: Path, write_slice: Callable[[Dataset, Path], None], name: str
) -> None:
    for number, pixels in enumerate(VOLUME):
        path = tmp_path / "case" / name.format(number)
        path.parent.mkdir(exist_ok=True)
        write_slice(ct_slice(pixels, number), path)
    assert_is_the_volume(tmp_path / "case")


def test_every_case_is_converted_and_other_objects_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "source/images"
    for number in range(len(VOLUME)):
        write_without_preamble(ct_slice(VOLUME[number], number), images / f"case1/{number}.dcm")
    write_series(images / "case2", VOLUME)
    write(structure_set(), images / "case2/AA_structures.dcm")
    write(structure_set("SR"), images / "case2/report.dcm")
    write(dicom_object("1.2.840.10008.1.3.10", "", "1.2.5.1"), images / "case2/DICOMDIR")
    (images / "case2/letter.pdf").write_bytes(b"%PDF")
    cases, said = converted(tmp_path, capsys)
    assert sorted(cases) == ["case001", "case002"]
    for path in cases.values():
        np.testing.assert_array_equal(read_array(path), VOLUME)
    assert (
        "note: left out images/case2/AA_structures.dcm: a structure set (RTSTRUCT); "
        "export it as NIfTI to use it as a mask\n" in said
    )
    assert "note: left out images/case2/report.dcm: a report (SR)\n" in said
    assert "note: left out images/case2/DICOMDIR: the index of a disc (DICOMDIR)\n" in said
    assert "note: left out images/case2/letter.pdf: no image\n" in said


def test_a_series_in_parts_is_one_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, pixels in enumerate(VOLUME):
        write(ct_slice(pixels, number), tmp_path / f"source/images/case1/{number % 2}/IM{number}")
    write_volume(tmp_path / "source/masks/case1.nii.gz", blob(VOLUME.shape, 0), spacing=(0.8, 0.7, STEP), origin=ORIGIN)
    cases, _ = converted(tmp_path, capsys)
    np.testing.assert_array_equal(read_array(cases["case001"]), VOLUME)


def test_an_image_deep_in_the_folder_of_its_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(tmp_path / "source/patient1/study/ct.nii.gz", VOLUME)
    write_series(tmp_path / "source/patient2/study/series", VOLUME)
    cases, _ = converted(tmp_path, capsys)
    assert sorted(cases) == ["patient001", "patient002"]
    assert main(["lung-mask", str(tmp_path / "source"), str(tmp_path / "lungs"), "--method", "threshold"]) == 0
    assert sorted(path.name for path in (tmp_path / "lungs").iterdir()) == ["patient1.nii.gz", "patient2.nii.gz"]


def test_the_folder_of_a_series_is_a_case(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "chest7", VOLUME)
    write(structure_set(), tmp_path / "chest7/structures")
    cases, said = converted(tmp_path, capsys, "chest7")
    np.testing.assert_array_equal(read_array(cases["chest007"]), VOLUME)
    assert "left out structures: a structure set" in said
    assert main(["convert", "folder", str(tmp_path / "chest7"), "-o", str(tmp_path / "raw")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_folders_beside_the_images_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(tmp_path / "source/images/case1", VOLUME)
    write_series(tmp_path / "source/more_images/case2", VOLUME)
    _, said = converted(tmp_path, capsys)
    assert "note: left out more_images: beside the folder of images, not in it\n" in said


def test_every_slice_keeps_its_own_scale(tmp_path: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        scale = {"RescaleSlope": 0.5, "RescaleIntercept": -512 + number} if number % 2 else {}
        write(ct_slice(pixels, number, **scale), tmp_path / f"{number}.dcm")
    expected = VOLUME.astype(np.float32)
    expected[1::2] = (VOLUME[1::2] + 1024) * 0.5 - 512 + np.arange(1, 6, 2)[:, None, None]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path)), expected)


@pytest.mark.parametrize("kind", [f"{SECONDARY_CAPTURE}.3", "1.2.840.10008.5.1.4.1.1.481.1"])
def test_slices_of_kinds_for_which_gdcm_finds_no_grid_lie_where_their_headers_say(tmp_path: Path, kind: str) -> None:
    write_series(tmp_path, VOLUME, SOPClassUID=kind)
    assert_is_the_volume(tmp_path)


def test_signed_slices_among_unsigned_ones(tmp_path: Path) -> None:
    volume = np.abs(VOLUME)
    volume[1:] -= 1000
    for number, pixels in enumerate(volume):
        stored = {"PixelRepresentation": int(number > 0), "RescaleIntercept": 0, "PixelData": pixels.tobytes()}
        write(ct_slice(pixels, number, **stored), tmp_path / f"{number}.dcm")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_volume(tmp_path)), volume)


def test_slices_from_the_head_down_have_the_same_grid(tmp_path: Path) -> None:
    for number, pixels in enumerate(VOLUME[::-1]):
        write(ct_slice(pixels, len(VOLUME) - 1 - number, InstanceNumber=number), tmp_path / f"{number}.dcm")
    assert_is_the_volume(tmp_path)
