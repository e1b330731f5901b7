"""Which patient each case of a user's own folder shows: from a table of files, or from the case names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.pairing import padded
from nnunet_covid.raw_dataset.problems import some_of


def patients_of(names: Mapping[str, Sequence[str]], table: Mapping[str, str], pattern: str | None) -> dict[str, str]:
    """Image to patient; empty where neither a table nor a pattern is given.

    Args:
        names: Image to the names that the table may give it, the file's own first.
        table: Name to patient.
        pattern: Regular expression on the case names, for the images that the table lacks.

    Raises:
        UserError: If a line of the table names no image, or an image is left without a patient.
    """
    found = _from_table(table, names)
    missing = [image for image in names if image not in found]
    if pattern is not None:
        return found | _from_case_names(pattern, missing)
    if table and missing:
        files = some_of(names[image][0] for image in missing)
        raise UserError(f"the table of --patients lacks the images {files}; add a line for each")
    return found


def _from_table(table: Mapping[str, str], names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    image_of = {name: image for image, accepted in names.items() for name in accepted}
    found: dict[str, str] = {}
    if unknown := set(table) - set(image_of):
        files = some_of(accepted[0] for accepted in names.values())
        message = f"the table of --patients names no images: {some_of(unknown)}; correct these lines, known are {files}"
        raise UserError(message)
    for name, patient in table.items():
        image = image_of[name]
        if found.setdefault(image, patient) != patient:
            raise UserError(f"the table of --patients says {found[image]} and {patient} for {image}; keep one line")
    return found


def _from_case_names(pattern: str, images: Iterable[str]) -> dict[str, str]:
    found = {image: _patient_in(padded(image), pattern) for image in images}
    if missing := [padded(image) for image, patient in found.items() if not patient]:
        raise UserError(f"--patient-pattern {pattern!r} finds no patient in {some_of(missing)}; it must in every case")
    return found


def _patient_in(case: str, pattern: str) -> str:
    """The pattern's first group, or all that it matches."""
    match = re.search(pattern, case)
    if match is None:
        return ""
    return (match.group(1) if match.re.groups else match.group()) or ""
