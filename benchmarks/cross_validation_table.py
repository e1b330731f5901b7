"""The table of ``cross_validate.py``: scores per method over all validation cases, and paired differences in Dice.

Scores of every finished run go into a CSV file, one line per validation case, so that the table can be continued
on another machine; runs that the file already holds are not scored again. Results of ``nnunet-covid pseudo-label``
stand beside the others, as ``TRAINER_pseudoNAME``.

    python benchmarks/cross_validation_table.py 501 --scores benchmarks/results/covid_semiseg_2d_half.csv
"""

from __future__ import annotations

import argparse
import csv
import itertools
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_covid.evaluation import evaluate_folders
from nnunet_covid.evaluation.paired_statistics import bootstrap_interval

METRICS = ("dice", "map_mae", "s_measure", "mean_e_measure", "sensitivity", "precision", "area_ratio")
COLUMNS = ("trainer", "length", "seed", "fold", "case", "class", *METRICS)


class Run(NamedTuple):
    """One training: what distinguishes it from the others of the table."""

    trainer: str
    length: str
    seed: int
    fold: int


def finished_runs(results: Path, configuration: str, length: str) -> Iterator[tuple[Run, Path]]:
    """Every run that nnU-Net has validated, with its folder of validation predictions."""
    pattern = re.compile(rf"^(.+)_{length}_seed(\d+)(_pseudo\w+?)?__nnUNetPlans__{configuration}$")
    for folder in sorted(results.iterdir()) if results.is_dir() else []:
        match = pattern.match(folder.name)
        for summary in sorted(folder.glob("fold_*/validation/summary.json")) if match else []:
            fold = int(summary.parents[1].name.removeprefix("fold_"))
            assert match
            yield Run(match[1] + (match[3] or ""), length, int(match[2]), fold), summary.parent


def score(run: Run, predictions: Path, references: Path) -> list[dict[str, str]]:
    """A line of the CSV file for every validation case and class."""
    with tempfile.TemporaryDirectory() as folder:
        for file in references.iterdir():
            if (predictions / file.name).exists():
                (Path(folder) / file.name).symlink_to(file)
        evaluation = evaluate_folders(
            predictions, folder, dataset_json=predictions.parents[1] / "dataset.json", distances=False
        )
    rows = []
    for case in evaluation.scores:
        found = dict(case.values)
        if found["reference_volume"] > 0:
            found["area_ratio"] = found["predicted_volume"] / found["reference_volume"]
        values = {name: f"{found[name]:.6f}" if name in found else "" for name in METRICS}
        rows.append(
            {**{k: str(v) for k, v in run._asdict().items()}, "case": case.case, "class": case.class_name} | values
        )
    return rows


def read_scores(file: Path) -> list[dict[str, str]]:
    """The lines of the CSV file; none if there is no file yet."""
    if not file.is_file():
        return []
    with file.open(newline="") as f:
        return list(csv.DictReader(f))


def write_scores(file: Path, rows: list[dict[str, str]]) -> None:
    """Replace the CSV file by these lines, sorted."""
    temporary = file.with_suffix(".tmp")
    with temporary.open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: [row[c] for c in COLUMNS[:6]]))
    temporary.replace(file)


def paired(a: dict[tuple[str, ...], float], b: dict[tuple[str, ...], float]) -> np.ndarray:
    """Mean difference per case over the seeds that both have; keys are (fold, case, class, seed)."""
    cases = itertools.groupby(sorted(set(a) & set(b)), key=lambda key: key[:3])
    return np.array([np.nanmean([a[key] - b[key] for key in keys]) for _, keys in cases])


def line(name: str, rows: list[dict[str, str]], baseline: list[dict[str, str]]) -> str:
    """One line of the Markdown table."""
    folds = sorted({int(row["fold"]) for row in rows})
    seeds = sorted({int(row["seed"]) for row in rows})
    cells = [f"`{name}`", _join(folds), _join(seeds), str(len({row["case"] for row in rows}))]
    dice = np.array([float(row["dice"]) for row in rows])
    cells.append(f"{np.nanmean(dice):.3f} ± {np.nanstd(dice, ddof=1):.3f}")
    for metric in METRICS[1:]:
        values = [float(row[metric]) for row in rows if row.get(metric)]
        cells.append(f"{np.mean(values):.3f}" if values else "")
    if rows is not baseline and baseline:
        differences = paired(_dice(rows), _dice(baseline))
        if len(differences) > 1:
            low, high = bootstrap_interval(differences)
            verdict = "no difference shown" if low <= 0 <= high else ("higher" if low > 0 else "lower")
            if len(seeds) < 2 and verdict != "no difference shown":
                verdict += ", with one seed"
            cells += [f"{differences.mean():+.3f} ({len(differences)})", f"{low:+.3f} … {high:+.3f}", verdict]
            return "| " + " | ".join(cells) + " |"
    return "| " + " | ".join([*cells, "", "", ""]) + " |"


def _dice(rows: list[dict[str, str]]) -> dict[tuple[str, ...], float]:
    return {(row["fold"], row["case"], row["class"], row["seed"]): float(row["dice"]) for row in rows}


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--configuration", default="2d_half")
    parser.add_argument("--length", default="10epochs_50its")
    parser.add_argument("--baseline", default="nnUNetTrainer")
    parser.add_argument("--trainers", nargs="+", help="only these, in this order")
    parser.add_argument("--folds", nargs="+", type=int, help="only these")
    parser.add_argument("--seeds", nargs="+", type=int, help="only these")
    parser.add_argument("--scores", type=Path, required=True, metavar="FILE", help="CSV file to read and to extend")
    args = parser.parse_args()
    dataset = maybe_convert_to_dataset_name(int(args.dataset) if args.dataset.isdigit() else args.dataset)

    rows = read_scores(args.scores)
    known = {(row["trainer"], row["length"], row["seed"], row["fold"]) for row in rows}
    references = Path(nnUNet_preprocessed.get()) / dataset / "gt_segmentations"
    for run, predictions in finished_runs(Path(nnUNet_results.get()) / dataset, args.configuration, args.length):
        if tuple(map(str, run)) not in known:
            rows += score(run, predictions, references)
            write_scores(args.scores, rows)

    chosen = [row for row in rows if row["length"] == args.length]
    if args.folds:
        chosen = [row for row in chosen if int(row["fold"]) in args.folds]
    if args.seeds:
        chosen = [row for row in chosen if int(row["seed"]) in args.seeds]
    by_trainer = {name: [r for r in chosen if r["trainer"] == name] for name in sorted({r["trainer"] for r in chosen})}
    baseline = by_trainer.get(args.baseline, [])
    head = ["trainer", "folds", "seeds", "cases", "Dice, mean ± sd", "MAE", "S", "E", "sens.", "prec.", "area"]
    head += [f"Dice − {args.baseline} (cases)", "95 % interval", ""]
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for name in args.trainers or by_trainer:
        if by_trainer.get(name):
            print(line(name, by_trainer[name], baseline))


if __name__ == "__main__":
    main()
