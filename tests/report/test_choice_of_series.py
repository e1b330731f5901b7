"""Which patients and series of a folder are reported on, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from box_chest import box_chest
from reported import CPU, saved, write_series

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.report.batch import scans_of
from nnunet_covid.report.scans import read_scan


def test_patients_inside_folders_that_hold_nothing_else_are_scans_of_their_own(tmp_path: Path) -> None:
    inner = tmp_path / "disc/export/DICOM"
    for name, count in (("p1", 10), ("p2", 12)):
        write_series(inner / name / "study/series", box_chest().image[:, :, :count], PatientID=name)
    (tmp_path / "disc/README.txt").write_text("a viewer", encoding="utf-8")
    assert scans_of(tmp_path / "disc") == [inner / "p1", inner / "p2"]
    assert scans_of(inner / "p1") == [inner / "p1"]


@pytest.mark.parametrize("studies", [0, 2])
def test_a_folder_with_a_volume_is_a_case_alone_and_beside_several_studies(tmp_path: Path, studies: int) -> None:
    for number in range(studies):
        write_series(tmp_path / f"p1/{number}", box_chest().image[:, :, :10], StudyInstanceUID=f"1.{number + 1}")
    if not studies:
        saved(tmp_path / "p1/ct", box_chest())
    saved(tmp_path / "p2", box_chest())
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/notes.txt").write_text("none", encoding="utf-8")
    assert scans_of(tmp_path) == [tmp_path / "notes", tmp_path / "p1", tmp_path / "p2"]
    scan = read_scan(tmp_path / "p2")
    assert (scan.facts.name, scan.image.GetSize()) == ("p2", box_chest().image.GetSize())
    assert scan.facts.notes == ("Reported on chest.nii.gz.",)


@pytest.mark.parametrize(
    ("slices", "volumes"),
    [
        ("p1", ["p2"]),
        ("DICOM", ["masks/lungs", "masks/lesions"]),
        ("DICOM", ["NIFTI"]),
        (".", ["lungs", "lesions"]),
        ("p1/DICOM", ["p1/masks"]),
    ],
)
def test_volumes_beside_one_study_are_no_cases_and_are_named(tmp_path: Path, slices: str, volumes: list[str]) -> None:
    write_series(tmp_path / "study" / slices, box_chest().image[:, :, :10])
    for folder in volumes:
        saved(tmp_path / "study" / folder, box_chest())
    assert scans_of(tmp_path / "study") == [tmp_path / "study"]
    scan = read_scan(tmp_path / "study")
    assert len(scan.files) == 10
    told = " ".join(note for note in scan.facts.notes if note.startswith("Passed over"))
    assert all(f"{folder}/chest.nii.gz" in told for folder in volumes)


def test_of_a_folder_with_several_volumes_none_is_chosen(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(tmp_path / name, box_chest())
    with pytest.raises(UserError, match=r"but 2 volumes \(a/chest.nii.gz, b/chest.nii.gz\); name one"):
        read_scan(tmp_path)


def test_what_may_be_a_case_beside_a_series_is_told(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", box_chest().image[:, :, :10])
    saved(tmp_path / "p1/masks", box_chest())
    (tmp_path / "p2").mkdir()
    (tmp_path / "p3").mkdir()
    (tmp_path / "p3/ct.zip").write_bytes(b"PK")
    assert scans_of(tmp_path) == [tmp_path]
    notes = read_scan(tmp_path).facts.notes
    assert "Passed over p1/masks/chest.nii.gz, p3/ct.zip: no DICOM." in notes
    assert "Passed over p2: empty." in notes


def test_series_of_several_patients_in_one_folder_are_refused(tmp_path: Path) -> None:
    for name, count in (("p1", 10), ("p2", 12)):
        folder = write_series(tmp_path / name, box_chest().image[:, :, :count], PatientID=name)
        for path in folder.iterdir():
            (tmp_path / "flat").mkdir(exist_ok=True)
            path.rename(tmp_path / f"flat/{name}_{path.name}")
    with pytest.raises(UserError, match=r"holds CT series of 2 patients \(.*; choose one with --series UID, or give"):
        read_scan(tmp_path / "flat")
    uid = next(part for part in str(_refusal(tmp_path / "flat")).split() if part.startswith("(")).strip("(:")
    assert read_scan(tmp_path / "flat", uid).image.GetSize()[2] in (10, 12)


def _refusal(folder: Path) -> UserError:
    with pytest.raises(UserError) as e:
        read_scan(folder)
    return e.value


@pytest.mark.parametrize("hidden", [False, True])
def test_what_is_passed_over_is_told_on_the_terminal_and_not_named_under_pseudonyms(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], hidden: bool
) -> None:
    scan = tmp_path / "scan"
    uids = {"StudyInstanceUID": "1.2.9"}
    for name, count in (("short Otto", 10), ("long", 48)):
        write_series(scan / name, box_chest().image[:, :, :count], SeriesDescription=name, **uids)
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef", encoding="utf-8")
    options = ["--pseudonymise", str(tmp_path / "key")] if hidden else []
    assert main(["report", str(scan), "-m", str(model), "-o", str(tmp_path / "out"), *options, *CPU]) == 0
    told = capsys.readouterr().err
    assert "Reported on long (48 files" in told
    assert "Passed over short Otto (10 files" in told
    notes = json.loads((tmp_path / "out/report.json").read_text(encoding="utf-8"))["scan"]["notes"]
    if hidden:
        assert notes == ["Other content of the folder was passed over."]
    else:
        assert "short Otto" in notes[1]


def chosen(folder: Path, *series: tuple[int, dict[str, Any]]) -> tuple[int, tuple[str, ...]]:
    """Slices of the series that is reported on, and what is said, of series with these slices and elements."""
    for number, (count, elements) in enumerate(series):
        write_series(folder / str(number), box_chest().image[:, :, :count], StudyInstanceUID="1.2.9", **elements)
    scan = read_scan(folder)
    return scan.image.GetSize()[2], scan.facts.notes


ORIGINAL = {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
DERIVED = {"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CSA MPR"]}


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL", "CSA MIP"]}, "a projection (CSA MIP)"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MIN_IP"]}, "a projection (MIN_IP)"),
        ({"ImageType": ["DERIVED", "PRIMARY", "VOLUME", "MAXIMUM"]}, "a projection (MAXIMUM)"),
        ({"RescaleType": "MGML"}, "its values are MGML"),
        (DERIVED, "derived, not original"),
    ],
)
def test_what_shows_no_tissue_or_is_derived_stands_behind_the_original(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    size, notes = chosen(tmp_path / "scan", (24, {**ORIGINAL, "RescaleType": "HU"}), (40, {**ORIGINAL, **elements}))
    assert size == 24
    assert any(reason in note for note in notes)


def under_one_uid(folder: Path, *files: tuple[str, dict[str, Any]]) -> Path:
    """``scan``: a whole series, files beside it under its UID, and a shorter series; these sort as they are named."""
    scan = write_series(folder / "scan/long", box_chest().image[:, :, :24], StudyInstanceUID="1.2.9", **ORIGINAL)
    write_series(folder / "scan/short", box_chest().image[:, :, :12], StudyInstanceUID="1.2.9", **ORIGINAL)
    uid = pydicom.dcmread(scan / "IM0000").SeriesInstanceUID
    for number, (name, elements) in enumerate(files):
        other = write_series(folder / str(number), box_chest().image[:, :, 30:31], SeriesInstanceUID=uid, **elements)
        (other / "IM0000").rename(scan / name)
    return folder / "scan"


SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}


@pytest.mark.parametrize("name", ["AA", "ZZ"])
@pytest.mark.parametrize("by_uid", [False, True])
def test_a_localizer_with_the_uid_of_the_series_is_passed_over_wherever_it_lies(
    tmp_path: Path, name: str, by_uid: bool
) -> None:
    folder = under_one_uid(tmp_path, (name, SCOUT))
    scan = read_scan(folder, pydicom.dcmread(folder / "long/IM0000").SeriesInstanceUID if by_uid else None)
    assert scan.image.GetSize()[2] == len(scan.files) == 24
    assert f"Passed over long/{name}: a localizer." in scan.facts.notes


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Modality": "OT"}, "is OT, not CT; take it out"),
        ({"RescaleType": "MGML"}, "its values are MGML .*, those of most slices Hounsfield units; take it out"),
    ],
)
def test_a_series_is_known_by_most_of_its_files_and_the_odd_one_is_told(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UserError, match=f"long/AA: {reason}"):
        read_scan(under_one_uid(tmp_path, ("AA", {**ORIGINAL, **elements})))


def test_a_derived_series_is_reported_on_where_no_original_shows_the_chest(tmp_path: Path) -> None:
    assert chosen(tmp_path / "alone", (10, DERIVED))[0] == 10
    assert chosen(tmp_path / "beside a few slices", (40, DERIVED), (4, ORIGINAL))[0] == 40
