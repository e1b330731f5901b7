"""Every scan that cannot be reported on, in one batch: the row of ``reports.csv`` has what is said of it alone."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest
from bad_inputs.reported_scans import MODEL, SCANS, model
from box_chest import box_chest
from reported import CPU, saved

from nnunet_covid.cli import main


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
