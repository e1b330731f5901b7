"""Every scan that cannot be reported on, in one batch: the row of ``reports.csv`` has what is said of it alone."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import odd_volumes
import pytest
import SimpleITK as sitk
from bad_inputs.reported_scans import MODEL, SCANS, VOLUME, model
from box_chest import box_chest
from reported import CPU, saved

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.report.scans import read_scan


def test_each_is_listed_with_its_reason_and_the_good_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model(tmp_path)
    (tmp_path / "batch").mkdir()
    said = {}
    for entry in SCANS:
        work = tmp_path / "work" / entry.name
        work.mkdir(parents=True)
        entry.make(work)
        (scan,) = work.glob("scan*")
        name = scan.name.replace("scan", entry.name)
        os.replace(scan, tmp_path / "batch" / name)
        said[name] = [part.replace("scan", name, 1) if part.startswith("scan") else part for part in entry.says]
    saved(tmp_path / "batch", box_chest()).rename(tmp_path / "batch" / "good.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert main(["report", "batch", "-m", MODEL, "-o", "out", *CPU]) == 1
    with (tmp_path / "out" / "reports.csv").open(encoding="utf-8", newline="") as stream:
        rows = {row["scan"]: row for row in csv.DictReader(stream)}
    assert set(rows) == {*said, "good"}
    assert rows["good"]["status"] == "reported"
    told = capfd.readouterr().err
    for name, parts in said.items():
        assert rows[name]["status"] == "refused"
        position = 0
        for part in parts:
            position = rows[name]["reason"].find(part.removesuffix(".nii.gz"), position)
            assert position >= 0, f"{name}: {part!r} is not in {rows[name]['reason']!r}"
        assert f"refused {name}: {rows[name]['reason']}" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good", "index.html", "reports.csv"]


NO_DIRECTIONS = {"space": None, "space_directions": None, "space_origin": None, "spacings": "6 6 6"}


@pytest.mark.parametrize(
    ("name", "lines", "lacking"),
    [
        ("a.mha", {"TransformMatrix": None}, "no TransformMatrix"),
        ("a.nrrd", NO_DIRECTIONS, "no space directions"),
        ("a.nrrd", {"space": "scanner-xyz"}, "its space is no patient's"),
    ],
)
def test_a_volume_that_leaves_left_and_right_open_is_refused(
    tmp_path: Path, name: str, lines: dict[str, str | None], lacking: str
) -> None:
    write = odd_volumes.meta_image if name.endswith(".mha") else odd_volumes.nrrd
    write(tmp_path / name, VOLUME, **lines)
    with pytest.raises(UserError, match=rf"does not say where left and right are \({lacking}\); write its orientation"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("space", ["left-posterior-superior", "RAS", "right-anterior-superior"])
def test_a_volume_that_names_its_space_is_read(tmp_path: Path, space: str) -> None:
    odd_volumes.nrrd(tmp_path / "a.nrrd", VOLUME, space=space)
    assert read_scan(tmp_path / "a.nrrd").facts.spacing == odd_volumes.SPACING


def test_a_file_of_another_format_is_refused_for_what_it_is(tmp_path: Path) -> None:
    sitk.WriteImage(box_chest().image, str(tmp_path / "chest.vtk"))
    with pytest.raises(UserError, match="is no NIfTI, NRRD or MetaImage volume"):
        read_scan(tmp_path / "chest.vtk")
