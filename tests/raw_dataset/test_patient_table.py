"""Tables of patients: what is read, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import read_patients
from nnunet_covid.raw_dataset.patients import recorded_patients


def test_both_names_of_the_column_and_a_line_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file,patient\na.png, p1\nb,p2\nb,p2\n")
    assert read_patients(tmp_path / "t.csv") == {"a.png": "p1", "b": "p2"}


@pytest.mark.parametrize(
    "text",
    [
        "\ufefffile;case\r\na.png;p1\r\nb;p2\r\n",
        "File\tPatient\na.png\tp1\n\nb\tp2\n",
        "Case,File\np1,a.png\n,\np2,b,\n",
    ],
    ids=["semicolons, a mark and Windows' line ends", "tabs and an empty line", "capitals and a line of commas"],
)
def test_tables_as_spreadsheets_save_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert read_patients(tmp_path / "t.csv") == {"a.png": "p1", "b": "p2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,case\na.png,\n", "without a file or without its case: a.png; fill it in"),
        ("file,case\na.png\n", "without a file or without its case: a.png; fill it in"),
        ("file,case\n,p1\n", "without a file or without its case: p1; fill it in"),
        ("file,case\na,p1\na,p2\n", "says p1 as well as p2 for a; keep one line"),
        ("name,case\na,p1\n", "needs a first line with the columns file and case"),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_patients(tmp_path / "t.csv")


@pytest.mark.parametrize(("command", "known"), [("folder", {"b_000": "b"}), ("mosmed", {"a_0": "a_0", "b_000": "b"})])
def test_own_images_that_stand_as_their_own_patients_are_not_known(
    tmp_path: Path, command: str, known: dict[str, str]
) -> None:
    records = [{"patient": "a_0", "outputs": {"a_0": {}}}, {"patient": "b", "outputs": {"b_000": {}}}]
    (tmp_path / "conversion.json").write_text(json.dumps({"data_set": command, "cases": records}))
    assert recorded_patients(tmp_path) == known
