"""Scores of finished runs, a row per validation case and class; kept in a CSV file so that none is scored twice.

Rows whose models lie on another machine are kept and shown too. Where a finished run is here, its rows are of that.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from nnunet_covid.csv_files import read_csv, write_csv
from nnunet_covid.dataset_json import fold_of, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import evaluate_folders
from nnunet_covid.files import files_in, read_json, sha256_of, some_of
from nnunet_covid.nnunet.dataset import read_splits
from nnunet_covid.nnunet.trainer_names import SUFFIXES
from nnunet_covid.sweep.plan import Sweep
from nnunet_covid.sweep.runs import SUMMARY, Run
from nnunet_covid.sweep.status import Places

METRICS = ("dice", "map_mae", "s_measure", "mean_e_measure", "sensitivity", "precision", "area_ratio")
RUN_COLUMNS = ("dataset", "configuration", "trainer", "length", "seed", "fold")
MADE_FROM = "summary"
"""Column: the beginning of the SHA-256 of nnU-Net's summary of the validation, which a training made anew changes."""
COLUMNS = (*RUN_COLUMNS, "case", "class", *METRICS, MADE_FROM)
ALL = "all"
"""The fold that is trained on every case."""
ON_PLANS = " on "
"""Between trainer and plans."""
Row = dict[str, str]


class Labels(NamedTuple):
    """What tells a run from the others of a table, as text.

    The trainer stands without length and seed, and with what it started from and plans other than nnU-Net's usual ones.
    """

    dataset: str
    configuration: str
    trainer: str
    length: str
    seed: str
    fold: str


def labels_of(run: Run) -> Labels:
    """Those of a run."""
    match = SUFFIXES.match(run.label)
    assert match is not None
    pseudo = f"_pseudo{match['tag']}" if match["tag"] else ""
    start = f" from {Path(run.start).stem}" if run.start else ""
    plans = f"{ON_PLANS}{run.plans}" if run.plans != Run.plans else ""
    trainer = match["base"] + (match["consistency"] or "") + pseudo + start + plans
    length = "_".join(f"{match[unit]}{unit}" for unit in ("epochs", "its") if match[unit])
    return Labels(run.dataset, run.configuration, trainer, length, match["seed"] or "", run.fold)


def scored_rows(sweep: Sweep, places: Places, file: Path | None, tell: Callable[[str], None] = print) -> list[Row]:
    """Rows of every run of the sweep that is finished, or that the file holds; but not of the fold ``all``.

    What that one is validated on it was trained on.

    Args:
        sweep: Whose runs.
        places: Where models and references lie.
        file: Read, and extended by what is new.
        tell: Receives a line for each run whose probability maps, or some of whose predictions, are of an earlier
            training.

    Raises:
        UserError: If the file is no table of scores, or a result is another run's of the same name.
    """
    kinds = ("train", "pseudo-label")
    trained = {labels_of(run): run for run in sweep.runs if run.kind in kinds and run.fold != ALL}
    if not trained:
        return []
    first = next(iter(trained))
    rows = read_scores(file, dataset=first.dataset, configuration=first.configuration) if file else []
    known = Counter((_labels(row), row.get(MADE_FROM)) for row in rows)
    for labels, run in trained.items():
        if not run.finished(places.results, places.preprocessed):
            continue
        summary = places.results / run.key / SUMMARY
        made = sha256_of(summary)[:12]
        others = _of_another_split(labels, summary.parent, files_in(summary.parent))
        cases = (read_json(summary) or {}).get("metric_per_case", [])
        listed = [Path(case.get("prediction_file", "")) for case in cases]  # which may be gone
        foreign = _of_another_split(labels, summary.parent, listed)
        own = [case for case, file in zip(cases, listed, strict=True) if file.name not in foreign]
        stale = others and any(_labels(row) == labels and row["case"] in others.values() for row in rows)
        if stale or known[labels, made] < max(1, sum(len(case["metrics"]) for case in own)):  # or lines were taken out
            new = score(labels, summary.parent, places.preprocessed / run.dataset / "gt_segmentations", tell)
            rows = [row for row in rows if _labels(row) != labels] + [{**row, MADE_FROM: made} for row in new]
            if file is not None:
                write_scores(file, rows)
    return [row for row in rows if _labels(row) in trained]


def score(labels: Labels, predictions: Path, references: Path, tell: Callable[[str], None] = print) -> list[Row]:
    """A row for every validation case and class of a run; predictions of an earlier training's folds are left out."""
    dataset_json, kept = predictions.parents[1] / "dataset.json", predictions
    with tempfile.TemporaryDirectory() as folder:
        if others := _of_another_split(labels, predictions, files_in(predictions)):
            tell(f"note: {predictions} holds {some_of(others.values())}, no validation cases of this fold: left out")
            files = (file for file in files_in(predictions) if file.name not in others)
            kept = _linked(files, Path(folder, "predictions"))
        given = [file for file in references.iterdir() if (kept / file.name).exists()]
        if others and not given:
            return []
        beside = [(kept / file.name).with_suffix(".json") for file in given]  # spacing, where a TIFF has none
        expected = _linked([*given, *filter(Path.is_file, beside)], Path(folder, "references"))
        try:
            evaluation = evaluate_folders(kept, expected, dataset_json=dataset_json, distances=False)
        except UserError as e:
            raise UserError(_named(str(e), {kept: predictions, expected: references}), e.about) from e
    if evaluation.note:
        tell(f"note: {_named(evaluation.note, {kept: predictions})}")
    rows = []
    for case in evaluation.scores:
        found = dict(case.values)
        if found["reference_volume"] > 0:
            found["area_ratio"] = found["predicted_volume"] / found["reference_volume"]
        values = {name: f"{found[name]:.6f}" if name in found else "" for name in METRICS}
        rows.append({**labels._asdict(), "case": case.case, "class": case.class_name, **values})
    return rows


def _named(text: str, folders: dict[Path, Path]) -> str:
    """A line with the folders that links lead to instead of those of the links."""
    for links, folder in folders.items():
        text = text.replace(str(links), str(folder))
    return text


def _of_another_split(labels: Labels, predictions: Path, files: Iterable[Path]) -> dict[str, str]:
    """Files and names of those of a folder's cases that the fold is not validated on, and may be trained on."""
    fold = fold_of(read_splits(labels.dataset) or [], labels.fold)
    if fold is None:
        return {}
    ending = read_dataset_json(predictions.parents[1] / "dataset.json")["file_ending"]
    names = {file.name: file.name.removesuffix(ending) for file in files if file.name.endswith(ending)}
    return {file: name for file, name in names.items() if name not in fold["val"]}


def _linked(files: Iterable[Path], folder: Path) -> Path:
    """A new folder of links."""
    folder.mkdir()
    for file in files:
        (folder / file.name).symlink_to(file.absolute())
    return folder


def read_scores(file: Path, *, dataset: str, configuration: str) -> list[Row]:
    """The rows of the CSV file; none if there is no file yet.

    Args:
        file: Which.
        dataset, configuration: Of all rows, where the file has no such columns.

    Raises:
        UserError: If it cannot be read, has other columns, or a line lacks a score.
    """
    if not file.exists():
        return []
    columns, rows = read_csv(file)
    missing = set(COLUMNS[2:9]) - set(columns)
    if missing:
        raise UserError(f"{file} is no table of scores: it has no column {', '.join(sorted(missing))}")
    for row in rows:
        if not _is_whole(row):
            where = ", ".join(filter(None, (row[name] for name in COLUMNS[2:8])))
            raise UserError(f"{file}: lacks a score, or a number is none, in the line {where}; take the line out")
    return [{"dataset": dataset, "configuration": configuration, **row} for row in rows]


def _is_whole(row: dict[str, str | None]) -> bool:
    """Whether a row says of which case it is, and its scores are numbers; all but Dice may be missing."""
    try:
        numbers = [float(row[name] or "nan") for name in METRICS[1:] if name in row]
        return None not in [*(row[name] for name in COLUMNS[2:8]), float(row["dice"] or ""), *numbers]
    except ValueError:
        return False


def write_scores(file: Path, rows: Sequence[Row]) -> None:
    """Replace the CSV file by these rows, sorted."""
    found = sorted(rows, key=lambda row: [row[column] for column in COLUMNS[:8]])
    write_csv(file, COLUMNS, ([row.get(column) for column in COLUMNS] for row in found))


def _labels(row: Row) -> Labels:
    return Labels(*(row[column] for column in RUN_COLUMNS))
