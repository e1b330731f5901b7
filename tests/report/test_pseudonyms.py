"""Dates under a key: moved, of the same form, and none where there is none; who counts as one patient."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from box_chest import box_chest
from reported import write_series

from nnunet_covid.report.assemble import source_of
from nnunet_covid.report.pseudonyms import Pseudonymiser
from nnunet_covid.report.scans import read_scan

PSEUDONYMS = Pseudonymiser(b"0123456789abcdef0123456789abcdef")


@pytest.mark.parametrize(("day", "form"), [("20200328", r"\d{8}"), ("2020-03-28", r"20\d\d-\d\d-\d\d"),
                                           ("10000101", r"09\d{6}")])  # fmt: skip
def test_a_moved_date_has_the_form_of_the_date(day: str, form: str) -> None:
    moved = PSEUDONYMS.moved(day, "patient")
    assert re.fullmatch(form, moved)
    assert moved < day


@pytest.mark.parametrize("day", ["00010101", "0001-01-01", "00000000", "", "20201328", "no date"])
def test_what_cannot_be_moved_is_left_out(day: str) -> None:
    assert PSEUDONYMS.moved(day, "patient") == ""


@pytest.mark.parametrize(
    ("births", "are_one"),
    [(("19500117", "19500117"), True), (("1950.01.17", "19500117"), True), (("19500117", "19610203"), False),
     (("", ""), False), (("00000000", "00000000"), False)],
)  # fmt: skip
def test_patients_without_identifier_are_one_by_name_and_birth_date_together(
    tmp_path: Path, births: tuple[str, str], are_one: bool
) -> None:
    """A name alone may be a placeholder, which many patients share."""
    pytest.importorskip("highdicom")
    found: list[Any] = []
    for number, birth in enumerate(births):
        person = {"PatientID": "", "PatientName": "Anonymous", "PatientBirthDate": birth}
        scan = read_scan(write_series(tmp_path / str(number), box_chest().image[:, :, :3], **person))
        source = source_of(scan, PSEUDONYMS)
        assert source is not None
        facts = PSEUDONYMS.facts(scan.facts, source.headers[0])
        assert facts.name == source.headers[0].PatientID
        assert facts.study_date.replace("-", "") == source.headers[0].StudyDate
        found.append((facts.name, facts.study_date))
    assert (found[0] == found[1]) is are_one
