"""The document of one report, ``report.json``: what was measured, in which scan, by which model; written and read.

The schema's number goes up whenever a key changes its meaning; older documents that can no longer be compared are
refused by name.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_json
from nnunet_covid.report.quantify import Quantities

SCHEMA = "nnunet_covid.report"
SCHEMA_VERSION = 1
FILE = "report.json"
NOTICE = "Not a medical device: for research only, to be read by a person who knows the images."


@dataclass(frozen=True)
class ScanFacts:
    """What a report says of its scan.

    Attributes:
        name: Of the folder or file, or a pseudonym.
        size: Voxels along the axes of the file.
        spacing: Millimetres, in the same order.
        study_date: ISO 8601; empty where the file does not say.
        identifiers: DICOM's, by keyword, only those that were asked for.
        notes: What was chosen or passed over while reading, one sentence each.
        pseudonymous: Whether name and date stand for others.
    """

    name: str
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    study_date: str = ""
    identifiers: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    pseudonymous: bool = False


@dataclass(frozen=True)
class ModelFacts:
    """Which model labelled the scan.

    Attributes:
        values: In the label map, of each class that counts; empty in earlier reports.
    """

    name: str
    dataset: str
    folds: tuple[str, ...]
    classes: tuple[str, ...]
    digest: str
    values: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Flag:
    """A reason to trust a report less.

    Attributes:
        key: Stable name.
        value: What was found, in ``unit``.
        threshold: From which on it is raised.
        raised: Whether it is.
        sentence: What it means, and where the threshold comes from.
    """

    key: str
    value: float
    unit: str
    threshold: float
    raised: bool
    sentence: str


@dataclass(frozen=True)
class Document:
    """Everything that stands in ``report.json``, ``report.html`` and the DICOM objects.

    ``created`` is empty with pseudonyms: today tells by how much the study date was moved where both are close.
    ``seconds`` is of :class:`nnunet_covid.report.clock.Clock`; ``made_of`` of ``assemble``, empty in earlier reports.
    """

    scan: ScanFacts
    model: ModelFacts
    quantities: Mapping[str, Any]
    flags: tuple[Flag, ...] = ()
    warnings: tuple[str, ...] = ()
    change: Mapping[str, Any] | None = None
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    software: Mapping[str, str] = field(default_factory=lambda: software_versions())
    seconds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    made_of: str = ""

    @classmethod
    def of(cls, scan: ScanFacts, model: ModelFacts, quantities: Quantities, **more: Any) -> Document:
        """Of a scan just measured."""
        return cls(scan, model, quantities.as_json(), **more)

    def as_json(self) -> dict[str, Any]:
        """Nested dictionaries, lists, texts and numbers, the schema first."""
        content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "notice": NOTICE, **asdict(self)}
        return json.loads(json.dumps(content))

    def write(self, folder: Path) -> None:
        """Write ``report.json`` into a folder."""
        write_json(folder / FILE, self.as_json())


def software_versions() -> dict[str, str]:
    """Versions of what made the numbers."""
    found = {"python": platform.python_version()}
    for package in ("nnunet_covid", "nnunetv2", "torch", "SimpleITK"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found


def read_document(path: Path) -> dict[str, Any]:
    """A ``report.json``, or the one in a report's folder.

    Raises:
        UserError: If it is none of ours, damaged, or of a later schema.
    """
    file = path / FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as e:
        raise UserError(f"{file} does not exist; name a report's folder or its {FILE}") from e
    except (OSError, ValueError) as e:
        raise UserError(f"{file} cannot be read as a report ({e}); make the report anew") from e
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{file} is no report of nnunet-covid; name a report's folder or its {FILE}")
    if content.get("schema_version") != SCHEMA_VERSION:
        found = content.get("schema_version")
        raise UserError(f"{file} has schema version {found}, this program reads {SCHEMA_VERSION}; make the report anew")
    return content


def days_between(earlier: str, later: str) -> int | None:
    """Whole days from one ISO date to another; None where either is not known."""
    try:
        return (date.fromisoformat(later) - date.fromisoformat(earlier)).days
    except ValueError:
        return None
