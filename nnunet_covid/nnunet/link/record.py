"""The record of a link: one JSON file per plans beside the pre-processed COVID data."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_text


@dataclass(frozen=True)
class LinkedCases:
    """Pre-processed cases of one source.

    Attributes:
        name: The data set's name, or the folder of the unlabelled images.
        folder: Where they are, relative to ``nnUNet_preprocessed``.
        cases: Their names.
        cases_with_lesion: How many hold a lesion; 0 for unlabelled images.
        lesions: Label values that counted as lesion; empty for unlabelled images.
    """

    name: str
    folder: str
    cases: tuple[str, ...]
    cases_with_lesion: int = 0
    lesions: tuple[int, ...] = ()


@dataclass(frozen=True)
class Link:
    """What is linked to the data of one configuration.

    Attributes:
        configuration: The configuration that it was made for; others that share its data share the link.
        dimensions: 2 or 3.
        digest: How the cases were pre-processed (:func:`preprocessing_digest`).
        others: Data sets of other diseases.
        unlabelled: Unlabelled COVID images.
    """

    configuration: str
    dimensions: int
    digest: str
    others: tuple[LinkedCases, ...] = ()
    unlabelled: LinkedCases | None = None


def record_file(preprocessed_data_set: Path, plans_name: str) -> Path:
    """Where the links of these plans are recorded."""
    return preprocessed_data_set / f"{plans_name}_link.json"


def read_links(file: Path) -> dict[str, Link]:
    """Data identifier to link; empty without a record.

    Raises:
        UserError: If the file is no such record.
    """
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["links"]
        return {identifier: _link(entry) for identifier, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{file} is no record of links; remove it and link again") from e


def write_links(file: Path, links: dict[str, Link]) -> None:
    """Write the record; without any link the file goes."""
    if not links:
        file.unlink(missing_ok=True)
        return
    entries = {identifier: asdict(link) for identifier, link in links.items()}
    write_text(file, json.dumps({"version": 1, "links": entries}, indent=2) + "\n")


def _link(entry: dict[str, Any]) -> Link:
    others = tuple(_cases(other) for other in entry.pop("others"))
    unlabelled = entry.pop("unlabelled")
    return Link(**entry, others=others, unlabelled=_cases(unlabelled) if unlabelled else None)


def _cases(entry: dict[str, Any]) -> LinkedCases:
    return LinkedCases(
        entry["name"], entry["folder"], tuple(entry["cases"]), entry["cases_with_lesion"], tuple(entry["lesions"])
    )
