"""The table of a sweep: mean and spread over cases, the paired difference to a baseline, and what the runs cost."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.csv_files import write_csv
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.paired_statistics import bootstrap_interval
from nnunet_covid.evaluation.tables import aligned
from nnunet_covid.files import writable_folder, write_text
from nnunet_covid.nnunet.trainer_names import SUFFIXES
from nnunet_covid.nnunet.training_log import training_progress
from nnunet_covid.sweep.claims import attempts, end_of
from nnunet_covid.sweep.job import records
from nnunet_covid.sweep.plan import Sweep
from nnunet_covid.sweep.runs import Run
from nnunet_covid.sweep.scores import METRICS, ON_PLANS, Row, labels_of
from nnunet_covid.sweep.status import Places

GROUP = ("dataset", "configuration", "length", "trainer")
METRIC_HEADINGS = ("MAE", "S", "E", "sens.", "prec.", "area")
NNUNET_ITERATIONS = 250
"""Of an epoch, where the trainer's name does not say how many."""
Line = dict[str, Any]
"""Of the table, by column of ``table.csv``; what is not known is left out."""


def summarised(sweep: Sweep, places: Places, rows: Sequence[Row], baseline: str) -> list[Line]:
    """A line per data set, configuration, length and trainer, in the order of the sweep.

    ``dice`` and ``dice_sd`` are mean and sample standard deviation over cases, of each of which classes, folds and
    seeds are averaged first; the other metrics' means are of the same kind. ``difference``, ``low`` and ``high`` are
    over cases too, of folds and seeds that both have, with the 95 % bootstrap interval; ``step_seconds`` is nnU-Net's
    median time of an epoch, validation included, by its training iterations; ``memory_mib`` the largest of the
    processes that a sweep has started.

    Raises:
        UserError: If there is no row of the baseline.
    """
    runs: dict[tuple[str, ...], list[Run]] = {}
    for run in sweep.runs:
        if run.kind in ("train", "pseudo-label"):
            runs.setdefault(_group(labels_of(run)._asdict()), []).append(run)
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(_group(row), []).append(row)
    names = sorted({row["trainer"] for row in rows})
    on_plans = (name for name in names if name.startswith(baseline + ON_PLANS))
    known = baseline in names or any(on_plans) or any(_with_length(group) == baseline for group in groups)
    if not known and baseline != sweep.baseline:
        raise UserError(f"{baseline}: no finished run of it; there are {', '.join(names)}", about="baseline")
    lines = []
    for group in (group for group in runs if group in groups):
        line = {**dict(zip(GROUP, group, strict=True)), **_scores(groups[group]), **_costs(runs[group], places)}
        compared = _baseline_of(group, groups, baseline)
        if group != compared:
            name = compared[-1] if compared[2] == group[2] else baseline
            line |= _difference(groups[group], groups.get(compared, []), name)
        lines.append(line)
    return lines


def _baseline_of(group: tuple[str, ...], groups: Collection[tuple[str, ...]], baseline: str) -> tuple[str, ...]:
    """What a group is compared with: the baseline in its own length or, where it names one, in that.

    Where only other plans were trained it is that on the group's own.
    """
    named = (*group[:3], baseline)
    _, on, plans = group[-1].rpartition(ON_PLANS)
    in_its_length = (other for other in groups if other[:2] == group[:2] and _with_length(other) == baseline)
    return named if named in groups else next(in_its_length, (*group[:3], baseline + on + plans))


def _with_length(group: tuple[str, ...]) -> str:
    *_, length, trainer = group
    return f"{trainer}_{length}" if length else ""


def _group(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels[name] for name in GROUP)


def _scores(rows: Sequence[Row]) -> Line:
    dice = _of_cases(_values(rows))
    found: Line = {name: _joined(row[name[:-1]] for row in rows) for name in ("folds", "seeds")}
    found |= {"cases": len(dice), "dice": float(np.nanmean(dice))}
    if len(dice) > 1:
        found["dice_sd"] = float(np.nanstd(dice, ddof=1))
    for metric in METRICS[1:]:
        if values := _values(rows, metric):
            found[metric] = float(np.mean(_of_cases(values)))
    return found


def _costs(runs: Iterable[Run], places: Places) -> Line:
    seconds, memory = [], []
    for run in runs:
        match = SUFFIXES.match(run.trainer)
        if epoch := training_progress(places.results / run.key).get("seconds"):
            seconds.append(epoch / (int(match["its"]) if match and match["its"] else NNUNET_ITERATIONS))
        ends = [end_of(attempt) or {} for attempt in attempts(records(places.results, run))]
        memory += [end["memory_mib"] for end in ends if "memory_mib" in end]
    return {**({"step_seconds": median(seconds)} if seconds else {}), **({"memory_mib": max(memory)} if memory else {})}


def _difference(rows: Sequence[Row], compared: Sequence[Row], baseline: str) -> Line:
    here, there = _values(rows), _values(compared)
    found = paired(here, there)
    if len(found) < 2:
        return {}
    low, high = bootstrap_interval(found)
    verdict = "no difference shown" if low <= 0 <= high else "higher" if low > 0 else "lower"
    if len({seed for _, _, seed in set(here) & set(there)}) < 2 and not low <= 0 <= high:
        verdict += ", with one seed"
    values = {"difference": float(found.mean()), "low": low, "high": high}
    return {"baseline": baseline, "pairs": len(found), **values, "verdict": verdict}


def paired(a: Mapping[tuple[str, ...], float], b: Mapping[tuple[str, ...], float]) -> NDArray[np.float64]:
    """Mean difference per case over the folds and seeds that both have; keys are (fold, case, seed)."""
    return _of_cases({key: a[key] - b[key] for key in sorted(set(a) & set(b))})


def _of_cases(values: Mapping[tuple[str, ...], float]) -> NDArray[np.float64]:
    """Mean per case over folds and seeds: what several folds or seeds say of a case is not independent."""
    cases: dict[str, list[float]] = {}
    for (_, case, _), value in values.items():
        cases.setdefault(case, []).append(value)
    return np.array([np.nanmean(found) for found in cases.values()])


def _values(rows: Sequence[Row], metric: str = "dice") -> dict[tuple[str, ...], float]:
    """Mean over classes, by fold, case and seed, where there is one: the classes of a case are not independent."""
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.get(metric):
            found.setdefault((row["fold"], row["case"], row["seed"]), []).append(float(row[metric]))
    return {key: float(np.mean(values)) for key, values in found.items()}


def _joined(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values), key=lambda value: (len(value), value)))


def as_text(lines: Sequence[Line]) -> list[list[str]]:
    """Head and rows of the table for people, without columns that say nothing."""
    baseline = _baselines(lines)
    several = [name for name in GROUP[:3] if len({line[name] for line in lines}) > 1]
    head = ["trainer", *several, "folds", "seeds", "cases", "Dice, mean ± sd"]
    head += [*METRIC_HEADINGS, f"Dice − {baseline} (cases)", "95 % interval", ""]
    table = [[*head, "s/step", "MiB"]]
    for line in lines:
        spread = f" ± {line['dice_sd']:.3f}" if "dice_sd" in line else ""
        cells = [str(line[name]) for name in ("trainer", *several, "folds", "seeds", "cases")]
        cells += [f"{line['dice']:.3f}{spread}", *(f"{line[m]:.3f}" if m in line else "" for m in METRICS[1:])]
        compared = "pairs" in line
        cells.append(f"{line['difference']:+.3f} ({line['pairs']})" if compared else "")
        cells.append(f"{line['low']:+.3f} … {line['high']:+.3f}" if compared else "")
        cells += [line.get("verdict", ""), f"{line['step_seconds']:.3g}" if "step_seconds" in line else ""]
        table.append([*cells, str(line.get("memory_mib", ""))])
    kept = [i for i in range(len(table[0])) if any(row[i] for row in table[1:])]
    return [[row[i] for i in kept] for row in table]


def _baselines(lines: Iterable[Line]) -> str:
    return ", ".join(dict.fromkeys(line["baseline"] for line in lines if "baseline" in line))


def terminal(lines: Sequence[Line]) -> str:
    """The table for a terminal."""
    head, *rows = as_text(lines)
    return "\n".join(aligned(head, rows))


def write_table(lines: Sequence[Line], folder: Path) -> list[Path]:
    """Write ``table.csv``, ``table.md`` and, where anything is compared, ``differences.png``; the files.

    Raises:
        UserError: If the folder cannot be written.
    """
    writable_folder(folder)
    written = [folder / "table.csv", folder / "table.md"]
    columns = list(dict.fromkeys(itertools.chain(*lines)))
    write_csv(written[0], columns, ([line.get(column) for column in columns] for line in lines))
    head, *rows = as_text(lines)
    page = [head, ["---"] * len(head), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    write_text(written[1], "".join(f"| {' | '.join(row)} |\n" for row in page))
    compared = [line for line in lines if "pairs" in line]
    if compared:
        written.append(_draw(compared, folder / "differences.png"))
    return written


def _draw(compared: Sequence[Line], path: Path) -> Path:
    from nnunet_covid.figures.scores import Difference, draw_forest  # matplotlib takes long to import

    several = [name for name in GROUP[:3] if len({line[name] for line in compared}) > 1]
    better = {"higher": "first", "lower": "second", "no": ""}
    rows = [
        Difference(
            " ".join(line[name] for name in ("trainer", *several)),
            line["difference"],
            (line["low"], line["high"]),
            better[line["verdict"].replace(",", "").split()[0]],
        )
        for line in compared
    ]
    baseline = _baselines(compared)
    return draw_forest(path, {f"Dice − {baseline}": rows}, [True], ("trainer", baseline))
