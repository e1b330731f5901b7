"""What a batch of reports may delete, and when it makes a report anew."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import dicom_files
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from box_chest import CLASSES, box_chest
from reported import CPU, IDENTIFIERS, write_series

from nnunet_covid.cli import main
from nnunet_covid.lung_mask import pretrained
from nnunet_covid.report import batch, quantify
from nnunet_covid.report.confidence import Profile, flags
from nnunet_covid.report.model import Observed
from nnunet_covid.report.scans import content_of

KEY = "0123456789abcdef0123456789abcdef"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def two_patients(folder: Path) -> Path:
    for name in ("anna", "bert"):
        write_series(folder / name, box_chest().image[:, :, 10:20])
    return folder


@pytest.mark.parametrize("output", ["scans", "scans/anna", "scans/out", "link"])
def test_reports_do_not_go_into_the_folder_of_their_scans(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    scans = two_patients(tmp_path / "scans")
    (tmp_path / "link").symlink_to(scans)
    before = contents(scans)
    assert main(["report", str(scans), "-m", str(model), "-o", str(tmp_path / output), *CPU]) == 2
    assert "where reports count as scans" in capsys.readouterr().err
    assert contents(scans) == before


def test_a_folder_that_is_no_report_is_never_replaced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scans, output = two_patients(tmp_path / "scans"), tmp_path / "out"
    write_series(output / "anna", box_chest().image[:, :, 10:20])
    (output / "anna" / "report.json").write_text('{"read by": "me"}', encoding="utf-8")
    command = ["report", str(scans), "-m", str(model), "-o", str(output), *CPU]
    before = contents(output / "anna")
    assert main(command) == 1
    assert "anna is there already and is no report" in capsys.readouterr().err
    assert contents(output / "anna") == before
    assert (output / "bert" / "report.json").is_file()

    (output / "bert" / "remarks.txt").write_text("seen", encoding="utf-8")
    write_series(tmp_path / "other", box_chest().image[:, :, 10:30])
    shutil.rmtree(scans / "bert")
    os.replace(tmp_path / "other", scans / "bert")
    before = contents(output / "bert")
    assert main(command) == 1
    assert "more than its report, which is out of date: remarks.txt" in capsys.readouterr().err
    assert contents(output / "bert") == before


def test_a_report_is_made_anew_where_other_things_are_asked_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, output, own = two_patients(tmp_path / "scans"), tmp_path / "out", tmp_path / "m" / model.name
    shutil.copytree(model, own)
    raw = tmp_path / "raw" / "Dataset999_Test"
    for folder in ("imagesTr", "labelsTr"):
        (raw / folder).mkdir(parents=True)
    for index in range(5):
        noise = sitk.AdditiveGaussianNoise(box_chest().image * 0, 20.0, 0, index + 1)
        image = box_chest().image + sitk.Cast(noise, sitk.sitkInt16)
        sitk.WriteImage(image, str(raw / "imagesTr" / f"c{index}_0000.nii.gz"))
        sitk.WriteImage(box_chest().labels, str(raw / "labelsTr" / f"c{index}.nii.gz"))
    shutil.copy(own / "dataset.json", raw)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    times = [0]

    def made(*options: str) -> str:
        """One report; a further call of the same command leaves it."""
        command = ["report", str(scans), "-m", str(own), "-o", str(output), "-device", "cpu", *options]
        assert main(command) == 0
        path = output / "anna" / "report.json"
        times.append(path.stat().st_mtime_ns)
        assert times[-1] != times[-2], "the earlier one was kept"
        assert main(command) == 0
        assert path.stat().st_mtime_ns == times[-1]
        return path.read_text(encoding="utf-8") + (output / "anna" / "report.html").read_text(encoding="utf-8")

    assert IDENTIFIERS["PatientID"] in made("--disable_tta", "--identify")
    assert IDENTIFIERS["PatientID"] not in made("--disable_tta")
    mirrored = made()
    assert main(["profile", str(own), "-device", "cpu"]) == 0
    assert "The model has no profile" in mirrored
    assert "The model has no profile" not in made()


def test_a_report_is_made_anew_where_a_network_finds_the_lungs_now(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans, report = two_patients(tmp_path / "scans"), tmp_path / "out/anna/report.json"
    command = ["report", str(scans), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]

    def lungs_by() -> str:
        assert main(command) == 0
        return json.loads(report.read_text(encoding="utf-8"))["quantities"]["lungs_by"]

    monkeypatch.setattr(pretrained, "is_ready", lambda *_: False)
    assert lungs_by() == "threshold (Hounsfield units)"
    monkeypatch.setattr(pretrained, "is_ready", lambda *_: True)
    monkeypatch.setattr(pretrained, "lungs_by_network", lambda image, **_: (image > -900) & (image < -800))
    assert lungs_by() == "lungmask R231"
    before = report.stat().st_mtime_ns
    assert lungs_by() == "lungmask R231"
    assert report.stat().st_mtime_ns == before


def all_older(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\7")


@pytest.mark.parametrize(
    ("scan", "change", "file"),
    [
        ("series", replaced, "series/001.dcm"),
        ("series", Path.unlink, "series/001.dcm"),
        ("series/002.dcm", replaced, "series/001.dcm"),
        ("scan.nii", replaced, "scan.nii"),
        ("scan.mhd", replaced, "scan.raw"),
        ("scan.hdr", replaced, "scan.img"),
    ],
)
def test_a_scan_of_other_content_is_another_whatever_its_time(
    tmp_path: Path, scan: str, change: Callable[[Path], None], file: str
) -> None:
    """``rsync -a`` and ``cp -p`` bring older times along."""
    dicom_files.write_series(tmp_path / "series", np.zeros((3, 4, 4)))
    dicom_files.write_series(tmp_path / "series", np.zeros((3, 4, 4)), "other{}.dcm", series="1.2.8")
    image = sitk.GetImageFromArray(np.zeros((3, 4, 4), np.int16))
    for name in ("scan.nii", "scan.mhd", "scan.hdr"):
        sitk.WriteImage(image, str(tmp_path / name))
    before = content_of(tmp_path / scan)
    all_older(tmp_path)
    assert content_of(tmp_path / scan) == before
    change(tmp_path / file)
    all_older(tmp_path)
    assert content_of(tmp_path / scan) != before


def test_reports_written_before_are_readable_and_made_anew(reported: Path, tmp_path: Path) -> None:
    document = json.loads((reported / "report.json").read_text(encoding="utf-8"))
    assert document.pop("made_of") == ""
    (tmp_path / "report.json").write_text(json.dumps(document), encoding="utf-8")
    assert batch.row_of(batch.read_document(tmp_path), "a").status == "reported"
    assert not batch.is_finished(tmp_path, "abc")


def test_whatever_a_scan_does_to_the_program_the_batch_goes_on(tmp_path: Path) -> None:
    """A new kind of damage in one of thousands costs that one."""
    told: list[str] = []

    def one(source: Path, folder: Path) -> None:
        raise KeyError("(0020,000d)")

    rows = batch.report_batch([tmp_path / "a", tmp_path / "b"], tmp_path, one, told.append)
    assert [(row.scan, row.status) for row in rows] == [("a", "refused"), ("b", "refused")]
    assert "it cannot be reported on ('(0020,000d)')" in told[0]


def test_a_scan_without_lungs_stands_before_the_least_certain_of_the_others(reported: Path, tmp_path: Path) -> None:
    document = batch.read_document(reported)
    chest = box_chest()
    unsure = Observed((0.0,) * 5, disagreement=1.0)
    usual = Profile("abc", 9, (5000.0,) * 5, (1.0,) * 5, 0.1, 0.1, (), (), 0.0, "LPS")
    rows = [batch.Row("0 damaged", "refused")]
    for name, lungs, profile in (("1 far away", chest.lungs, usual), ("2 no lungs", chest.lungs * 0, None)):
        raised = flags(quantify(chest.image, chest.labels, CLASSES, lungs=lungs), unsure, profile)
        rows.append(batch.row_of({**document, "flags": [asdict(flag) for flag in raised]}, name))
    batch.write_table(tmp_path, rows)
    table = (tmp_path / "reports.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line[0] for line in table] == ["0", "2", "1"]
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert index.index("2 no lungs") < index.index("1 far away")
    assert "no lungs, disagreement" in index


@pytest.mark.parametrize("options", [[], ["--pseudonymise", "key"]])
def test_a_name_that_is_no_utf_8_ends_no_batch(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    latin = os.fsdecode(b"M\xfcller")
    scans = tmp_path / "scans"
    sitk.WriteImage(box_chest().image, str(tmp_path / "volume.nii"))
    try:
        write_series(scans / latin, box_chest().image[:, :, 10:20])
        shutil.copy(tmp_path / "volume.nii", scans / f"{latin}.nii")
        shutil.copy(tmp_path / "volume.nii", scans / "plain.nii")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert main(["report", "scans", "-m", str(model), "-o", "out", *options, *CPU]) == 1
    table = (tmp_path / "out" / "reports.csv").read_text(encoding="utf-8")
    assert [table.count(f",{status},") for status in ("refused", "reported")] == [2, 1]
    told = capsys.readouterr().err
    for name in (r"M\udcfcller", r"M\udcfcller.nii"):
        assert f"refused {name}: " in told
        assert "its name, or its folder's, is not in UTF-8; rename it" in told
    assert ("M\\udcfcller.nii" in table) == (not options)


def test_a_batch_of_series_without_preamble(model: Path, tmp_path: Path) -> None:
    """As some archives hand slices out: the data set alone."""
    scans = two_patients(tmp_path / "scans")
    for path in scans.glob("*/IM*"):
        dicom_files.write_without_preamble(pydicom.dcmread(path), path)
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    for output, options in (("plain", []), ("hidden", ["--pseudonymise", str(tmp_path / "key")])):
        command = ["report", str(scans), "-m", str(model), "-o", str(tmp_path / output), *options, *CPU]
        assert main(command) == 0
        documents = [json.loads(path.read_text()) for path in (tmp_path / output).glob("*/report.json")]
        assert len(documents) == 2
        assert len(list((tmp_path / output).glob("*/dicom/segmentation.dcm"))) == 2
    slice_alone = min((scans / "anna").iterdir())
    assert main(["report", str(slice_alone), "-m", str(model), "-o", str(tmp_path / "one"), *CPU]) == 0


def test_reports_are_named_without_the_ending_in_whatever_case(tmp_path: Path) -> None:
    volumes = [tmp_path / name for name in ("a.NII.GZ", "b.nii.gz", "c.Mha", "d.nii", "d.NRRD")]
    for path in volumes:
        path.touch()
    assert list(batch.names_of(volumes).values()) == ["a", "b", "c", "d.nii", "d.NRRD"]
