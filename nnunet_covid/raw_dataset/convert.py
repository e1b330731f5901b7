"""Converting a data set: check the layout, convert case by case beside the destination, move into place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import GREY, Split
from nnunet_covid.disturbances import FULL, alone, full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.files import lock_of, read_json, sha256_of, some_of
from nnunet_covid.geometry import Turn
from nnunet_covid.label_maps import listed_values, values_like_labels
from nnunet_covid.lung_mask import automatic_method
from nnunet_covid.raw_dataset.case_folders import leave_out_unused
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.destination import (
    CaseRecord,
    Staging,
    dataset_folder_name,
    is_environments_raw_folder,
    place_splits,
    raw_base_folder,
    refuse_number_in_use,
)
from nnunet_covid.raw_dataset.grey_scale import GreyScale, grey_scale_of, odd_ones, span_of
from nnunet_covid.raw_dataset.images import check_headers, notes_on_sides, with_lungs, write_image
from nnunet_covid.raw_dataset.names import fault_of
from nnunet_covid.raw_dataset.recipe import Options, Part, Recipe, SourceCase
from nnunet_covid.raw_dataset.scan import Scan, crop_around_lungs, extract_slices, plane_of, to_8_bit
from nnunet_covid.raw_dataset.source import Problems, UnusableFile, relative_name
from nnunet_covid.raw_dataset.splits import TrainingCase, patients_on_both_sides, splits_from_file
from nnunet_covid.shared_work import map_in_processes

Tell = Callable[[str], None]
"""How the conversion speaks to the user."""

REMEDY = "delete it to convert again, or choose another number"


def convert_dataset(
    recipe: Recipe,
    source: Path,
    *,
    options: Options | None = None,
    number: int | None = None,
    output: Path | None = None,
    workers: int = 1,
    tell: Tell = print,
) -> Path:
    """Convert a data set to an nnU-Net raw data set.

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
    folder = checked_destination(recipe, options, number, output)
    cases = _checked_cases(recipe, options, source, tell)
    request = recipe.request(options)
    if folder.is_dir() and any(folder.iterdir()):
        _require_same_conversion(folder, request, cases, source)
        tell(f"{folder} already holds this conversion, nothing to do")
    else:
        conversion = _Conversion(folder, recipe, options, request, source, cases)
        records, splits = conversion.run(workers)
        for line in (*_report(folder, records), *_notes_on_folds(_training_cases(records), splits)):
            tell(line)
    if message := place_splits(folder, use_environment=is_environments_raw_folder(folder.parent)):
        tell(f"note: {message}")
    return folder


def checked_destination(
    recipe: Recipe, options: Options | None = None, number: int | None = None, output: Path | None = None
) -> Path:
    """The folder of the raw data set, before anything of the source is read; arguments as of :func:`convert_dataset`.

    Raises:
        UserError: If the options make no sense for the data set, or its number or name cannot be had.
    """
    recipe.check(options or recipe.defaults)
    name = dataset_folder_name(recipe.info.number if number is None else number, recipe.info.name)
    folder = raw_base_folder(output) / name
    refuse_number_in_use(folder, search_environment=is_environments_raw_folder(folder.parent))
    return folder


def _checked_cases(recipe: Recipe, options: Options, source: Path, tell: Tell) -> list[SourceCase]:
    """The cases that are to be converted; what can be seen without reading whole images is checked."""
    problems = Problems(source)
    cases = recipe.find_cases(source, problems)
    if recipe.check_headers:
        check_headers(cases, problems)
    first: dict[str, SourceCase] = {}
    for case in cases:
        if fault := fault_of(case.name):
            problems.add(case.image, fault)
            continue
        other = first.setdefault(case.name.lower(), case)  # file systems that ignore case would merge them
        if other is not case:
            problems.add(
                case.image, f"would become the case {case.name}, as {other.image.name} does; rename one of them"
            )
    problems.raise_if_any()
    leave_out_unused(cases, problems)
    for note in (*problems.notes(), *notes_on_sides(cases, source)):
        tell(note)
    if not options.unlabelled:
        cases = [case for case in cases if case.part is not Part.UNLABELLED]
    if options.splits is not None:
        training = [TrainingCase(case.name, case.group, (case.name,)) for case in cases if case.part is Part.TRAINING]
        splits_from_file(options.splits, training)
    return cases


@dataclass(frozen=True)
class _Conversion:
    """One conversion whose source has been checked and whose destination is free."""

    folder: Path
    recipe: Recipe
    options: Options
    request: dict[str, Any]
    source: Path
    cases: Sequence[SourceCase]

    def run(self, workers: int) -> tuple[list[CaseRecord], list[Split]]:
        """Convert what an interrupted run has not left, and move everything into place.

        Raises:
            UserError: If files cannot be used, or nothing can be written.
        """
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock = alone(lock_of(self.folder), str(self.folder), "name another output")
            with full_disk_told(self.folder.parent), lock:
                if self.folder.is_dir() and any(self.folder.iterdir()):
                    raise UserError(f"another process has just written {self.folder}; run the same command again")
                return self._run(Staging(self.folder, self.request), workers)
        except OSError as e:
            reason = "Not a directory" if isinstance(e, FileExistsError) else e.strerror
            message = f"cannot write {self.folder} ({reason}); name a folder of yours, or set nnUNet_raw"
            raise UserError(message, about="output") from e

    def _run(self, staging: Staging, workers: int) -> tuple[list[CaseRecord], list[Split]]:
        try:
            self._forget_changed(staging)
            self._convert_missing(staging, workers)
            return list(staging.records.values()), self._finish(staging)
        except UserError as e:
            if not isinstance(e.__cause__, BrokenProcessPool):  # after which another run goes on
                staging.discard()
            raise
        except OSError as e:
            if e.errno in FULL:
                raise
            reason = f"{e.filename or self.folder}: {e.strerror or e}"
            raise UserError(f"{reason}; put this right and run the same command to go on") from e

    def _forget_changed(self, staging: Staging) -> None:
        by_name = {case.name: case for case in self.cases}
        for name, record in list(staging.records.items()):
            case = by_name.get(name)
            as_now = case and (case.group, case.part.value, case.digests(self.source))
            if as_now != (record.patient, record.part, record.sources) or self._has_other_lungs(record):
                staging.forget(name)

    def _has_other_lungs(self, record: CaseRecord) -> bool:
        """Whether the lung mask of a case was made by another method than it would be now."""
        options, method = self.options, record.notes.get("lung_mask", "data set")
        if options.lung_method != "auto" or method == "data set":
            return False
        return not method.startswith(automatic_method(options.lung_model, options.lung_weights))

    def _convert_missing(self, staging: Staging, workers: int) -> None:
        scheme = self.recipe.scheme(self.options)
        recipe = self.recipe
        how = (recipe.read, scheme, recipe.file_ending)
        work = CaseConversion(*how, self.options, self.source, staging.folder)
        missing = [case for case in self.cases if case.name not in staging.records]
        problems = Problems(self.source)
        done = len(staging.records)
        with tqdm(total=len(self.cases), initial=done, desc=self.folder.name, unit="case", disable=None) as progress:
            for result in map_in_processes(work, missing, workers):
                if isinstance(result, UnusableFile):
                    problems.add(result.path, result.reason)
                else:
                    staging.add(result)
                progress.update()
        problems.raise_if_any()
        self._refuse_mixed_scales(staging)

    def _refuse_mixed_scales(self, staging: Staging) -> None:
        images = {case.name: relative_name(case.image, self.source) for case in self.cases}
        values = {images[case]: record.notes.get("values") for case, record in staging.records.items()}
        scales = {image: GreyScale(value) for image, value in values.items() if value}
        if odd := odd_ones(scales):
            raise UserError(f"{self.source} holds {odd[1]}")

    def _finish(self, staging: Staging) -> list[Split]:
        records = sorted(staging.records.values(), key=lambda record: (record.part, record.case))
        training = _training_cases(records)
        count = sum(len(case.outputs) for case in training)
        documents: dict[str, Any] = {
            "dataset.json": self.recipe.dataset_json(self.options, count, self._channel(records)),
            "conversion.json": {**self.request, "cases": [asdict(record) for record in records]},
        }
        own = self.options.splits
        splits = splits_from_file(own, training) if own else self.recipe.split(training)
        if splits:
            documents["splits_final.json"] = splits
        staging.finish(documents, folders=(Part.TRAINING.value, Part.TRAINING.label_folder) if training else ())
        return splits

    def _channel(self, records: Sequence[CaseRecord]) -> str:
        """nnU-Net's name of the first channel, which chooses the normalisation."""
        is_hu = all(record.notes.get("values") == GreyScale.HOUNSFIELD.value for record in records)
        return self.recipe.channel or ("CT" if is_hu else GREY)


@dataclass(frozen=True)
class CaseConversion:
    """Reads, changes and writes one case at a time; plain data, so that it travels to worker processes."""

    read: Callable[[SourceCase, ClassScheme], Scan]
    scheme: ClassScheme
    ending: str
    options: Options
    source: Path
    folder: Path

    def __call__(self, case: SourceCase) -> CaseRecord | UnusableFile:
        """Convert one case; a file that cannot be used is returned, not raised."""
        try:
            scan = self.read(case, self.scheme)
            _refuse_label_map(scan, case)
            marks = scan.label
            upright = Turn.upright(scan.geometry)(scan.image)
            values = grey_scale_of(upright, is_hu=scan.is_hu)
            scan = self._changed(scan, case)
            pieces = {case.name: scan} if self.options.slices is None else self._sliced(scan, case)
        except UnusableFile as e:
            return e
        unmarked = (0, self.scheme.ignore or 0)
        nothing = {"nothing_marked": True} if marks is not None and np.isin(marks, unmarked).all() else {}
        return CaseRecord(
            case=case.name,
            patient=case.group,
            part=case.part.value,
            sources=case.digests(self.source),
            outputs={name: self._write(name, case.part, piece) for name, piece in pieces.items()},
            notes={**scan.notes, "values": values.value, **nothing},
        )

    def _sliced(self, scan: Scan, case: SourceCase) -> dict[str, Scan]:
        assert self.options.slices is not None
        if plane := plane_of(scan):
            raise UnusableFile(case.image, f"is a single {plane} slice, of which no slices can be cut; ask for none")
        return extract_slices(scan, case.name, self.options.slices, self.scheme.lesions)

    def _changed(self, scan: Scan, case: SourceCase) -> Scan:
        """Lung mask first, while the values are still what the scanner measured; then window and crop."""
        options = self.options
        if options.lung_mask_channel or options.crop is not None:
            method, model, weights = options.lung_method, options.lung_model, options.lung_weights
            scan = with_lungs(scan, case.image, method=method, model=model, weights=weights)
            scan = self._checked_lungs(scan, case)
        if options.window is not None and not scan.is_hu:
            raise UnusableFile(case.image, f"holds {span_of(scan.image)}; leave the window out, or take the image out")
        if options.window is not None:
            scan = replace(scan, image=to_8_bit(scan.image, *options.window), is_hu=False)
        if options.crop is not None:
            scan = crop_around_lungs(scan, *options.crop)
        return scan

    def _checked_lungs(self, scan: Scan, case: SourceCase) -> Scan:
        if scan.lungs is None or scan.lungs.any():
            return scan
        if scan.image.ndim == 2 or not case.shows_lungs or case.lungs is not None:
            return replace(scan, notes={**scan.notes, "no_lungs": True})
        reason = f"no lungs are found in it, on which crop and lung mask channel depend; it holds {span_of(scan.image)}"
        raise UnusableFile(case.image, f"{reason}: export it in Hounsfield units, give its lung mask, or take it out")

    def _write(self, name: str, part: Part, scan: Scan) -> dict[str, str]:
        """Write the image, the lung mask as second channel if asked for, and the labels; file name to SHA-256."""
        ending = self.ending
        arrays: dict[str, NDArray[Any]] = {f"{part.value}/{name}_0000{ending}": scan.image}
        if self.options.lung_mask_channel:
            assert scan.lungs is not None
            arrays[f"{part.value}/{name}_0001{ending}"] = scan.lungs.astype(np.uint8)
        if scan.label is not None and part is not Part.UNLABELLED:
            arrays[f"{part.label_folder}/{name}{ending}"] = scan.label
        for file, array in arrays.items():
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_image(self.folder / file, array, scan.geometry)
        return {file: sha256_of(self.folder / file) for file in arrays}


def _refuse_label_map(scan: Scan, case: SourceCase) -> None:
    """An image that belongs to no mask may be a mask whose name was not understood."""
    if case.mask is None and (values := values_like_labels(scan.image)):
        reason = f"holds the values {listed_values(values)} alone, as a mask does; name it as the mask of its image"
        raise UnusableFile(case.image, f"{reason}, NAME_mask, or take it out")


def _training_cases(records: Sequence[CaseRecord]) -> list[TrainingCase]:
    return [
        TrainingCase(record.case, record.patient, tuple(record.outputs))
        for record in records
        if record.part == Part.TRAINING.value
    ]


def _require_same_conversion(folder: Path, request: dict[str, Any], cases: Sequence[SourceCase], source: Path) -> None:
    def refuse(what: str) -> UserError:
        return UserError(f"{what}; {REMEDY}", about="number")

    try:
        existing = read_json(folder / "conversion.json") or {}
        records = {entry["case"]: CaseRecord(**entry) for entry in existing.pop("cases")}
    except (ValueError, KeyError, TypeError):
        raise refuse(f"{folder} exists and is no finished conversion of ours") from None
    if existing != request:
        raise refuse(f"{folder} holds another data set or was converted with other options")
    now = {case.name: case.digests(source) for case in cases}
    before = {name: record.sources for name, record in records.items()}
    if now != before:
        both = [(now[name], before[name]) for name in now.keys() & before.keys()]
        changed = [new[role]["file"] for new, old in both for role in new if old.get(role) != new[role]]
        names = some_of({*changed, *(now.keys() ^ before.keys())})
        raise refuse(f"{folder} was converted from other source files ({names})")
    if changed := [case.name for case in cases if case.group != records[case.name].patient]:
        raise refuse(f"{folder} was converted with other patients for {some_of(changed)}")
    for record in records.values():
        if file := record.first_changed_file(folder):
            raise refuse(f"{file} was changed or removed after the conversion")


def _report(folder: Path, records: Sequence[CaseRecord]) -> Iterator[str]:
    for record in records:
        for value, mean in record.notes.get("mean_hu", {}).items():
            yield f"{record.case}: mean {mean:g} HU inside label {value}"
        if not record.outputs:
            yield f"note: {record.case} has no slice of the kind asked for"
    counts = {part: sum(len(r.outputs) for r in records if r.part == part.value) for part in Part}
    listed = ", ".join(f"{count} {part.name.lower()}" for part, count in counts.items() if count)
    yield f"{folder}: {listed} cases"
    methods = Counter(r.notes["lung_mask"] for r in records if "lung_mask" in r.notes)
    if methods:
        yield "lung masks: " + ", ".join(f"{count} by {method}" for method, count in sorted(methods.items()))
    if without := [r.case for r in records if "no_lungs" in r.notes]:
        yield f"note: no lungs were found in {some_of(without)}; look at these cases with nnunet-covid lung-mask"
    training = [r for r in records if r.part == Part.TRAINING.value]
    if nothing := [r.case for r in training if "nothing_marked" in r.notes]:
        if len(nothing) == len(training):
            yield f"warning: none of the {len(nothing)} masks marks anything: are they the right files?"
        else:
            yield f"note: the masks of {some_of(nothing)} mark nothing"
    if cut := {r.case: r.notes["cut_off"] for r in records if "cut_off" in r.notes}:
        share = f"up to {max(cut.values()):.0%} of what they mark"
        yield f"note: the masks of {some_of(cut)} were cut off: {share} lies outside their image"
    if blank := [r.case for r in records if "blank_header" in r.notes]:
        yield f"note: the masks of {some_of(blank)} have a blank header and were taken to lie on their image's grid"


def _notes_on_folds(cases: Sequence[TrainingCase], splits: Sequence[Split]) -> Iterator[str]:
    patients = {case.patient for case in cases if case.outputs}
    if patients and not splits:
        count = "one patient is" if len(patients) == 1 else f"{len(patients)} patients are"
        yield f"note: {count} too few for folds that do not leak, none were written; train fold 'all'"
    named = {name for split in splits for names in split.values() for name in names}
    if splits and (unused := [name for case in cases for name in case.outputs if name not in named]):
        yield f"note: no fold has {some_of(unused)}; nnU-Net would not use them"
    for index, split in enumerate(splits):
        if on_both := patients_on_both_sides(split, cases):
            yield f"note: fold {index} has patients {some_of(on_both)} in train and in val; its score will be too good"
