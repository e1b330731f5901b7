"""Which cases are of one patient: as our converters record it, else as far as the names tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from nnunet_covid.errors import UserError

OWN_IMAGES = "folder"
"""The command that converts a user's own images: where nothing says whose a case is, it stands as its own patient."""


def recorded_patients(folder: Path) -> dict[str, str]:
    """Case to patient from the ``conversion.json`` that our converters write into a raw data set.

    Left out are own images that stand as their own patients.

    Raises:
        UserError: If it is damaged.
    """
    path = folder / "conversion.json"
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        own = content.get("data_set") == OWN_IMAGES
        patients = {name: record["patient"] for record in content["cases"] for name in record["outputs"]}
        return {name: patient for name, patient in patients.items() if not (own and patient == name)}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is damaged; convert the data set again, or delete the file") from e


def guessed_patients(names: Iterable[str]) -> dict[str, str]:
    """``a_b_017`` belongs to ``a_b`` where more than one but not all cases do; the others are left out."""
    stems = {name: re.sub(r"[_-](slice|s)?\d+$", "", name) for name in names}
    counts = Counter(stems.values())
    return {name: stem for name, stem in stems.items() if 1 < counts[stem] < len(stems)}
