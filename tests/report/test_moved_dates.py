"""The days that pseudonymised reports tell: no date but the moved one, no days between two identifiers."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pydicom
import pytest
from box_chest import box_chest
from reported import CPU, write_series

from nnunet_covid.cli import main


def report_on(series: Path, model: Path, output: Path, *options: str) -> dict[str, Any]:
    """A pseudonymised report's document."""
    key = output.with_suffix(".key")
    key.write_text("0123456789abcdef0123456789abcdef", encoding="utf-8")
    command = ["report", str(series), "-m", str(model), "-o", str(output), "--pseudonymise", str(key), *options, *CPU]
    assert main(command) == 0
    return json.loads((output / "report.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(("day", "moved"), [("20200328", True), ("", False)])
def test_no_date_but_the_moved_one_stands_anywhere(model: Path, tmp_path: Path, day: str, moved: bool) -> None:
    output = tmp_path / "out"
    document = report_on(write_series(tmp_path / "series", box_chest().image, day), model, output)
    assert bool(document["scan"]["study_date"]) is moved
    expected = document["scan"]["study_date"].replace("-", "") or "19000101"
    now = datetime.now(timezone.utc)
    today = [now.astimezone(zone).strftime(form) for zone in (timezone.utc, None) for form in ("%Y%m%d", "%Y-%m-%d")]
    for path in (path for path in output.rglob("*") if path.is_file()):
        assert not [text for text in today if text.encode() in path.read_bytes()], path.name
    for path in (output / "dicom").iterdir():
        elements = [one for one in pydicom.dcmread(path).iterall() if one.VR in ("DA", "TM", "DT") and one.value]
        assert {one.value[:8] for one in elements if one.VR != "TM"} == {expected}
        assert {float(one.value[-6:]) for one in elements if one.VR != "DA"} == {0}
        if shutil.which("dciodvfy"):
            done = subprocess.run(
                ["dciodvfy", path], capture_output=True, encoding="utf-8", errors="replace", check=False
            )
            assert "Error" not in done.stdout + done.stderr, f"{path.name}: {done.stdout}{done.stderr}"


def test_two_identifiers_have_no_days_between_them(model: Path, tmp_path: Path) -> None:
    for name, day, patient in (("first", "20200328", "A1"), ("same", "20200404", "A1"), ("other", "20200404", "A2")):
        write_series(tmp_path / name, box_chest().image, day, PatientID=patient)
    report_on(tmp_path / "first", model, tmp_path / "out")
    for name, days in (("same", 7), ("other", None)):
        previous = ["--previous", str(tmp_path / "out")]
        assert report_on(tmp_path / name, model, tmp_path / f"{name}_out", *previous)["change"]["days"] == days
