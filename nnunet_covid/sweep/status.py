"""Where every run of a sweep stands, read from nnU-Net's files and the claims; and the table of it for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_covid.evaluation.tables import aligned
from nnunet_covid.files import counted
from nnunet_covid.nnunet.training_log import training_progress
from nnunet_covid.sweep.claims import Queue, alive, attempts, end_of, number_of, waiting_job
from nnunet_covid.sweep.job import records
from nnunet_covid.sweep.plan import Sweep
from nnunet_covid.sweep.runs import Run

State = Literal["done", "running", "queued", "waiting", "failed"]
STATES: tuple[State, ...] = ("running", "queued", "waiting", "failed", "done")
HEAD = ("run", "fold", "state", "epoch", "Dice", "attempts", "")
LONGEST_LINE = 100


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Attributes:
        state: ``queued`` has been handed to submitit and has not begun, ``waiting`` has not been handed over.
        attempt: How often it was begun.
        last: The newest claim.
        note: For the person: how the last attempt ended, or what it waits for.
    """

    run: Run
    state: State
    attempt: int = 0
    last: Path | None = None
    note: str = ""


@dataclass(frozen=True)
class Places:
    """nnU-Net's folders of results and of pre-processed data."""

    results: Path
    preprocessed: Path


def survey(sweep: Sweep, places: Places, queue: Queue) -> list[Standing]:
    """Where each run stands, in the order of the sweep.

    Raises:
        UserError: If what is there of one was made otherwise.
    """
    found = [_standing(run, places, queue) for run in sweep.runs]
    unfinished = {one.run.key: one for one in found if one.state != "done"}
    return [_blocked(one, unfinished) if one.state == "waiting" else one for one in found]


def _standing(run: Run, places: Places, queue: Queue) -> Standing:
    folder = records(places.results, run)
    begun = attempts(folder)
    last = begun[-1] if begun else None
    number = number_of(last) if last else 0
    done = run.finished(places.results, places.preprocessed)
    if last is not None and alive(last, queue):
        return Standing(run, "running", number, last)
    if done:
        return Standing(run, "done", number, last)
    job = waiting_job(folder, queue)
    if job is not None:
        return Standing(run, "queued", number, last, f"job {job['job']}")
    end = end_of(last) if last is not None else None
    if end is not None and end["status"] == "failed":
        return Standing(run, "failed", number, last, end["line"])
    note = "" if last is None else end["line"] if end is not None else "its process was killed, or its machine stopped"
    return Standing(run, "waiting", number, last, note)


def _blocked(one: Standing, unfinished: dict[str, Standing]) -> Standing:
    """The same with a note of what it waits for."""
    needed = next((unfinished[key] for key in one.run.needs if key in unfinished), None)
    if needed is None:
        return one
    verb = "which failed" if needed.state == "failed" else "which comes first"
    return Standing(one.run, one.state, one.attempt, one.last, f"needs {needed.run.key}, {verb}")


def status_table(standings: Sequence[Standing], results: Path) -> str:
    """A line per run, those at work first, and how many of each there are."""
    rows = []
    for one in sorted(standings, key=lambda one: STATES.index(one.state)):
        run = one.run
        progress = training_progress(results / run.key) if run.kind == "train" else {}
        epoch = str(progress["epoch"]) if "epoch" in progress else ""
        dice = f"{progress['dice']:.3f}" if "dice" in progress else ""
        note = one.note if len(one.note) <= LONGEST_LINE else f"{one.note[: LONGEST_LINE - 1]}…"
        rows.append([_shown(run), run.fold, one.state, epoch, dice, str(one.attempt or ""), note])
    counts = Counter(one.state for one in standings)
    said = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return "\n".join([*_left_aligned(rows), "", f"{counted(len(standings), 'run')}: {said}"])


def _left_aligned(rows: list[list[str]]) -> list[str]:
    """The last column is text of any length: it is not padded to the right."""
    lines = aligned(HEAD[:-1], [row[:-1] for row in rows])
    notes = ["", "", *(row[-1] for row in rows)]
    width = max(map(len, lines))
    return [f"{line:{width}}  {note}".rstrip() for line, note in zip(lines, notes, strict=True)]


def _shown(run: Run) -> str:
    """The run's name without its fold, which has a column."""
    return run.key.removesuffix(f"/fold_{run.fold}")
