"""Converting a data set: check the layout, convert case by case beside the destination, move into place."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.case import Part, SourceCase, sha256_of
from nnunet_covid.raw_dataset.case_conversion import CaseConversion, source_digests
from nnunet_covid.raw_dataset.dataset_json import conversion_json, conversion_request, dataset_json
from nnunet_covid.raw_dataset.destination import (
    data_set_folder_name,
    is_environments_raw_folder,
    place_splits,
    raw_base_folder,
    refuse_number_in_use,
)
from nnunet_covid.raw_dataset.options import Options
from nnunet_covid.raw_dataset.problems import Problems, UnusableFile, some_of
from nnunet_covid.raw_dataset.recipe import Recipe
from nnunet_covid.raw_dataset.splits import Split, TrainingCase, patients_on_both_sides, splits_from_file
from nnunet_covid.raw_dataset.staging import CaseRecord, Staging
from nnunet_covid.raw_dataset.workers import map_in_processes

Tell = Callable[[str], None]
"""How the conversion speaks to the user."""


def convert_data_set(
    recipe: Recipe,
    source: Path,
    *,
    options: Options | None = None,
    number: int | None = None,
    output: Path | None = None,
    workers: int = 1,
    tell: Tell = print,
) -> Path:
    """Convert a public data set to an nnU-Net raw data set.

    Running it twice is safe: a finished conversion is recognised and left alone, an interrupted one goes on.

    Args:
        recipe: What is particular to this data set.
        source: Folder into which the data set was unpacked; never written to.
        options: How to change the cases on the way; the data set's own defaults if not given.
        number: nnU-Net data set number; the data set's own default if not given.
        output: Folder for raw data sets; ``nnUNet_raw`` of the environment if not given.
        workers: Number of processes.
        tell: Receives each message for the user.

    Returns:
        The folder of the raw data set.

    Raises:
        UserError: If anything in the source cannot be used or the destination is taken.
    """
    options = options or recipe.defaults
    recipe.check(options)
    name = data_set_folder_name(recipe.info.number if number is None else number, recipe.info.name)
    folder = raw_base_folder(output) / name
    use_environment = is_environments_raw_folder(folder.parent)
    refuse_number_in_use(folder, search_environment=use_environment)

    problems = Problems(source)
    cases = recipe.find_cases(source, problems)
    _refuse_equal_names(cases, problems)
    problems.raise_if_any()
    if not options.unlabelled:
        cases = [case for case in cases if case.part is not Part.UNLABELLED]
    if options.splits is not None:
        _check_splits(options.splits, cases)

    request = conversion_request(recipe, options)
    if folder.is_dir() and any(folder.iterdir()):
        _require_same_conversion(folder, request, cases, source)
        tell(f"{folder} already holds this conversion, nothing to do")
    else:
        records, splits = _convert_into(folder, recipe, options, request, cases, source, workers)
        for line in (*_report(folder, records), *_notes_on_folds(_training_cases(records), splits)):
            tell(line)
    if message := place_splits(folder, use_environment=use_environment):
        tell(f"note: {message}")
    return folder


def _refuse_equal_names(cases: Sequence[SourceCase], problems: Problems) -> None:
    first: dict[str, SourceCase] = {}
    for case in cases:
        key = case.name.lower()  # file systems that ignore case would merge them
        if key in first:
            reason = f"would become the case {case.name}, as {first[key].image.name} does; rename one of them"
            problems.add(case.image, reason)
        first.setdefault(key, case)


def _check_splits(path: Path, cases: Sequence[SourceCase]) -> None:
    """What is wrong with the user's folds is told before the work, not after it."""
    training = [TrainingCase(case.name, case.group, (case.name,)) for case in cases if case.part is Part.TRAINING]
    splits_from_file(path, training)


def _convert_into(
    folder: Path,
    recipe: Recipe,
    options: Options,
    request: dict[str, Any],
    cases: Sequence[SourceCase],
    source: Path,
    workers: int,
) -> tuple[list[CaseRecord], list[Split]]:
    try:
        staging = Staging(folder, request)
    except OSError as e:
        raise UserError(f"cannot write {folder} ({e.strerror}); name a folder of yours with -o or nnUNet_raw") from e
    _forget_changed(staging, cases, source)
    convert_case = CaseConversion(recipe, options, source, staging.folder)
    missing = [case for case in cases if case.name not in staging.records]
    problems = Problems(source)
    progress = tqdm(total=len(cases), initial=len(staging.records), desc=folder.name, unit="case", disable=None)
    try:
        with progress:
            for result in map_in_processes(convert_case, missing, workers):
                if isinstance(result, UnusableFile):
                    problems.add(result.path, result.reason)
                else:
                    staging.add(result)
                progress.update()
        problems.raise_if_any()
        records = list(staging.records.values())
        splits = _finish(staging, recipe, options, request, records)
    except UserError:
        staging.discard()
        raise
    except OSError as e:
        message = f"{e.filename or folder}: {e.strerror or e}; put this right and run the same command to go on"
        raise UserError(message) from e
    return records, splits


def _forget_changed(staging: Staging, cases: Sequence[SourceCase], source: Path) -> None:
    by_name = {case.name: case for case in cases}
    for name, record in list(staging.records.items()):
        case = by_name.get(name)
        if case is None or case.group != record.patient or source_digests(case, source) != record.sources:
            staging.forget(name)


def _training_cases(records: Sequence[CaseRecord]) -> list[TrainingCase]:
    return [
        TrainingCase(record.case, record.patient, tuple(record.outputs))
        for record in records
        if record.part == Part.TRAINING.value
    ]


def _finish(
    staging: Staging, recipe: Recipe, options: Options, request: dict[str, Any], records: list[CaseRecord]
) -> list[Split]:
    training = _training_cases(records)
    documents: dict[str, Any] = {
        "dataset.json": dataset_json(recipe, options, sum(len(case.outputs) for case in training)),
        "conversion.json": conversion_json(request, records),
    }
    splits = splits_from_file(options.splits, training) if options.splits else recipe.split(training)
    if splits:
        documents["splits_final.json"] = splits
    staging.finish(documents, folders=(Part.TRAINING.value, Part.TRAINING.label_folder) if training else ())
    return splits


def _require_same_conversion(folder: Path, request: dict[str, Any], cases: Sequence[SourceCase], source: Path) -> None:
    remedy = "delete it to convert again, or choose another number with -d"
    try:
        existing = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))
        records = {entry["case"]: CaseRecord(**entry) for entry in existing.pop("cases")}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} exists and is no finished conversion of ours; {remedy}") from None
    if existing != request:
        raise UserError(f"{folder} holds another data set or was converted with other options; {remedy}")
    if {case.name: source_digests(case, source) for case in cases} != {c: r.sources for c, r in records.items()}:
        raise UserError(f"{folder} was converted from other source files; {remedy}")
    if changed := [case.name for case in cases if case.group != records[case.name].patient]:
        raise UserError(f"{folder} was converted with other patients for {some_of(changed)}; {remedy}")
    for record in records.values():
        for file, digest in record.files().items():
            if not (folder / file).is_file() or sha256_of(folder / file) != digest:
                raise UserError(f"{folder / file} was changed or removed after the conversion; {remedy}")


def _report(folder: Path, records: Sequence[CaseRecord]) -> Iterator[str]:
    for record in records:
        for value, mean in record.notes.get("mean_hu", {}).items():
            yield f"{record.case}: mean {mean:g} HU inside label {value}"
        if not record.outputs:
            yield f"note: {record.case} has no slice of the kind asked for"
    counts = {part: sum(len(r.outputs) for r in records if r.part == part.value) for part in Part}
    words = {Part.TRAINING: "training", Part.TEST: "test", Part.UNLABELLED: "unlabelled"}
    listed = ", ".join(f"{count} {words[part]}" for part, count in counts.items() if count)
    yield f"{folder}: {listed} cases"
    methods = Counter(r.notes["lung_mask"] for r in records if "lung_mask" in r.notes)
    if methods:
        yield "lung masks: " + ", ".join(f"{count} by {method}" for method, count in sorted(methods.items()))


def _notes_on_folds(cases: Sequence[TrainingCase], splits: Sequence[Split]) -> Iterator[str]:
    patients = {case.patient for case in cases if case.outputs}
    if patients and not splits:
        count = "one patient is" if len(patients) == 1 else f"{len(patients)} patients are"
        yield f"note: {count} too few for folds that do not leak, none were written; train fold 'all'"
    for index, split in enumerate(splits):
        if on_both := patients_on_both_sides(split, cases):
            yield f"note: fold {index} has patients {some_of(on_both)} in train and in val; its score will be too good"
