"""Dates under a key: moved, of the same form, and none where there is none."""

from __future__ import annotations

import re

import pytest

from nnunet_covid.report.pseudonyms import Pseudonymiser

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
