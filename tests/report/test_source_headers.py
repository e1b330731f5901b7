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


def objects_of(folder: Path, change: Callable[[Any], None], *, lobes: bool = False) -> list[Any]:
    """The objects of ten slices whose headers were changed, a class of no known name among theirs."""
    chest = box_chest()
    series = write_series(folder / "series", chest.image[:, :, TEN])
    for path in series.iterdir():
        header = pydicom.dcmread(path)
        change(header)
        header.save_as(path)
    scan = read_scan(series)
    labels, lungs = chest.labels[:, :, TEN], chest.lungs[:, :, TEN]
    classes: dict[str, tuple[int, ...]] = {**{name: (value,) for name, value in CLASSES.items()}, "lesion": (1, 2)}
    parts = chest.lobes[:, :, TEN] if lobes else None
    numbers = quantify(scan.image, labels, classes, lungs=lungs, lobes=parts)
    source = source_of(scan, None)
    assert source is not None
    values = sitk.GetArrayFromImage(labels)
    (folder / "out").mkdir()
    written = write_objects(
        folder / "out", source, Document.of(scan.facts, MODEL, numbers).as_json(),
        {name: np.isin(values, of) for name, of in classes.items()}, sitk.GetArrayFromImage(lungs) > 0,
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


@pytest.mark.parametrize("keyword", ["ImageOrientationPatient", "PixelSpacing"])
def test_what_scanners_round_differently_from_slice_to_slice_is_one_in_the_objects(
    tmp_path: Path, keyword: str
) -> None:
    """The volume was accepted, so the objects are made."""
    pytest.importorskip("highdicom")

    def change(header: Any) -> None:
        if header.InstanceNumber % 3 == 0:
            header[keyword].value = [value + 1e-5 for value in header[keyword].value]

    segmentation = objects_of(tmp_path, change)[0]
    assert len(segmentation.PerFrameFunctionalGroupsSequence) > 0


def test_a_slice_without_frame_of_reference_has_that_of_the_others(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    said = []

    def change(header: Any) -> None:
        said.append(header.FrameOfReferenceUID)
        if header.InstanceNumber in (1, 4):
            del header.FrameOfReferenceUID

    segmentation = objects_of(tmp_path, change)[0]
    assert {segmentation.FrameOfReferenceUID} == set(said)


@pytest.mark.parametrize(("number", "told"), [(4, ", of series 4"), (0, ", of series 0"), (None, "")])
def test_the_objects_say_of_which_series_they_are(tmp_path: Path, number: int | None, told: str) -> None:
    """Of several reconstructions of one study an archive lists them side by side."""
    pytest.importorskip("highdicom")
    made = objects_of(tmp_path, lambda header: setattr(header, "SeriesNumber", number))
    assert [one.SeriesDescription for one in made] == [
        f"Lung infection, {what}{told}" for what in ("label map", "measurements", "key slices")
    ]


CODES = {
    ("112120", "DCM", "Ground glass opacity"): "PS3.16, annex D",
    ("95436008", "SCT", "Lung consolidation"): "SNOMED CT: Lung consolidation (disorder)",
    ("52988006", "SCT", "Lesion"): "PS3.16, CID 7159",
    ("49755003", "SCT", "Morphologically Abnormal Structure"): "PS3.16, CID 7150",
    ("123037004", "SCT", "Anatomical Structure"): "PS3.16, CID 7150",
    ("39607008", "SCT", "Lung"): "PS3.16, CID 8134",
    ("45653009", "SCT", "Upper lobe of lung"): "PS3.16, CID 8134",
    ("72481006", "SCT", "Middle lobe of right lung"): "PS3.16, CID 8134",
    ("90572001", "SCT", "Lower lobe of lung"): "PS3.16, CID 8134",
    ("7771000", "SCT", "Left"): "PS3.16, CID 244",
    ("24028007", "SCT", "Right"): "PS3.16, CID 244",
    ("169069000", "SCT", "CT of chest"): "SNOMED CT: Computed tomography of chest (procedure)",
    ("118565006", "SCT", "Volume"): "PS3.16, CID 7469",
    ("infection-percent", "99NNCOVID", "Infection as per cent of the region"): "own",
    ("infection-volume", "99NNCOVID", "Infection volume inside the region"): "own",
    ("mL", "UCUM", "mL"): "UCUM",
    ("%", "UCUM", "%"): "UCUM",
    ("123110", "DCM", "Artificial Intelligence"): "PS3.16, annex D",
    ("121007", "DCM", "Device"): "PS3.16, annex D",
    ("126000", "DCM", "Imaging Measurement Report"): "PS3.16, annex D",
}
"""Those that the program chooses, and where they stand."""
OF_TEMPLATES = {
    ("109102", "DCM"), ("112039", "DCM"), ("112040", "DCM"), ("113076", "DCM"), ("121005", "DCM"), ("121012", "DCM"),
    ("121013", "DCM"), ("121015", "DCM"), ("121049", "DCM"), ("121058", "DCM"), ("121071", "DCM"), ("121191", "DCM"),
    ("121233", "DCM"), ("121322", "DCM"), ("125007", "DCM"), ("126010", "DCM"), ("272741003", "SCT"),
    ("363698007", "SCT"), ("en-US", "RFC5646"),
}  # fmt: skip
"""Those that the templates of PS3.16 prescribe, which highdicom writes."""


@pytest.mark.parametrize("lobes", [False, True])
def test_every_code_of_the_objects_means_what_it_is_said_to_mean(tmp_path: Path, lobes: bool) -> None:
    pytest.importorskip("highdicom")
    made = objects_of(tmp_path, lambda header: None, lobes=lobes)
    codes = {
        (item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
        for one in made
        for element in one.iterall()
        if element.VR == "SQ"
        for item in element.value
        if "CodeValue" in item
    }
    assert {code for code in codes if code[:2] not in OF_TEMPLATES} <= CODES.keys()
    procedures = [item for item in made[1].ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "121058"]
    assert [item.ConceptCodeSequence[0].CodeValue for item in procedures] == ["169069000"]


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


def test_objects_name_the_issuer_of_the_identifier(tmp_path: Path) -> None:
    made = objects_of(tmp_path, lambda header: setattr(header, "IssuerOfPatientID", "North"))
    assert {one.IssuerOfPatientID for one in made} == {"North"}


@pytest.mark.parametrize(("day", "told"), [("20200328", "2020-03-28"), ("2020.03.28", "2020-03-28"), ("March", "")])
def test_a_report_has_the_study_date_of_its_series(tmp_path: Path, day: str, told: str) -> None:
    assert read_scan(write_series(tmp_path / "ct", box_chest().image[:, :, :3], day)).facts.study_date == told
