"""Series as archives hold them: attributes missing, empty or wrong, names in other alphabets; the objects are valid."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from box_chest import CLASSES, box_chest
from reported import write_series

from nnunet_covid.errors import UserError
from nnunet_covid.report import quantify
from nnunet_covid.report.assemble import source_of
from nnunet_covid.report.dicom_objects import Source, write_objects
from nnunet_covid.report.document import Document, ModelFacts
from nnunet_covid.report.pseudonyms import Pseudonymiser
from nnunet_covid.report.scans import read_scan

TEN = slice(10, 20)
MODEL = ModelFacts("InfNetTrainer__nnUNetPlans__2d", "Dataset501", ("0",), tuple(CLASSES), "abc")


def objects_of(folder: Path, change: Callable[[Any], None]) -> list[Any]:
    """The objects of ten slices whose headers were changed."""
    chest = box_chest()
    series = write_series(folder / "series", chest.image[:, :, TEN])
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        change(header)
        header.save_as(path)
    scan = read_scan(series)
    labels, lungs = chest.labels[:, :, TEN], chest.lungs[:, :, TEN]
    numbers = quantify(scan.image, labels, CLASSES, lungs=lungs)
    source = source_of(scan, None)
    assert source is not None
    values = sitk.GetArrayFromImage(labels)
    (folder / "out").mkdir()
    written = write_objects(
        folder / "out", source, Document.of(scan.facts, MODEL, numbers).as_json(),
        {name: values == value for name, value in CLASSES.items()}, sitk.GetArrayFromImage(lungs) > 0,
        [np.zeros((60, 80, 3), np.uint8)],
    )  # fmt: skip
    if shutil.which("dciodvfy"):
        for path in written:
            done = subprocess.run(
                ["dciodvfy", path], capture_output=True, encoding="utf-8", errors="replace", check=False
            )
            assert "Error" not in done.stdout + done.stderr, f"{path.name}: {done.stdout}{done.stderr}"
    return [pydicom.dcmread(path) for path in written]


def test_what_is_missing_is_empty_and_geometry_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    missing = (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
        "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID", "SliceThickness", "SeriesNumber",
        "InstanceNumber", "PositionReferenceIndicator", "SeriesDescription",
    )  # fmt: skip

    def change(header: Any) -> None:
        for keyword in missing:
            delattr(header, keyword)

    segmentation = objects_of(tmp_path, change)[0]
    measures = segmentation.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SliceThickness) == 2.5


@pytest.mark.parametrize(
    ("keyword", "value", "becomes"),
    [
        ("StudyDate", "2020.03.28", "20200328"),
        ("StudyDate", "20201328", ""),
        ("PatientBirthDate", "00000000", ""),
        ("PatientBirthDate", "1950", ""),
        ("PatientSex", "female", ""),
        ("StudyTime", "10:42:33", ""),
        ("StudyTime", "1042", "1042"),
    ],
)
def test_a_value_of_another_form_is_left_out(tmp_path: Path, keyword: str, value: str, becomes: str) -> None:
    pytest.importorskip("highdicom")
    for made in objects_of(tmp_path, lambda header: setattr(header, keyword, value)):
        assert str(made.get(keyword) or "") == becomes


@pytest.mark.parametrize(
    ("character_set", "name"),
    [("ISO_IR 100", "M\u00fcller^J\u00fcrgen"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce"),
     ("ISO_IR 144", "\u041b\u044e\u043ac\u0435\u043c\u0431\u0443\u0440\u0433")],
)  # fmt: skip
def test_names_in_other_alphabets_stay(tmp_path: Path, character_set: Any, name: str) -> None:
    pytest.importorskip("highdicom")

    def change(header: Any) -> None:
        header.SpecificCharacterSet, header.PatientName = character_set, name

    for made in objects_of(tmp_path, change):
        assert str(made.PatientName) == name


def test_the_captures_of_each_report_on_a_series_are_a_series_of_their_own(tmp_path: Path) -> None:
    """An archive shows captures by their series: those of two reports must not mix."""
    pytest.importorskip("highdicom")
    chest = box_chest()
    scan = read_scan(write_series(tmp_path / "series", chest.image[:, :, TEN]))
    numbers = quantify(scan.image, chest.labels[:, :, TEN], CLASSES, lungs=chest.lungs[:, :, TEN])
    document = Document.of(scan.facts, MODEL, numbers).as_json()
    lungs = sitk.GetArrayFromImage(chest.lungs[:, :, TEN]) > 0
    found = []
    for output in (tmp_path / "first", tmp_path / "second"):
        output.mkdir()
        source = source_of(scan, None)
        assert source is not None
        pictures = [np.zeros((60, 80, 3), np.uint8)] * 2
        write_objects(output, source, document, {"ground glass": lungs, "consolidation": lungs}, lungs, pictures)
        captures = [pydicom.dcmread(path) for path in sorted(output.glob("capture_*.dcm"))]
        assert [one.InstanceNumber for one in captures] == [1, 2]
        found.append({one.SeriesInstanceUID for one in captures})
    assert [len(uids) for uids in found] == [1, 1]
    assert found[0] != found[1]


def test_headers_that_allow_no_objects_are_told(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scan = read_scan(write_series(tmp_path / "series", box_chest().image[:, :, TEN]))
    source = source_of(scan, None)
    assert source is not None
    del source.headers[0].StudyInstanceUID
    mask = np.zeros((10, 60, 80), bool)
    chest = box_chest()
    numbers = quantify(scan.image, chest.labels[:, :, TEN], CLASSES, lungs=chest.lungs[:, :, TEN])
    with pytest.raises(UserError, match="no DICOM objects can be made"):
        write_objects(
            tmp_path, Source(source.headers), Document.of(scan.facts, MODEL, numbers).as_json(), {"a": mask}, mask, []
        )


def test_headers_that_cannot_be_pseudonymised_are_told(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    scan = read_scan(write_series(tmp_path / "series", box_chest().image[:, :, TEN]))
    header = pydicom.dcmread(scan.files[0])
    del header.SOPInstanceUID
    header.save_as(scan.files[0])
    with pytest.raises(UserError, match=r"no DICOM objects can be made .*SOPInstanceUID is missing"):
        source_of(scan, Pseudonymiser(b"0123456789abcdef"))
