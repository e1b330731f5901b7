"""``nnunet-covid report`` through the real command on models with random weights: files, DICOM, batches, messages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import dicom_files
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from box_chest import box_chest
from reported import CPU, IDENTIFIERS, headers_of, saved, tiny_model, write_series

from nnunet_covid.cli import main
from nnunet_covid.files import replacing_folder
from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.report.batch import scans_of
from nnunet_covid.report.model import ReportModel


def test_a_report_holds_page_document_maps_and_dicom(reported: Path) -> None:
    assert sorted(path.name for path in reported.iterdir()) == [
        "dicom", "labels.nii.gz", "lungs.nii.gz", "preview.nii.gz", "report.html", "report.json",
    ]  # fmt: skip
    content = json.loads((reported / "report.json").read_text(encoding="utf-8"))
    labels = sitk.ReadImage(str(reported / "labels.nii.gz"))
    chest = box_chest()
    assert difference_of(Geometry.of_itk(labels), Geometry.of_itk(chest.image)) is None
    voxel = float(np.prod(chest.image.GetSpacing())) / 1000
    infected = int((sitk.GetArrayViewFromImage(labels) > 0).sum())
    assert infected > 0
    assert content["quantities"]["infection_ml"] == pytest.approx(infected * voxel)
    assert content["scan"]["study_date"] == "2020-03-28"
    assert any("no profile" in warning for warning in content["warnings"])
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert "Not a medical device" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page


def test_the_segmentation_has_the_label_maps_voxels_in_their_place(reported: Path, series: Path) -> None:
    hd = pytest.importorskip("highdicom")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(reported / "labels.nii.gz"))) > 0
    segmentation = hd.seg.segread(str(reported / "dicom" / "segmentation.dcm"))
    headers = sorted(headers_of(series), key=lambda one: one.ImagePositionPatient[2])
    by_slice = segmentation.get_pixels_by_source_instance(
        [one.SOPInstanceUID for one in headers], segment_numbers=[1], ignore_spatial_locations=True,
        assert_missing_frames_are_empty=True,
    )  # fmt: skip
    np.testing.assert_array_equal(by_slice[..., 0] > 0, labels)
    volume = segmentation.get_volume(segment_numbers=[1])
    index = np.argwhere(np.asarray(volume.array)[..., 0] > 0)
    places = volume.map_indices_to_reference(index)
    image = box_chest().image
    expected = [image.TransformIndexToPhysicalPoint((int(x), int(y), int(z))) for z, y, x in np.argwhere(labels)]
    assert len(places) == len(expected)
    np.testing.assert_allclose(
        sorted(map(tuple, np.round(places, 3))), sorted(map(tuple, np.round(expected, 3))), atol=1e-2
    )


def test_the_structured_report_says_what_the_document_says(reported: Path) -> None:
    content = json.loads((reported / "report.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, float]] = {}

    def walk(item: pydicom.Dataset, group: str) -> None:
        children = list(item.get("ContentSequence", []))
        name = next(
            (
                c.TextValue
                for c in children
                if c.ValueType == "TEXT" and c.ConceptNameCodeSequence[0].CodeValue == "112039"
            ),
            group,
        )
        for child in children:
            if child.ValueType == "NUM":
                value = float(child.MeasuredValueSequence[0].NumericValue)
                found.setdefault(name, {})[child.ConceptNameCodeSequence[0].CodeMeaning] = value
            walk(child, name)

    walk(pydicom.dcmread(reported / "dicom" / "measurements.dcm"), "")
    numbers = content["quantities"]
    for region in numbers["regions"]:
        assert found[region["name"]]["Volume"] == pytest.approx(region["volume_ml"], rel=1e-6)
        assert found[region["name"]]["Infection volume inside the region"] == pytest.approx(
            region["infection_ml"], rel=1e-6
        )
    for name, value in numbers["classes_ml"].items():
        assert found[name]["Volume"] == pytest.approx(value, rel=1e-6)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of Debian's dicom3tools is not installed")
def test_the_dicom_objects_are_without_errors(reported: Path) -> None:
    files = sorted((reported / "dicom").iterdir())
    assert len(files) >= 3
    for path in files:
        done = subprocess.run(
            ["dciodvfy", str(path)], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        assert "Error" not in done.stdout + done.stderr, f"{path.name}: {done.stdout}{done.stderr}"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy of Debian's dicom3tools is not installed")
def test_objects_of_a_series_without_names_say_how_they_were_removed(model: Path, tmp_path: Path) -> None:
    """Public series often say that identities were removed, and not how."""
    folder = write_series(tmp_path / "series", box_chest().image, PatientIdentityRemoved="YES")
    assert main(["report", str(folder), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    for path in sorted((tmp_path / "out" / "dicom").iterdir()):
        done = subprocess.run(
            ["dciodvfy", str(path)], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
        assert "Error" not in done.stdout + done.stderr, f"{path.name}: {done.stdout}{done.stderr}"


def test_pseudonymised_outputs_hold_no_identifier(model: Path, tmp_path: Path) -> None:
    headers = {**IDENTIFIERS, "day": "20200328"}
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    dates, names = [], set()
    for visit, day in enumerate(("20200328", "20200404")):
        folder = write_series(tmp_path / "Mustermann" / f"visit{visit}", box_chest().image, day)
        output = tmp_path / f"out{visit}"
        command = ["report", str(folder), "-m", str(model), "-o", str(output), "--pseudonymise", str(key), *CPU]
        assert main(command) == 0
        uids = {
            str(one.get(k))
            for one in headers_of(folder)
            for k in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
        }
        for path in (path for path in output.rglob("*") if path.is_file()):
            content = path.read_bytes()
            if path.suffix == ".gz":
                content = (
                    sitk.GetArrayFromImage(sitk.ReadImage(str(path))).tobytes()
                    + str(dict.fromkeys(sitk.ReadImage(str(path)).GetMetaDataKeys())).encode()
                )
            for text in (
                *[v for k, v in headers.items() if k not in ("StudyTime",)],
                day,
                "2020-0",
                "Mustermann",
                "Erika",
                "visit",
                *uids,
            ):
                assert text.encode() not in content, f"{path.name} holds {text}"
        document = json.loads((output / "report.json").read_text(encoding="utf-8"))
        dates.append(np.datetime64(document["scan"]["study_date"]))
        names.add(pydicom.dcmread(output / "dicom" / "segmentation.dcm").PatientID)
    assert dates[1] - dates[0] == np.timedelta64(7, "D")
    assert len(names) == 1


def test_an_earlier_report_gives_the_change_and_a_picture(model: Path, reported: Path, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "later", box_chest().image, "20200411")
    output = tmp_path / "out"
    assert main(["report", str(folder), "-m", str(model), "-o", str(output), "--previous", str(reported), *CPU]) == 0
    change = json.loads((output / "report.json").read_text(encoding="utf-8"))["change"]
    assert change["days"] == 14
    assert change["infection_ml"] == 0
    assert "overlap of the registered lungs 1.00" in (output / "report.html").read_text(encoding="utf-8")


def test_an_earlier_series_is_reported_on_first(model: Path, series: Path, reported: Path, tmp_path: Path) -> None:
    folder = write_series(tmp_path / "later", box_chest().image, "20200411", PatientID="somebody else")
    output = tmp_path / "out"
    assert main(["report", str(folder), "-m", str(model), "-o", str(output), "--previous", str(series), *CPU]) == 0
    content = json.loads((output / "report.json").read_text(encoding="utf-8"))
    assert content["change"]["days"] == 14
    assert any("another patient identifier" in note for note in content["change"]["notes"])
    earlier = json.loads((output / "previous" / "report.json").read_text(encoding="utf-8"))
    alone = json.loads((reported / "report.json").read_text(encoding="utf-8"))
    assert earlier["quantities"] == alone["quantities"]
    assert (output / "previous" / "dicom" / "segmentation.dcm").is_file()
    assert "overlap of the registered lungs 1.00" in (output / "report.html").read_text(encoding="utf-8")


def test_names_stand_in_the_page_where_asked_for_alone(
    model: Path, series: Path, reported: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    assert main(["report", str(series), "-m", str(model), "-o", str(output), "--identify", *CPU]) == 0
    for folder, named in ((output, True), (reported, False)):
        for name in ("report.html", "report.json"):
            text = (folder / name).read_text(encoding="utf-8")
            assert all((IDENTIFIERS[key] in text) is named for key in ("PatientName", "PatientID", "PatientBirthDate"))


def test_the_seconds_of_the_network_are_told_apart(reported: Path) -> None:
    seconds = json.loads((reported / "report.json").read_text(encoding="utf-8"))["seconds"]
    assert list(seconds) == ["reading", "network", "labels", "numbers", "pictures and files"]
    assert 0 < seconds["network"]["wall"] <= seconds["labels"]["wall"]


def test_the_series_with_most_axial_slices_is_taken_and_said(model: Path, tmp_path: Path) -> None:
    image = box_chest().image
    write_series(tmp_path / "scan" / "a", image[:, :, 10:20])
    write_series(tmp_path / "scan" / "b", image)
    write_series(tmp_path / "scan" / "scout", image[:, :, :1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    study = pydicom.dcmread(tmp_path / "scan" / "a" / "IM0000").StudyInstanceUID
    for path in (tmp_path / "scan").rglob("IM*"):
        ds = pydicom.dcmread(path)
        ds.StudyInstanceUID = study
        ds.save_as(path)
    assert main(["report", str(tmp_path / "scan"), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert content["scan"]["size"] == list(image.GetSize())
    assert any("scout" in note and "localizer" in note for note in content["scan"]["notes"])
    assert any("not more slices" in note for note in content["scan"]["notes"])


def test_a_batch_goes_on_past_a_damaged_scan_and_resumes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans = tmp_path / "scans"
    saved(scans, box_chest()).rename(scans / "b.nii.gz")
    shutil.copy(scans / "b.nii.gz", scans / "c.nii.gz")
    (scans / "a.nii.gz").write_bytes((scans / "b.nii.gz").read_bytes()[:-200])
    command = ["report", str(scans), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]
    assert main(command) == 1
    assert "refused a.nii.gz" in capsys.readouterr().err
    rows = (tmp_path / "out" / "reports.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["a.nii.gz", "refused"], ["b", "reported"], ["c", "reported"]]
    assert 'href="b/report.html"' in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    before = (tmp_path / "out" / "b" / "report.json").stat().st_mtime_ns
    shutil.rmtree(tmp_path / "out" / "c")
    assert main(command) == 1
    assert (tmp_path / "out" / "b" / "report.json").stat().st_mtime_ns == before
    assert (tmp_path / "out" / "c" / "report.json").is_file()


def test_scans_of_one_name_get_reports_of_their_own_and_a_changed_scan_another(model: Path, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    saved(scans, box_chest()).rename(scans / "a #1.nii.gz")
    sitk.WriteImage(box_chest().image[:, :, :40], str(scans / "a #1.nrrd"))
    command = ["report", str(scans), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]

    def heights() -> dict[str, int]:
        reports = (tmp_path / "out").glob("*/report.json")
        return {path.parent.name: json.loads(path.read_text(encoding="utf-8"))["scan"]["size"][2] for path in reports}

    assert main(command) == 0
    assert heights() == {"a #1.nii.gz": 48, "a #1.nrrd": 40}
    assert 'href="a%20%231.nrrd/report.html"' in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    sitk.WriteImage(box_chest().image[:, :, :44], str(scans / "a #1.nrrd"))
    assert main(command) == 0
    assert heights() == {"a #1.nii.gz": 48, "a #1.nrrd": 44}


def test_packed_scans_and_series_beside_the_folders_of_a_batch_are_scans_too(tmp_path: Path) -> None:
    for number, name in enumerate("ab"):
        dicom_files.write_series(
            tmp_path / name, np.zeros((3, 4, 4)), series=f"1.2.{number}", StudyInstanceUID=f"1.{number}"
        )
    dicom_files.write_series(tmp_path, np.zeros((3, 4, 4)), series="1.2.7", StudyInstanceUID="1.7")
    (tmp_path / "c.zip").write_bytes(b"PK")
    (tmp_path / "notes.txt").write_text("none", encoding="utf-8")
    assert [path.name for path in scans_of(tmp_path)] == ["a", "b", "c.zip", "002.dcm"]


def test_a_scan_without_lungs_says_what_is_not_available(model: Path, tmp_path: Path) -> None:
    chest = box_chest()
    folder = write_series(tmp_path / "abdomen", sitk.Cast(chest.image > -900, sitk.sitkInt16) * 1040 - 1000)
    assert main(["report", str(folder), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert "lungs" in content["quantities"]["missing"]
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("No lungs were found: shares, zones and severity are not available.") == 1
    assert (tmp_path / "out" / "dicom" / "measurements.dcm").is_file()


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_two_dimensional_models_label_volumes_slice_by_slice_in_any_storage_order(tmp_path: Path, ending: str) -> None:
    folder = tiny_model(tmp_path / "m" / "nnUNetTrainer__nnUNetPlans__2d", dims=2, folds=(0, 1), ending=ending)
    found = []
    for order in ("LPS", "ASL"):
        path = tmp_path / f"{order}.nii.gz"
        sitk.WriteImage(sitk.DICOMOrient(box_chest().image, order), str(path))
        assert main(["report", str(path), "-m", str(folder), "-o", str(tmp_path / order), *CPU]) == 0
        found.append(json.loads((tmp_path / order / "report.json").read_text(encoding="utf-8")))
    for key in ("infection_ml", "regions", "lung_hu", "severity", "lesions"):
        assert found[0]["quantities"][key] == found[1]["quantities"][key]
    assert found[0]["quantities"]["infection_ml"] > 0
    assert any("it saw each slice alone" in note for note in found[0]["scan"]["notes"]) is (ending == ".png")
    flags = {flag["key"]: flag for flag in found[0]["flags"]}
    assert 0 < flags["disagreement"]["value"] <= 100


def test_a_pseudonymised_batch_names_no_scan_and_links_to_its_reports(model: Path, tmp_path: Path) -> None:
    scans, key = tmp_path / "scans", tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef", encoding="utf-8")
    saved(scans, box_chest()).rename(scans / "Mustermann_Erika.nii.gz")
    (scans / "Mustermann_Max.nii.gz").write_bytes(b"no image")
    command = ["report", str(scans), "-m", str(model), "-o", str(tmp_path / "out"), "--pseudonymise", str(key), *CPU]
    assert main(command) == 1
    for path in (path for path in (tmp_path / "out").rglob("*") if path.is_file()):
        assert b"Mustermann" not in path.read_bytes(), path.name
        assert "Mustermann" not in str(path.relative_to(tmp_path))
    (report,) = [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()]
    assert f'href="{report}/report.html"' in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_a_pseudonymised_report_is_not_compared_with_a_named_one(
    model: Path, reported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ReportModel, "label")  # it is told before the network works
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef", encoding="utf-8")
    scan = saved(tmp_path, box_chest())
    command = ["report", str(scan), "-m", str(model), "-o", str(tmp_path / "out"), "--previous", str(reported)]
    assert main([*command, "--pseudonymise", str(key), *CPU]) == 2
    assert "compare two of a kind" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_zipped_model_reports_the_same(model: Path, reported: Path, series: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", model.parent, model.name)
    assert main(["report", str(series), "-m", archive, "-o", str(tmp_path / "out"), *CPU]) == 0
    first, second = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (reported, tmp_path / "out")
    )
    assert first["model"] == second["model"]
    assert first["quantities"] == second["quantities"]


def test_a_damaged_last_slice_is_told_although_no_gap_shows(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write_series(tmp_path / "series", box_chest().image)
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:300])
    assert main(["report", str(folder), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 2
    assert last.name in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_name_is_printed(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write_series(tmp_path / "series", box_chest().image, PatientName="SINGLE-NAME")
    assert main(["report", str(folder), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    printed = capfd.readouterr()
    assert "SINGLE-NAME" not in printed.out + printed.err


def test_a_second_report_is_told_and_leaves_the_first_alone(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, output = saved(tmp_path / "scans", box_chest()), tmp_path / "out/chest"
    for asked, folder, status in ((scan, output, 2), (scan.parent, output.parent, 1)):  # alone, and in a batch
        with replacing_folder(output) as first:
            (first / "begun").touch()
            assert main(["report", str(asked), "-m", str(model), "-o", str(folder), *CPU]) == status
            assert f"another process is at work on {output}; wait for it" in capsys.readouterr().err
        assert [path.name for path in output.iterdir()] == ["begun"]
        shutil.rmtree(output)


def test_a_report_that_has_appeared_meanwhile_is_not_replaced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, output, label = saved(tmp_path / "scans", box_chest()), tmp_path / "out", ReportModel.label

    def appears(*arguments: Any) -> Any:
        output.mkdir()
        (output / "report.json").touch()
        return label(*arguments)

    monkeypatch.setattr(ReportModel, "label", appears)
    assert main(["report", str(scan), "-m", str(model), "-o", str(output), *CPU]) == 2
    assert f"{output} exists already" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["report.json"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small disk is mounted, which takes root")
def test_a_full_disk_is_told_and_nothing_is_left(
    model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk, scans = tmp_path / "disk", tmp_path / "scans"
    disk.mkdir()
    saved(scans, box_chest())
    shutil.copy(scans / "chest.nii.gz", scans / "second.nii.gz")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        for scan in (scans / "chest.nii.gz", scans):  # alone, and as a batch, which ends
            assert main(["report", str(scan), "-m", str(model), "-o", str(disk / "out"), *CPU]) == 2
            told = capfd.readouterr().err
            assert "is full; nothing is lost: make room" in told
            assert "refused" not in told
            assert not [path for path in disk.rglob("*") if path.is_file()]
            shutil.rmtree(disk / "out", ignore_errors=True)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
