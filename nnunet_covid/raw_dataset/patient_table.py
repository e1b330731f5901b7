"""A table that says which patient each source file shows."""

from __future__ import annotations

import csv
from pathlib import Path

from nnunet_covid.errors import UserError


def read_patients(path: Path) -> dict[str, str]:
    """File name to patient, from a CSV file with the columns ``file`` and ``case`` (or ``patient``).

    Raises:
        UserError: If the file cannot be read, lacks the columns or an entry, or gives a file two patients.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise UserError(f"{path} cannot be read as a table ({type(e).__name__}); save it as CSV in UTF-8") from e
    columns = set(rows[0]) if rows else set()
    patient = next((name for name in ("case", "patient") if name in columns), None)
    if "file" not in columns or patient is None:
        raise UserError(f"{path} needs a first line with the columns file and case; found {sorted(map(str, columns))}")
    patients: dict[str, str] = {}
    for row in rows:
        file, value = (row["file"] or "").strip(), (row[patient] or "").strip()
        if not (file and value):
            raise UserError(f"{path} has a line without a file or without its {patient}: {file}{value}; fill it in")
        if patients.setdefault(file, value) != value:
            raise UserError(f"{path} says {patients[file]} as well as {value} for {file}; keep one line")
    return patients
