"""Tables as CSV files: written as a whole, and read as spreadsheets write them too."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_text


def write_csv(path: Path, head: Iterable[str], rows: Iterable[Iterable[object]], *, durable: bool = False) -> None:
    """Write a table, its head first, as :func:`write_text` does; ``None`` is an empty cell."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    write_text(path, text.getvalue(), durable=durable)


def read_csv(
    path: Path, delimiters: str = ",", remedy: str = "save it as CSV in UTF-8"
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table, of a spreadsheet's too; lines of nothing are dropped, a missing value is ``None``.

    Of several ``delimiters`` the one counts that the first line has most of.

    Raises:
        UserError: If it cannot be read, is no text in UTF-8, or a line is longer than the first.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            stream.seek(0)
            table = csv.DictReader(stream, delimiter=max(delimiters, key=first.count))
            rows = [row for row in table if any(row.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        why = getattr(e, "strerror", type(e).__name__)
        raise UserError(f"{path} cannot be read as a table ({why}); {remedy}") from e
    if longer := next((row for row in rows if any(row.pop(None, ()))), None):
        raise UserError(f"{path} has more values than columns in the line of {next(iter(longer.values()))}; correct it")
    return list(table.fieldnames or ()), rows
