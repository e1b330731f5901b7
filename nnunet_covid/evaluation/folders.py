"""From two folders to scores: check everything, then measure case by case, in several processes if asked."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.allocator import keep_freed_memory
from nnunet_covid.evaluation.case import CaseScore, Settings, score_case
from nnunet_covid.evaluation.empty_policy import EmptyPolicy
from nnunet_covid.evaluation.geometry import Geometry, difference_of
from nnunet_covid.evaluation.kept_labels import KeptCase, keep_labels, within_budget
from nnunet_covid.evaluation.label_files import (
    LabelFormat,
    label_format,
    read_geometry,
    read_labels,
    unknown_values,
)
from nnunet_covid.evaluation.labels import LabelScheme, find_dataset_json, read_dataset_json, scheme_of_labels
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.evaluation.pairing import paired_cases
from nnunet_covid.evaluation.probability_maps import (
    MapSource,
    check_greys,
    check_map,
    find_maps,
    maps_beside,
    read_maps,
)

Item = TypeVar("Item")
Result = TypeVar("Result")
CASES_PER_TASK = 8  # handing over single PNG slices would cost as much as scoring them


@dataclass(frozen=True)
class EvaluationInput:
    """Two folders whose cases pair up, with all that is needed to read them. Made by :func:`open_folders`."""

    predictions: Path
    references: Path
    cases: tuple[str, ...]
    format: LabelFormat
    scheme: LabelScheme
    maps: MapSource | None
    units: Units

    def prediction(self, case: str) -> Path:
        """The predicted label map of a case."""
        return self.predictions / f"{case}{self.format.ending}"

    def reference(self, case: str) -> Path:
        """The reference label map of a case."""
        return self.references / f"{case}{self.format.ending}"


@dataclass(frozen=True)
class Evaluation:
    """All scores, in the order of cases and classes, and how they came about."""

    input: EvaluationInput
    settings: Settings
    scores: tuple[CaseScore, ...]


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    *,
    dataset_json: str | Path | None = None,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    maps: str | Path | None = None,
    use_maps: bool = True,
    resize_maps: bool = False,
    tolerance: float = 3.0,
    empty_policy: EmptyPolicy | str = EmptyPolicy.SCORE,
    distances: bool = True,
    processes: int = 1,
    progress: bool = False,
) -> Evaluation:
    """Score a folder of predicted label maps against a folder of references of the same file names.

    Args:
        predictions: folder of label maps, and of nnU-Net's ``CASE.npz`` if there are any.
        references: folder of label maps.
        dataset_json: file that says what the labels mean; by default looked for beside and above the label
        maps. labels: instead of it, label values by name; regions as sequences.
        maps: folder of probability maps, if they are not beside the predictions.
        use_maps: False leaves the map-based metrics out.
        resize_maps: bring grey maps to the size of the label maps instead of refusing them.
        tolerance: τ of the NSD in mm, in pixels for images without spacing.
        empty_policy: what an empty mask is worth; see :class:`EmptyPolicy`.
        distances: False leaves HD95 and NSD out, which take most of the time of the label metrics.
        processes: how many to use; 1 stays in this one. A script that asks for more must guard its main part with
            ``if __name__ == "__main__"``, because new processes import it.
        progress: show progress bars, if the error stream is a terminal.

    Returns:
        The scores; ``summary.summarise`` averages them and ``report.write_report`` writes tables and plots.

    Raises:
        UserError: for any mistake in the input, before the first case is scored.

    Examples:
        >>> evaluation = evaluate_folders("predictions", "labelsTs")
        >>> summarise(evaluation).classes["infection"].metrics["dice"].mean
    """
    source = open_folders(
        Path(predictions),
        Path(references),
        dataset_json=None if dataset_json is None else Path(dataset_json),
        labels=labels,
        maps=None if maps is None else Path(maps),
        use_maps=use_maps,
        resize_maps=resize_maps,
    )
    settings = _settings(tolerance, empty_policy, distances, processes)
    with _mapper(min(processes, len(source.cases))) as run:
        kept = _check_values(source, run, progress)
        scored = run(partial(_score, source, settings), list(zip(source.cases, kept, strict=True)))
        scores = _with_bar(scored, len(source.cases), "scoring", progress)
        return Evaluation(source, settings, tuple(score for case in scores for score in case))


def open_folders(
    predictions: Path,
    references: Path,
    *,
    dataset_json: Path | None = None,
    labels: Mapping[str, int | Sequence[int]] | None = None,
    maps: Path | None = None,
    use_maps: bool = True,
    resize_maps: bool = False,
) -> EvaluationInput:
    """Pair the cases and compare geometries and channels by the files' headers.

    Raises:
        UserError: for names on one side only, unequal geometries, maps that are missing, do not match or are masks.
    """
    for folder in (predictions, references):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    description: dict[str, Any] | None = None
    if labels is None:
        description = read_dataset_json(dataset_json or find_dataset_json(predictions, references))
        labels = description["labels"]
    scheme = scheme_of_labels(labels)
    fmt = label_format(description, references)
    cases = paired_cases(predictions, references, fmt.ending)
    source = None
    if use_maps:
        source = (
            maps_beside(predictions, cases, scheme)
            if maps is None
            else find_maps(maps, cases, scheme, resize=resize_maps)
        )
    units = Units("mm", "ml")
    for i, case in enumerate(cases):
        geometry = _common_geometry(predictions, references, case, fmt)
        if i and geometry.units != units:
            raise UserError(f"{case}: 2D and 3D label maps, or ones with and without spacing, do not mix")
        units = geometry.units
        if source is not None:
            check_map(source, case, scheme, geometry.shape)
    if source is not None:
        check_greys(source, cases, scheme)
    return EvaluationInput(predictions, references, tuple(cases), fmt, scheme, source, units)


def _common_geometry(predictions: Path, references: Path, case: str, fmt: LabelFormat) -> Geometry:
    predicted = read_geometry(predictions / f"{case}{fmt.ending}", fmt)
    expected = read_geometry(references / f"{case}{fmt.ending}", fmt)
    if difference := difference_of(predicted, expected):
        raise UserError(f"{case}: {difference}")
    return expected


def _settings(tolerance: float, empty_policy: EmptyPolicy | str, distances: bool, processes: int) -> Settings:
    if not tolerance >= 0:
        raise UserError(f"the tolerance must not be negative, it is {tolerance}")
    if processes < 1:
        raise UserError(f"at least one process is needed, not {processes}")
    try:
        return Settings(tolerance, EmptyPolicy(empty_policy), distances)
    except ValueError as e:
        known = ", ".join(p.value for p in EmptyPolicy)
        raise UserError(f"unknown policy '{empty_policy}' for empty masks; known are {known}") from e


def _check_values(source: EvaluationInput, run: _Run, progress: bool) -> list[KeptCase | None]:
    """Refuse values that the labels do not name, in any file, before anything is scored.

    The label maps that were read for it are kept as far as memory is set aside for them.
    """
    checked = _with_bar(run(partial(_check_case, source), source.cases), len(source.cases), "checking", progress)
    return list(within_budget(_passed(outcome) for outcome in checked))


def _passed(outcome: KeptCase | str | None) -> KeptCase | None:
    if isinstance(outcome, str):
        raise UserError(outcome)
    return outcome


def _check_case(source: EvaluationInput, case: str) -> KeptCase | str | None:
    """What is wrong with the values of a case, or else its label maps, if they are small enough to be kept."""
    kept = []
    for path in (source.reference(case), source.prediction(case)):
        labels, geometry = read_labels(path, source.format)
        unknown = unknown_values(labels, source.scheme.known_values)
        if unknown:
            listed = ", ".join(map(str, sorted(unknown)[:5]))
            known = ", ".join(map(str, sorted(source.scheme.known_values)))
            return f"{path}: holds the value(s) {listed}, which the labels do not name (known: {known})"
        kept.append((keep_labels(labels), geometry))
    (reference, geometry), (prediction, _) = kept
    return None if reference is None or prediction is None else KeptCase(prediction, reference, geometry)


def _score(source: EvaluationInput, settings: Settings, item: tuple[str, KeptCase | None]) -> list[CaseScore]:
    case, kept = item
    if kept is None:
        reference, geometry = read_labels(source.reference(case), source.format)
        prediction, _ = read_labels(source.prediction(case), source.format)
    else:
        reference, prediction, geometry = kept.reference.restored(), kept.prediction.restored(), kept.geometry
    maps = None if source.maps is None else read_maps(source.maps, case, source.scheme, geometry.shape)
    return score_case(case, prediction, reference, geometry, source.scheme, settings, maps)


_Run = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]


@contextmanager
def _mapper(processes: int) -> Iterator[_Run]:
    """A ``map`` over items that keeps their order: the built-in one, or that of a pool of processes."""
    if processes <= 1:
        yield map
        return
    # Fresh interpreters: a fork of a process in which torch or ITK has started threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare_process) as pool:

        def run(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterable[Result]:
            share = max(1, min(CASES_PER_TASK, len(items) // (4 * processes)))
            return pool.map(function, items, chunksize=share)

        try:
            yield run
        except BrokenProcessPool as e:
            raise UserError("a scoring process was killed, most likely for lack of memory: use fewer processes") from e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_process() -> None:
    # ITK asks for it when it is first used, which not every format calls for.
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"
    keep_freed_memory()


def _with_bar(items: Iterable[Result], total: int, what: str, progress: bool) -> Iterable[Result]:
    return tqdm(items, total=total, desc=what, unit="case", disable=None if progress else True, leave=False)
