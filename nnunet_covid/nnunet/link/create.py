"""Making and removing links."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.errors import UserError
from nnunet_covid.files import write_text
from nnunet_covid.nnunet.link.digest import preprocessing_digest
from nnunet_covid.nnunet.link.preprocess import SourceFiles, count_cases_with_lesion, preprocess_cases
from nnunet_covid.nnunet.link.record import Link, LinkedCases, read_links, record_file, write_links
from nnunet_covid.nnunet.link.sources import (
    RawDataSet,
    check_lesions,
    data_set_name,
    folder_of,
    holds_slices,
    read_raw_data_set,
    unlabelled_sources,
)
from nnunet_covid.output_folder import writable_folder

Tell = Callable[[str], None]


@dataclass(frozen=True)
class PlannedDataSet:
    """The COVID data set, planned.

    Attributes:
        name: ``DatasetNNN_Name``.
        folder: Its folder in ``nnUNet_preprocessed``.
        plans: The plans.
        dataset_json: Its dataset.json.
    """

    name: str
    folder: Path
    plans: PlansManager
    dataset_json: dict[str, Any]

    @property
    def plans_name(self) -> str:
        return str(self.plans.plans_name)

    @property
    def channels(self) -> int:
        names: dict[str, str] = self.dataset_json.get("channel_names") or self.dataset_json["modality"]
        return len(names)

    @property
    def record(self) -> Path:
        return record_file(self.folder, self.plans_name)

    def identifier(self, configuration: str) -> str:
        """Name of the folder with the data of a configuration."""
        return str(self.plans.get_configuration(configuration).data_identifier)

    def data(self, configuration: str) -> Path:
        return self.folder / self.identifier(configuration)


def open_planned(number_or_name: str, plans_name: str) -> PlannedDataSet:
    """Read plans and dataset.json.

    Raises:
        UserError: If the data set is not planned.
    """
    name = data_set_name(number_or_name)
    folder = folder_of("nnUNet_preprocessed") / name
    number = name[7:10]
    plans = folder / f"{plans_name}.json"
    if not plans.is_file():
        raise UserError(f"{plans} does not exist; run nnUNetv2_plan_and_preprocess -d {number} first, or give -p PLANS")
    dataset_json = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    return PlannedDataSet(name, folder, PlansManager(str(plans)), dataset_json)


def chosen_configurations(covid: PlannedDataSet, wanted: Sequence[str]) -> list[str]:
    """The configurations asked for, else all whose data are pre-processed, each kind of data once.

    Raises:
        UserError: If one does not exist or is not pre-processed.
    """
    known = list(covid.plans.available_configurations)
    for name in wanted:
        if name not in known:
            raise UserError(f"{covid.plans_name} has no configuration {name!r}; it has {', '.join(known)}")
        if not covid.data(name).is_dir():
            command = f"nnUNetv2_preprocess -d {covid.name[7:10]} -plans_name {covid.plans_name} -c {name}"
            raise UserError(f"{covid.data(name)} does not exist; run {command}")
    chosen = list(wanted) or [name for name in known if covid.data(name).is_dir()]
    if not chosen:
        raise UserError(f"{covid.folder} holds no pre-processed data; run nnUNetv2_preprocess -d {covid.name[7:10]}")
    return list({covid.identifier(name): name for name in reversed(chosen)}.values())[::-1]


def linked_plans_name(covid: PlannedDataSet) -> str:
    """Name of the COVID plans in the folder of another data set; nobody else's plans have it."""
    return f"{covid.plans_name}_from_{covid.name}"


def make_link(
    covid: PlannedDataSet,
    configurations: Sequence[str],
    others: Sequence[RawDataSet] = (),
    unlabelled: tuple[Path, tuple[SourceFiles, ...]] | None = None,
    *,
    processes: int = 1,
    progress: bool = True,
) -> None:
    """Pre-process what is to be linked and record it; what is there already is kept.

    Every finished source is recorded at once, so a link that was interrupted goes on where it stopped.
    """
    writable_folder(covid.folder)
    for configuration in configurations:
        for other in others:
            cases = _link_other(covid, configuration, other, processes, progress)
            _record(covid, configuration, others=(cases,))
        if unlabelled is not None:
            cases = _link_unlabelled(covid, configuration, *unlabelled, processes, progress)
            _record(covid, configuration, unlabelled=cases)


def _link_other(
    covid: PlannedDataSet, configuration: str, other: RawDataSet, processes: int, progress: bool
) -> LinkedCases:
    home = covid.folder.parent / other.name
    home.mkdir(exist_ok=True)
    plans_name = linked_plans_name(covid)
    move_plans_between_datasets(covid.name, other.name, covid.plans_name, plans_name)
    plans = json.loads((home / f"{plans_name}.json").read_text(encoding="utf-8"))
    identifier = PlansManager(plans).get_configuration(configuration).data_identifier
    return _fill(covid, configuration, home / identifier, plans, other, processes, progress)


def _link_unlabelled(
    covid: PlannedDataSet,
    configuration: str,
    source: Path,
    sources: tuple[SourceFiles, ...],
    processes: int,
    progress: bool,
) -> LinkedCases:
    folder = covid.folder / f"{covid.identifier(configuration)}_unlabelled"
    images = RawDataSet(str(source), sources, {}, "", ())
    return _fill(covid, configuration, folder, covid.plans.plans, images, processes, progress)


def _fill(
    covid: PlannedDataSet,
    configuration: str,
    folder: Path,
    plans: dict[str, Any],
    data_set: RawDataSet,
    processes: int,
    progress: bool,
) -> LinkedCases:
    """Bring one folder up to date; what was pre-processed in another way goes first."""
    made_as = {"digest": preprocessing_digest(covid.plans, configuration), "lesions": list(data_set.lesions)}
    sidecar = made_as_file(folder)
    if folder.exists() and read_made_as(folder) != made_as:
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_text(sidecar, json.dumps(made_as) + "\n")
    preprocess_cases(
        data_set.sources,
        folder,
        plans,
        configuration,
        data_set.lesions,
        processes=processes,
        shown=f"{Path(data_set.name).name}, {configuration}",
        progress=progress,
    )
    names = tuple(source.name for source in data_set.sources)
    found = count_cases_with_lesion(folder, names) if data_set.lesions else 0
    relative = folder.relative_to(covid.folder.parent).as_posix()
    return LinkedCases(data_set.name, relative, names, found, data_set.lesions)


def made_as_file(folder: Path) -> Path:
    """Beside a folder of linked cases: how they were pre-processed."""
    return folder.with_name(f"{folder.name}_link.json")


def read_made_as(folder: Path) -> dict[str, Any] | None:
    """What stands in that file; ``None`` if nothing readable does."""
    try:
        content: dict[str, Any] = json.loads(made_as_file(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content


def _record(
    covid: PlannedDataSet,
    configuration: str,
    others: tuple[LinkedCases, ...] = (),
    unlabelled: LinkedCases | None = None,
) -> None:
    """Enter sources into the record; those of links that no longer fit the plans are dropped."""
    links = read_links(covid.record)
    digest = preprocessing_digest(covid.plans, configuration)
    dimensions = len(covid.plans.get_configuration(configuration).patch_size)
    link = links.get(covid.identifier(configuration))
    if link is None or link.digest != digest:
        link = Link(configuration, dimensions, digest)
    kept = tuple(old for old in link.others if old.name not in {new.name for new in others})
    link = replace(link, others=(*kept, *others), unlabelled=unlabelled or link.unlabelled)
    write_links(covid.record, {**links, covid.identifier(configuration): link})


def remove_links(covid: PlannedDataSet, configurations: Sequence[str] = (), others: Sequence[str] = ()) -> list[str]:
    """Take links out of the record and delete the data that were pre-processed for them.

    Args:
        configurations: Only of these; none given means all.
        others: Only these data sets; none given means all, and the unlabelled images.

    Returns:
        The folders that were deleted, relative to ``nnUNet_preprocessed``.
    """
    links = read_links(covid.record)
    wanted = {covid.identifier(name) for name in configurations} or set(links)
    removed: list[str] = []
    for identifier in wanted & set(links):
        link = links.pop(identifier)
        gone = [other for other in link.others if not others or other.name in others]
        left = replace(link, others=tuple(other for other in link.others if other not in gone))
        if not others:
            gone += [link.unlabelled] if link.unlabelled else []
            left = replace(left, unlabelled=None)
        removed += [cases.folder for cases in gone]
        if left.others or left.unlabelled:
            links[identifier] = left
    write_links(covid.record, links)
    for relative in removed:
        folder = covid.folder.parent / relative
        made_as_file(folder).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    _remove_unused_plans(covid, removed, links)
    return sorted(removed)


def _remove_unused_plans(covid: PlannedDataSet, removed: list[str], links: dict[str, Link]) -> None:
    used = {Path(other.folder).parts[0] for link in links.values() for other in link.others}
    for home in {Path(relative).parts[0] for relative in removed} - used:
        folder = covid.folder.parent / home
        (folder / f"{linked_plans_name(covid)}.json").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def read_sources(
    covid: PlannedDataSet,
    others: Sequence[str],
    lesion_names: Sequence[str],
    unlabelled: Path | None,
    at_most: int | None,
) -> tuple[list[RawDataSet], tuple[Path, tuple[SourceFiles, ...]] | None]:
    """Everything that is to be linked, checked before any of it is touched.

    Raises:
        UserError: If one of them cannot be linked.
    """
    if not others and unlabelled is None:
        raise UserError("nothing to link; name data sets with -a, or a folder of images with --unlabelled")
    data_sets = [read_raw_data_set(other, lesion_names) for other in others]
    slices = covid.plans.plans["original_median_shape_after_transp"][0] == 1
    for data_set in data_sets:
        _check_fits(covid, data_set, slices)
    for data_set in data_sets:
        check_lesions(data_set)
    if unlabelled is None:
        return data_sets, None
    ending = covid.dataset_json["file_ending"]
    sources = unlabelled_sources(unlabelled, ending, covid.channels, at_most)
    return data_sets, (unlabelled.resolve(), sources)


def _check_fits(covid: PlannedDataSet, data_set: RawDataSet, slices: bool) -> None:
    if data_set.name == covid.name:
        return  # a data set may stand for other diseases to itself, to try things out
    channels = len(data_set.dataset_json.get("channel_names") or data_set.dataset_json.get("modality") or {})
    if channels != covid.channels:
        raise UserError(
            f"{data_set.name} has {channels} channels, {covid.name} has {covid.channels}: "
            "convert it with the same channels, or link another data set"
        )
    if holds_slices(data_set.sources[0], data_set.reader) != slices:
        kinds = ("slices", "volumes") if slices else ("volumes", "slices")
        remedy = "convert it with --slices" if slices else "convert it without --slices"
        raise UserError(
            f"{covid.name} holds {kinds[0]}, so its plans are for those, but {data_set.name} holds {kinds[1]}: {remedy}"
        )
