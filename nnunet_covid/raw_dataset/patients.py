"""Which cases are of one patient: as our converters record it, by DICOM headers, else as far as the names tell."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.dicom_folder import dicom_folder

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
        images = Counter(patients.values())
        alone = {name for name, patient in patients.items() if own and patient == name and images[patient] == 1}
        return {name: patient for name, patient in patients.items() if name not in alone}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{path} is damaged; convert the data set again, or delete the file") from e


def patients_in_headers(images: Mapping[str, Path]) -> dict[str, str]:
    """Case to the first case of its patient, by PatientID; left out are images other than DICOM and those without one.

    The identifier itself goes no further than this.

    Args:
        images: Case to its image, a series by its folder.
    """
    cases: dict[str, list[str]] = defaultdict(list)
    for case, image in images.items():
        series = dicom_folder(image).series if image.is_dir() else ()
        if series and (patient := series[0].files[0].patient):
            cases[patient].append(case)
    return {case: of_one[0] for of_one in cases.values() for case in of_one}


def guessed_patients(names: Iterable[str]) -> dict[str, str]:
    """``a_b_017`` belongs to ``a_b`` where more than one but not all cases do; the others are left out."""
    stems = {name: re.sub(r"[_-](slice|s)?\d+$", "", name) for name in names}
    counts = Counter(stems.values())
    return {name: stem for name, stem in stems.items() if 1 < counts[stem] < len(stems)}
