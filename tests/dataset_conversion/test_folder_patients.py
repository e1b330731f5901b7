"""Whom the series of a user's own folder show, by their DICOM headers: visits of one patient stay on one side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import dicom_files
import pytest
from image_files import hounsfield, write_volume

from nnunet_covid.dataset_conversion.folder import FolderLayout, convert_folder
from nnunet_covid.raw_dataset.patients import recorded_patients

SHAPE = (3, 10, 12)


def converted(
    folder: Path, patients: Sequence[str | None], said: list[str], layout: FolderLayout | None = None
) -> Path:
    """A conversion of series with these identifiers, one visit each, as data set of labelled cases."""
    for number, patient in enumerate(patients):
        name = f"visit{number}"
        voxels = hounsfield(SHAPE, number)
        uids = {"series": f"1.2.{number}", "StudyInstanceUID": f"1.9.{number}"}
        dicom_files.write_series(folder / "source/images" / name, voxels, PatientID=patient, **uids)
        y, x = dicom_files.SPACING
        grid = {"spacing": (x, y, dicom_files.STEP), "origin": dicom_files.ORIGIN}
        write_volume(folder / f"source/masks/{name}.nii.gz", (voxels > 0).astype("uint8"), **grid)
    return convert_folder(folder / "source", output=folder / "raw", layout=layout, tell=said.append)


def test_visits_of_one_patient_stay_on_one_side_and_no_identifier_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    folder = converted(tmp_path, ["KH-17", "KH-4711", None, "KH-17", "KH-4711", "KH-5"], said)
    visits = [{"visit000", "visit003"}, {"visit001", "visit004"}]
    splits = json.loads((folder / "splits_final.json").read_text())
    assert len(splits) == 4
    for fold in splits:
        assert all(visit <= set(fold["train"]) or visit <= set(fold["val"]) for visit in visits)
    assert not any("KH-" in path.read_text() for path in folder.glob("*.json"))
    assert "note: by their PatientID 5 series are of 3 patients, each named by its first case" in said
    found = recorded_patients(folder)
    assert found == {name: min(visit) for visit in visits for name in visit}


@pytest.mark.parametrize("patients", [["X", "X", "X"], [None, None, None], ["", " ", ""]])
def test_identifiers_of_anonymised_series_join_nothing(tmp_path: Path, patients: list[str | None]) -> None:
    said: list[str] = []
    folder = converted(tmp_path, patients, said)
    assert len(json.loads((folder / "splits_final.json").read_text())) == 3
    assert any("all series have the same PatientID" in line for line in said) == (patients[0] == "X")


def test_the_same_number_of_two_hospitals_is_two_patients(tmp_path: Path) -> None:
    said: list[str] = []
    converted(tmp_path, ["1", "1", "2"], said)
    for path in (tmp_path / "source/images/visit1").iterdir():
        dicom_files.change(path, IssuerOfPatientID="B")
    folder = convert_folder(tmp_path / "source", output=tmp_path / "again", tell=said.append)
    assert recorded_patients(folder) == {}


def test_a_pattern_tells_more_than_the_headers(tmp_path: Path) -> None:
    layout = FolderLayout(patient_pattern="visit(.*)")
    folder = converted(tmp_path, ["A", "A", "B"], [], layout)
    assert set(recorded_patients(folder).values()) == {"000", "001", "002"}
