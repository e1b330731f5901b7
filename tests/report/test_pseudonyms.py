"""Under a key: dates moved, in their form, and none where there is none; who is one patient; names on disk."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from box_chest import box_chest
from reported import IDENTIFIERS, write_series

from nnunet_covid.files import digest_of
from nnunet_covid.report.assemble import source_of
from nnunet_covid.report.inbox import Inbox
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


def test_an_identifier_names_a_patient_together_with_its_issuer(tmp_path: Path) -> None:
    pytest.importorskip("highdicom")
    found = []
    for number, issuer in enumerate(["North", "South", "North", ""]):
        changes = {"IssuerOfPatientID": issuer} if issuer else {}
        scan = read_scan(write_series(tmp_path / str(number), box_chest().image[:, :, :3], **changes))
        source = source_of(scan, PSEUDONYMS)
        assert source is not None
        found.append((source.headers[0].PatientID, source.headers[0].StudyDate))
    assert found[0] == found[2]
    assert len({name for name, _ in found}) == len({day for _, day in found}) == 3
    assert found[3][0] == PSEUDONYMS.name(IDENTIFIERS["PatientID"])


def inbox_with(folder: Path, pseudonyms: Pseudonymiser | None) -> Inbox:
    digest = pseudonyms.digest if pseudonyms else digest_of
    return Inbox(folder, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0, digest=digest)


def receive(inbox: Inbox, series: str, *instances: str) -> None:
    """Slices of a series whose sender has ended in order, and the quiet time after them."""
    for instance in instances:
        if place := inbox.store(series, instance, b"slice"):
            inbox.closed(place)
    inbox.complete_quiet_ones()


def words_of(folder: Path) -> str:
    """Every name and text below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return " ".join([*map(str, folder.rglob("*")), *(path.read_text(encoding="utf-8") for path in files)])


def test_a_service_with_a_key_calls_nothing_by_a_digest_that_others_can_make(tmp_path: Path) -> None:
    receive(inbox_with(tmp_path, None), "1.2", "1.2.1")
    assert digest_of("1.2", 16) in words_of(tmp_path)
    assert digest_of("1.2.1", 24) in words_of(tmp_path)
    for folder in (tmp_path / "once", tmp_path / "again"):
        receive(inbox_with(folder, PSEUDONYMS), "1.2", "1.2.1")
        assert digest_of("1.2", 8) not in words_of(folder)
        assert digest_of("1.2.1", 8) not in words_of(folder)
    receive(inbox_with(tmp_path / "other", Pseudonymiser(b"another key of 16 bytes")), "1.2", "1.2.1")
    names = [path.name for path in tmp_path.glob("*/queue/*")]
    assert len(names) == 3
    assert len(set(names)) == 2, "one for each key"


@pytest.mark.parametrize("before", [None, PSEUDONYMS], ids=["without a key", "with the same key"])
def test_a_service_that_starts_with_a_key_knows_the_series_in_its_folders(
    tmp_path: Path, before: Pseudonymiser | None
) -> None:
    inbox = inbox_with(tmp_path, before)
    for series in ("1.1", "1.2", "1.3"):
        receive(inbox, series, f"{series}.1")
    first, second, _ = inbox.of("queue")
    inbox.finish(first)
    inbox.refuse(second, "a slice is missing")
    inbox = inbox_with(tmp_path, PSEUDONYMS)
    for series in ("1.1", "1.2", "1.3"):
        receive(inbox, series, f"{series}.1", f"{series}.2")
    assert [len(inbox.of(state)) for state in ("incoming", "queue", "done")] == [0, 2, 1]
    (late,) = inbox.of("refused")
    assert late.folder.name == f"{first.folder.name}.late"
    assert all(len(list(series.slices.iterdir())) == 2 for series in inbox.of("queue"))
