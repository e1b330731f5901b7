"""From two folders to scores: pair the cases by file name, then check and score each in one pass.

Several processes share the cases if asked. Whatever is wrong with a case is told before anything is written, since
nothing is written here.
"""

from __future__ import annotations

import ctypes
import math
import sys
import unicodedata
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_covid.dataset_json import Labels, read_dataset_json
from nnunet_covid.endings import ending_of
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.confusion import EmptyPolicy
from nnunet_covid.evaluation.label_files import LabelFormat, label_format, read_labels, unknown_values
from nnunet_covid.evaluation.labels import LabelScheme, find_dataset_json, require_same_meaning, scheme_of_labels
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.evaluation.probability_maps import (
    ForeignMapsError,
    MapSource,
    check_greys,
    find_maps,
    maps_beside,
    read_maps,
)
from nnunet_covid.evaluation.scores import CaseScore, Settings, score_case
from nnunet_covid.files import files_in, is_hidden, some_of
from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.shared_work import map_in_processes

REMEDY = "resample the prediction onto the reference, or copy the reference's header where only the header is wrong"
REGRID = "save both in the size of the image"
# Parameters of mallopt(3).
TRIM_THRESHOLD = -1
MMAP_THRESHOLD = -3
LARGEST = 1 << 30


@dataclass(frozen=True)
class EvaluationInput:
    """Two folders whose cases pair up, with all that is needed to read them."""

    predictions: Path
    references: Path
    cases: tuple[str, ...]
    format: LabelFormat
    scheme: LabelScheme
    maps: MapSource | None = None

    def prediction(self, case: str) -> Path:
        """The predicted label map of a case."""
        return self.predictions / f"{case}{self.format.ending}"

    def reference(self, case: str) -> Path:
        """The reference label map of a case."""
        return self.references / f"{case}{self.format.ending}"


@dataclass(frozen=True)
class Evaluation:
    """All scores, in the order of cases and classes, their units, and how they came about.

    Attributes:
        note: What was left out, in a line; empty where nothing was.
    """

    input: EvaluationInput
    settings: Settings
    units: Units
    scores: tuple[CaseScore, ...]
    note: str = ""


def evaluate_folders(
    predictions: str | Path,
    references: str | Path,
    *,
    dataset_json: str | Path | None = None,
    labels: Labels | None = None,
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
        predictions: folder of label maps, and of nnU-Net's ``CASE.npz`` if there are any; those of another prediction
            than the label maps are left out, with a note.
        references: folder of label maps.
        dataset_json: file that says what the labels mean; by default looked for beside and above the label maps.
        labels: instead of it, label values by name; regions as sequences.
        maps: folder of probability maps, if they are not beside the predictions.
        use_maps: False leaves the map-based metrics out.
        resize_maps: bring grey maps to the size of the label maps instead of refusing them.
        tolerance: τ of the NSD in mm, in pixels for images without spacing.
        empty_policy: what an empty mask is worth; see :class:`EmptyPolicy`.
        distances: False leaves HD95 and NSD out, which take most of the time of the label metrics.
        processes: how many to use; 1 stays in this one. A script that asks for more must guard its main part with
            ``if __name__ == "__main__"``, because new processes import it.
        progress: show a progress bar, if the error stream is a terminal.

    Returns:
        The scores; ``summarise`` averages them and ``write_report`` writes tables and plots.

    Raises:
        UserError: for any mistake in the input.

    Examples:
        >>> evaluation = evaluate_folders("predictions", "labelsTs")
        >>> summarise(evaluation).classes["infection"].metrics["dice"].mean
    """
    settings = _settings(tolerance, empty_policy, distances, processes)
    source = _opened(Path(predictions), Path(references), dataset_json, labels)
    if use_maps:
        source = _with_maps(source, None if maps is None else Path(maps), resize_maps)
    try:
        return _evaluated(source, settings, processes, progress)
    except ForeignMapsError as e:
        evaluation = _evaluated(replace(source, maps=None), settings, processes, progress)
        return replace(evaluation, note=f"no probability map is scored: {e}")


def _evaluated(source: EvaluationInput, settings: Settings, processes: int, progress: bool) -> Evaluation:
    done = map_in_processes(partial(_score, source, settings), source.cases, processes, prepare=keep_freed_memory)
    results: list[tuple[Units, list[CaseScore]]] = []
    bar = tqdm(done, total=len(source.cases), desc="scoring", unit="case", disable=not progress or None, leave=False)
    for case, result in zip(source.cases, bar, strict=True):
        if results and result[0] != results[0][0]:
            raise UserError(f"{case}: 2D and 3D label maps, or ones with and without spacing, do not mix")
        results.append(result)
    return Evaluation(source, settings, results[0][0], tuple(score for _, scores in results for score in scores))


def _opened(
    predictions: Path, references: Path, dataset_json: str | Path | None, labels: Labels | None
) -> EvaluationInput:
    """Learn what the labels mean and pair the cases."""
    for folder in (predictions, references):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
    description: dict[str, Any] | None = None
    if labels is None:
        file = find_dataset_json(predictions, references) if dataset_json is None else Path(dataset_json)
        description = read_dataset_json(file)
        if dataset_json is None:
            require_same_meaning(file, references)
        labels = description["labels"]
    scheme = scheme_of_labels(labels)
    fmt = label_format(description, references)
    cases = paired_cases(predictions, references, fmt.ending)
    return EvaluationInput(predictions, references, tuple(cases), fmt, scheme)


def _with_maps(source: EvaluationInput, folder: Path | None, resize: bool) -> EvaluationInput:
    """Those of the folder, or those beside the predictions, if there are any."""
    cases = list(source.cases)
    if folder is None:
        return replace(source, maps=maps_beside(source.predictions, cases, source.scheme))
    maps = find_maps(folder, cases, source.scheme, resize=resize)
    check_greys(maps, cases, source.scheme)
    return replace(source, maps=maps)


def paired_cases(predictions: Path, references: Path, ending: str) -> list[str]:
    """Names of the cases that both folders hold, sorted: their files with this ending, less the ending.

    Raises:
        UserError: if one folder has a case that the other lacks, or there is none at all.
    """
    predicted, expected = (
        sorted(path.name[: -len(ending)] for path in files_in(folder, ending)) for folder in (predictions, references)
    )
    lacking = {predictions: set(expected) - set(predicted), references: set(predicted) - set(expected)}
    problems = [f"{some_of(names)} missing in {folder}" for folder, names in lacking.items() if names]
    unused = _unused(lacking, ending)
    remedy = (
        f"{'; '.join([*unused, ''])}bring all label maps to the ending '{ending}', capitals count" if unused else ""
    )
    if not (predicted or expected):
        nothing = f"neither {predictions} nor {references} holds a file that ends in '{ending}'"
        raise UserError("; ".join([nothing, *([remedy] if remedy else [])]))
    alike = set.intersection(*({unicodedata.normalize("NFC", name) for name in names} for names in lacking.values()))
    if alike:
        remedy = f"the accents of {some_of(alike)} are stored in two ways (NFC, NFD of macOS); rename one of the two"
    if problems or unused:
        told = "; ".join([*problems, remedy or "add them, or take the others out"])
        raise UserError(f"the folders do not hold the same '*{ending}' cases: {told}")
    return predicted


def _unused(lacking: dict[Path, set[str]], ending: str) -> list[str]:
    """What each of the two folders holds of a case that is missing there, or that both hold, under another ending."""
    others = {folder: _otherwise_named(folder, ending) for folder in lacking}
    in_both = set.intersection(*map(set, others.values()))
    names = {
        folder: [file for case, file in found.items() if case in lacking[folder] | in_both]
        for folder, found in others.items()
    }
    return [f"{folder} holds {some_of(files)}" for folder, files in names.items() if files]


def _otherwise_named(folder: Path, ending: str) -> dict[str, str]:
    """Name without ending to name, of what may be a label map but has another ending than those that are read."""
    found = {}
    for path in folder.iterdir():
        known = ending_of(path)
        if known and not is_hidden(path) and not (path.name.endswith(ending) and path.is_file()):
            found[path.name[: -len(known)]] = path.name
    return found


def read_pair(source: EvaluationInput, case: str) -> tuple[Any, Any, Geometry | None]:
    """Prediction and reference of a case and their common geometry.

    Raises:
        UserError: if they lie differently in space, or hold values that the labels do not name.
    """
    prediction, predicted_geometry = read_labels(source.prediction(case), source.format)
    reference, geometry = read_labels(source.reference(case), source.format)
    if prediction.shape != reference.shape:
        shapes = f"shape {prediction.shape} of the prediction differs from the reference's {reference.shape}"
        raise UserError(f"{case}: {shapes}; {REGRID}")
    if aspect := difference_of(predicted_geometry, geometry):
        mine, theirs = (_in_words(getattr(g, aspect), aspect) for g in (predicted_geometry, geometry))
        raise UserError(f"{case}: {aspect} {mine} of the prediction differs from the reference's {theirs}; {REMEDY}")
    for path, labels in ((source.reference(case), reference), (source.prediction(case), prediction)):
        if unknown := unknown_values(labels, source.scheme.known_values):
            listed = ", ".join(map(str, sorted(unknown)[:5]))
            known = ", ".join(map(str, sorted(source.scheme.known_values)))
            fault = f"holds the value(s) {listed}, which the labels do not name (known: {known})"
            raise UserError(f"{path}: {fault}; save it with these values, or name its own")
    return prediction, reference, geometry


def _in_words(values: tuple[float, ...], aspect: str) -> tuple[float, ...]:
    """Rounded, never −0.0; a spacing in the order of the array, as nnU-Net tells it."""
    rounded = tuple(round(v, 4) + 0.0 for v in values)
    return rounded[::-1] if aspect == "spacing" else rounded


def _score(source: EvaluationInput, settings: Settings, case: str) -> tuple[Units, list[CaseScore]]:
    prediction, reference, geometry = read_pair(source, case)
    maps = None
    if source.maps is not None:
        beside = prediction if source.maps.folder == source.predictions else None
        maps = read_maps(source.maps, case, source.scheme, reference.shape, beside)
    scores = score_case(case, prediction, reference, geometry, source.scheme, settings, maps)
    return Units.of(geometry, reference.ndim), scores


def _settings(tolerance: float, empty_policy: EmptyPolicy | str, distances: bool, processes: int) -> Settings:
    if not 0 <= tolerance < math.inf:
        raise UserError(f"the tolerance must be finite and not negative, it is {tolerance}")
    if processes < 1:
        raise UserError(f"at least one process is needed, not {processes}")
    try:
        return Settings(tolerance, EmptyPolicy(empty_policy), distances)
    except ValueError as e:
        known = ", ".join(p.value for p in EmptyPolicy)
        raise UserError(f"unknown policy '{empty_policy}' for empty masks; known are {known}") from e


def keep_freed_memory() -> None:
    """Let this process keep freed blocks below 1 GiB, so that the next slice finds its memory ready.

    The C library returns large blocks to the kernel when they are freed. Scoring allocates arrays of the size of a
    slice over and over, and every return costs page faults, the more so with several processes at once. Where there is
    no such setting, as outside glibc, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    if mallopt is not None:
        for parameter in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            mallopt(parameter, LARGEST)
