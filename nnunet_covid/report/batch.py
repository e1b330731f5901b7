"""Many scans with one loaded model: a row for each in ``reports.csv``, refused ones too, and an index by urgency."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nnunet_covid.csv_files import write_csv
from nnunet_covid.disturbances import full_place
from nnunet_covid.endings import VOLUME_ENDINGS, ending_of
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import is_hidden, printable, read_json, write_text
from nnunet_covid.raw_dataset.case_folders import ARCHIVES
from nnunet_covid.raw_dataset.dicom import header_of, read_dicom
from nnunet_covid.raw_dataset.dicom_folder import dicom_folder
from nnunet_covid.report.confidence import urgency
from nnunet_covid.report.document import FILE, NOTICE, read_document
from nnunet_covid.report.scans import volumes_below

TABLE, INDEX = "reports.csv", "index.html"


@dataclass(frozen=True)
class Row:
    """A scan of a batch.

    Attributes:
        scan: Name of its report's folder, or of what was refused.
        status: ``reported`` or ``refused``.
        urgency: Order in which to look, the highest first.
        flags: Keys of the raised flags.
        reason: Why it was refused.
    """

    scan: str
    status: str
    study_date: str = ""
    infection_ml: float | None = None
    infection_percent: float | None = None
    lungs_ml: float | None = None
    severity: str = ""
    urgency: float = 0.0
    flags: str = ""
    reason: str = ""


def scans_of(folder: Path) -> list[Path]:
    """What of a folder are scans of their own; the folder alone where it holds one.

    Volume files are; so are the folders in it where the DICOM below belongs to several studies, or to none and several
    hold volumes. Beside one study volumes are no scans: they may be its masks, or a copy of it. Folders without any
    image among them, packed folders and series beside them are listed too: a batch refuses them by name. A folder in
    which nothing but another folder may hold a scan, as on a disc, counts as that one.
    """
    entries = [path for path in sorted(folder.iterdir()) if not is_hidden(path)]
    volumes = [path for path in entries if path.is_file() and ending_of(path, VOLUME_ENDINGS)]
    folders = [path for path in entries if path.is_dir()]
    others = _beside([path for path in entries if path.is_file() and path not in volumes])
    if volumes:
        return volumes + folders + others
    if len(folders) == 1 and not others:
        inside = scans_of(folders[0])
        return [folder] if inside == folders else inside
    studies = {path: _studies(path) for path in folders + others}
    if len(set().union(*studies.values())) == 1:
        return [folder]
    scans = set().union(*(studies[path] or _volume_case(path) for path in folders))
    return folders + others if len(scans) > 1 and len(folders) > 1 else [folder]


def _beside(files: Sequence[Path]) -> list[Path]:
    """Of files that lie beside scans: packed ones, and one slice of each series, which stands for it."""
    packed = [path for path in files if ending_of(path, ARCHIVES)]
    headers = {path: read_dicom(path) for path in files if path not in packed}
    slices = {header.series: path for path, header in headers.items() if header and not header.no_image}
    return packed + list(slices.values())


def _studies(place: Path) -> set[str]:
    """Study Instance UIDs below a folder, by the first file of every series, or of a slice; of a packed file none."""
    if place.is_dir():
        slices = {series.files[0].path: series.folder for series in dicom_folder(place).series}
    else:
        slices = {} if ending_of(place, ARCHIVES) else {place: place.parent}
    return {str(header_of(path, "StudyInstanceUID").get("StudyInstanceUID", series)) for path, series in slices.items()}


def _volume_case(folder: Path) -> set[str]:
    """What stands for a study where a folder holds volumes."""
    return {str(folder)} if volumes_below(folder) else set()


def report_batch(
    sources: Sequence[Path],
    output: Path,
    one: Callable[[Path, Path], object],
    tell: Callable[[str], None],
    name_of: Callable[[Path], str] | None = None,
    progress: Callable[[Sequence[Path]], Iterable[Path]] = iter,
) -> list[Row]:
    """Report on every scan and write table and index after each; a scan that cannot be used becomes a row.

    Args:
        sources: The scans.
        output: Folder of all reports.
        one: Reports on a scan into a folder; whatever it raises refuses the scan, unless the disk is full.
        tell: Prints a line.
        name_of: Of a scan in every output, a pseudonym; its own name if not given.
        progress: Wraps the scans, as tqdm does.
    """
    named = name_of or names_of(sources).__getitem__
    rows: list[Row] = []
    for source in progress(sources):
        try:
            one(source, output / named(source))
            rows.append(row_of(read_document(output / named(source)), named(source)))
        except Exception as e:  # one scan must not end the batch: its row tells what happened
            if full_place(e.__cause__ or e, [output]) is not None:
                raise
            reason = str(e) if isinstance(e, UserError) else f"it cannot be reported on ({reason_of(e)})"
            told = reason
            if name_of is not None:  # the sentence names the file, and may name the person
                reason = "refused; the sentence printed when it was told says why"
            shown = printable(source.name)
            rows.append(Row(named(source) if name_of else shown, "refused", reason=printable(reason)))
            tell(printable(f"refused {shown}: {told}"))
        write_table(output, rows)
    return rows


def require_own_table(output: Path) -> None:
    """Refuse a folder whose table or index is somebody else's: both are written anew after every scan.

    Raises:
        UserError: If one was not written by a batch of reports.
    """
    for name, beginning in ((TABLE, r"\W*scan\W+status\W"), (INDEX, r"(?s).*<title>Reports</title>")):
        path = output / name
        if path.exists() and not (path.is_file() and re.match(beginning, path.read_text("utf-8", "replace")[:2000])):
            raise UserError(f"{path} is not of a batch of reports and would be written over; name another output")


def names_of(sources: Iterable[Path]) -> dict[Path, str]:
    """Names of scans' reports, from their files or folders: without the ending, where no other has the same name."""
    endings = {source: (ending_of(source, VOLUME_ENDINGS) or "") if source.is_file() else "" for source in sources}
    short = {source: source.name[: len(source.name) - len(ending)] for source, ending in endings.items()}
    times = Counter(short.values())
    return {source: printable(name if times[name] == 1 else source.name) for source, name in short.items()}


def row_of(document: Mapping[str, Any], scan: str) -> Row:
    """The row of a report."""
    numbers = document["quantities"]
    lungs = next((region for region in numbers["regions"] if region["name"] == "lungs"), None)
    severity = numbers["severity"]
    return Row(
        scan=scan,
        status="reported",
        study_date=document["scan"]["study_date"],
        infection_ml=numbers["infection_ml"],
        infection_percent=lungs and lungs["infection_percent"],
        lungs_ml=lungs and lungs["volume_ml"],
        severity=f"{severity['points']} of {severity['of']}" if severity else "",
        urgency=urgency(document["flags"]),
        flags=" ".join(flag["key"] for flag in document["flags"] if flag["raised"]),
    )


def write_table(output: Path, rows: list[Row]) -> None:
    """``reports.csv`` and ``index.html``, most urgent first, refused scans on top."""
    ordered = sorted(rows, key=lambda row: (row.status == "reported", -row.urgency, row.scan))
    write_csv(output / TABLE, asdict(Row("", "")), (asdict(row).values() for row in ordered))
    write_text(output / INDEX, _index(ordered))


def _index(rows: list[Row]) -> str:
    cells = [
        [
            f'<a href="{quote(row.scan)}/report.html">{html.escape(row.scan)}</a>'
            if row.status == "reported"
            else html.escape(row.scan),
            html.escape(row.study_date),
            _number(row.infection_ml, row),
            _number(row.infection_percent, row),
            html.escape(row.severity),
            html.escape(_remarks(row)),
        ]
        for row in rows
    ]
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in cells)
    head = "".join(
        f"<th>{name}</th>" for name in ("scan", "date", "infection, ml", "of the lungs, %", "severity", "flags")
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Reports</title><style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8886; white-space: nowrap; }}
td:last-child {{ white-space: normal; overflow-wrap: anywhere; }}
</style></head><body><h1>Reports</h1><p>Look at the first ones first: they are the least certain. {NOTICE}</p>
<table><tr>{head}</tr>
{body}
</table></body></html>
"""


def _number(value: float | None, row: Row) -> str:
    if row.status == "refused":
        return ""
    return "not available" if value is None else f"{value:.1f}"


def _remarks(row: Row) -> str:
    """The flags as words, or why there is no report."""
    if row.status == "refused":
        return f"refused: {row.reason}"
    return ", ".join(row.flags.split()).replace("_", " ") or "none"


def is_finished(folder: Path, made_of: str) -> bool:
    """Whether a folder holds a report made of the same; ``made_of`` of :mod:`nnunet_covid.report.assemble` tells it."""
    return (read_json(folder / FILE) or {}).get("made_of") == made_of
