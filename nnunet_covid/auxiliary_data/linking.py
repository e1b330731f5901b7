"""Making and removing links: reading what is to be linked, pre-processing it with the COVID plans, entering it.

A data set of another disease or a folder of unlabelled images is read and checked before any of it is touched; each
finished source is recorded at once, so that an interrupted link goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.experiment_planning.plans_for_pretraining.move_plans_between_datasets import move_plans_between_datasets
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.links import (
    Link,
    LinkedCases,
    PlannedDataset,
    made_as_file,
    read_links,
    write_links,
)
from nnunet_covid.dataset_json import foreground_values, lesion_values
from nnunet_covid.disturbances import alone, full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.files import read_json, remove_abandoned, writable_folder, write_json
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import RawDataset, check_header, open_raw_dataset, read_images, refuse_slices_in_3d
from nnunet_covid.nnunet.preprocess import VOXELS, Preprocessing, is_current, preprocess_cases

SEED = 12345
"""Of the draw where not all unlabelled images are taken."""


@dataclass(frozen=True)
class Source:
    """Images that are to be linked, read and checked.

    Attributes:
        name: The data set's name, or the folder of the unlabelled images.
        cases: Their files.
        lesions: Label values that count as lesion; empty for unlabelled images.
    """

    name: str
    cases: tuple[CaseFiles, ...]
    lesions: tuple[int, ...] = ()


def read_sources(
    covid: PlannedDataset,
    others: Sequence[str],
    lesion_names: Sequence[str] = (),
    unlabelled: Path | None = None,
    at_most: int | None = None,
) -> list[Source]:
    """Everything that is to be linked, checked before any of it is touched.

    Args:
        covid: What it is linked to.
        others: Numbers or names of data sets of other diseases.
        lesion_names: Their labels that are lesions; none given means all but organs by their names, such as ``liver``.
        unlabelled: A folder of images named as nnU-Net names them.
        at_most: Keep this many of these, drawn at random.

    Raises:
        UserError: If one of them cannot be linked.
    """
    sources = [_labelled_source(covid, open_raw_dataset(other), lesion_names) for other in others]
    if unlabelled is not None:
        sources.append(_unlabelled_source(covid, unlabelled, at_most))
    for path in (path for source in sources for case in source.cases for path in case.all_files):
        check_header(path)
    return sources


def _labelled_source(covid: PlannedDataset, dataset: RawDataset, lesion_names: Sequence[str]) -> Source:
    lesions = _lesion_values(dataset, lesion_names)
    _check_fits(covid, dataset)
    _check_has_lesion(dataset, lesions)
    return Source(dataset.name, tuple(dataset.cases.values()), lesions)


def _lesion_values(dataset: RawDataset, wanted: Sequence[str]) -> tuple[int, ...]:
    offered = foreground_values(dataset.dataset_json["labels"])
    usual = lesion_values(dataset.dataset_json["labels"])
    chosen = [values for name, values in offered.items() if name in (wanted or usual)]
    lesions = {value for values in chosen for value in values} - {0}
    if not lesions:
        known = ", ".join(offered) or "none but background"
        asked = f"none of the labels {', '.join(wanted)}" if wanted else "no label that could be a lesion"
        file = dataset.folder / "dataset.json"
        message = f"{file} has {asked} (it has: {known}); link another data set, or name its lesion labels"
        raise UserError(message, about="lesions")
    return tuple(sorted(lesions))


def _check_fits(covid: PlannedDataset, dataset: RawDataset) -> None:
    if dataset.name == covid.name:
        return  # a data set may stand for other diseases to itself, to try things out
    if dataset.channels != covid.channels:
        raise UserError(
            f"{dataset.name} has {dataset.channels} channels, {covid.name} has {covid.channels}: "
            "convert it with the same channels, or link another data set"
        )
    slices = covid.plans.plans["original_median_shape_after_transp"][0] == 1
    first = next(iter(dataset.cases.values()))
    if (read_images(dataset.reader, first.files)[0].shape[1] == 1) != slices:
        kinds = ("slices", "volumes") if slices else ("volumes", "slices")
        raise UserError(
            f"{covid.name} holds {kinds[0]}, so its plans are for those, but {dataset.name} holds {kinds[1]}: "
            f"convert it to {kinds[0]}"
        )


def _check_has_lesion(dataset: RawDataset, lesions: tuple[int, ...]) -> None:
    for case in dataset.cases.values():
        if case.label is not None and np.isin(dataset.read_labels(case.label)[0], lesions).any():
            return
    values = ", ".join(map(str, lesions))
    raise UserError(
        f"{dataset.name} has no lesion: none of its {len(dataset.cases)} label maps holds the value {values}; "
        "link a data set with lesions"
    )


def _unlabelled_source(covid: PlannedDataset, folder: Path, at_most: int | None) -> Source:
    ending = covid.dataset_json["file_ending"]
    cases = {case.name: case for case in list_cases(folder, ending, covid.channels, one_file_may_hold_all=False)}
    names = sorted(cases)
    if at_most is not None and at_most < len(names):
        names = sorted(np.random.RandomState(SEED).choice(names, at_most, replace=False).tolist())
    return Source(str(folder.resolve()), tuple(cases[name] for name in names))


def chosen_configurations(covid: PlannedDataset, wanted: Sequence[str]) -> list[str]:
    """The configurations asked for, else all whose data are pre-processed, each kind of data once.

    Raises:
        UserError: If one does not exist or is not pre-processed.
    """
    known = _known_configurations(covid, wanted)
    for name in wanted:
        if not covid.data(name).is_dir():
            command = f"nnUNetv2_preprocess -d {covid.name[7:10]} -plans_name {covid.plans_name} -c {name}"
            raise UserError(f"{covid.data(name)} does not exist; run {command}")
    chosen = list(wanted) or [name for name in known if covid.data(name).is_dir()]
    if not chosen:
        raise UserError(f"{covid.folder} holds no pre-processed data; run nnUNetv2_preprocess -d {covid.name[7:10]}")
    return list({covid.identifier(name): name for name in reversed(chosen)}.values())[::-1]


def _known_configurations(covid: PlannedDataset, wanted: Sequence[str]) -> list[str]:
    """Those of the plans, among which the wanted ones must be."""
    known = list(covid.plans.available_configurations)
    for name in wanted:
        if name not in known:
            raise UserError(f"{covid.plans_name} has no configuration {name!r}; it has {', '.join(known)}")
    return known


def linked_plans_name(covid: PlannedDataset) -> str:
    """Name of the COVID plans in the folder of another data set; nobody else's plans have it."""
    return f"{covid.plans_name}_from_{covid.name}"


def make_link(
    covid: PlannedDataset,
    configurations: Sequence[str],
    sources: Sequence[Source],
    processes: int = 1,
) -> None:
    """Pre-process what is to be linked and record it; what is there already is kept.

    Raises:
        UserError: If unlabelled slices are to be linked to a configuration that works in 3D.
    """
    for configuration in configurations:
        for source in sources:
            if not source.lesions:
                refuse_slices_in_3d(source.cases[0], covid.plans, configuration)
    writable_folder(covid.folder)
    with full_disk_told(covid.folder), _alone(covid):
        for configuration in configurations:
            for source in sources:
                _forget_another_folder(covid, configuration, source)
                _record(covid, configuration, _preprocessed(covid, configuration, source, processes))


def _alone(covid: PlannedDataset) -> AbstractContextManager[None]:
    lock = covid.folder / f".{covid.record.name}.lock"
    return alone(lock, f"the links of {covid.name}", "link to another data set")


def _preprocessed(covid: PlannedDataset, configuration: str, source: Source, processes: int) -> LinkedCases:
    """Bring the folder of a source up to date; what was pre-processed in another way is made anew."""
    folder, plans = _home(covid, configuration, source)
    made_as = {"digest": covid.digest(configuration), "lesions": list(source.lesions), "properties": [VOXELS]}
    if folder.exists() and read_json(made_as_file(folder)) != made_as:
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_json(made_as_file(folder), made_as, indent=None)
    remove_abandoned(folder, age=0)
    remaining = {folder / case.name: case for case in source.cases if not is_current(folder / case.name, case)}
    how = Preprocessing(plans, configuration, source.lesions)
    shown = f"{Path(source.name).name}, {configuration}"
    preprocess_cases(remaining, how, processes, shown=shown, already=len(source.cases) - len(remaining))
    names = tuple(case.name for case in source.cases)
    found = 0
    if source.lesions:
        locations = (load_pickle(str(folder / f"{name}.pkl"))["class_locations"] for name in names)
        found = sum(len(where.get(1, ())) > 0 for where in locations)
    return LinkedCases(source.name, folder.relative_to(covid.folder.parent).as_posix(), names, found, source.lesions)


def _forget_another_folder(covid: PlannedDataset, configuration: str, source: Source) -> None:
    """Unlabelled images of another folder are linked no more once the new ones may take their files' places."""
    links, identifier = read_links(covid.record), covid.identifier(configuration)
    link = links.get(identifier)
    if not source.lesions and link is not None and link.unlabelled and link.unlabelled.name != source.name:
        write_links(covid.record, {**links, identifier: replace(link, unlabelled=None)})


def _home(covid: PlannedDataset, configuration: str, source: Source) -> tuple[Path, dict[str, Any]]:
    """Where the cases go, and the COVID plans with the reader of their files."""
    if not source.lesions:
        return covid.folder / f"{covid.identifier(configuration)}_unlabelled", covid.plans.plans
    home = covid.folder.parent / source.name
    home.mkdir(exist_ok=True)
    plans_name = linked_plans_name(covid)
    move_plans_between_datasets(covid.name, source.name, covid.plans_name, plans_name)
    plans = json.loads((home / f"{plans_name}.json").read_text(encoding="utf-8"))
    return home / PlansManager(plans).get_configuration(configuration).data_identifier, plans


def _record(covid: PlannedDataset, configuration: str, cases: LinkedCases) -> None:
    """Enter a source into the record; those of links that no longer fit the plans are dropped."""
    links = read_links(covid.record)
    digest = covid.digest(configuration)
    dimensions = len(covid.plans.get_configuration(configuration).patch_size)
    link = links.get(covid.identifier(configuration))
    if link is None or link.digest != digest:
        link = Link(configuration, dimensions, digest)
    if cases.lesions:
        link = replace(link, others=(*(old for old in link.others if old.name != cases.name), cases))
    else:
        link = replace(link, unlabelled=cases)
    write_links(covid.record, {**links, covid.identifier(configuration): link})


def remove_links(covid: PlannedDataset, configurations: Sequence[str] = (), sources: Sequence[str] = ()) -> list[str]:
    """Take links out of the record and delete the data that were pre-processed for them.

    Args:
        configurations: Only of these; none given means all.
        sources: Only these data sets, and folders of unlabelled images; none given means all.

    Returns:
        The folders that were deleted, relative to ``nnUNet_preprocessed``.

    Raises:
        UserError: If one of the configurations does not exist.
    """
    _known_configurations(covid, configurations)
    with _alone(covid):
        return _removed(covid, configurations, sources)


def _removed(covid: PlannedDataset, configurations: Sequence[str], sources: Sequence[str]) -> list[str]:
    links = read_links(covid.record)
    wanted = {covid.identifier(name) for name in configurations} or set(links)
    removed: list[str] = []
    for identifier in wanted & set(links):
        link = links.pop(identifier)
        held = [*link.others, *([link.unlabelled] if link.unlabelled else [])]
        gone = [cases for cases in held if not sources or cases.name in sources]
        others = tuple(other for other in link.others if other not in gone)
        left = replace(link, others=others, unlabelled=None if link.unlabelled in gone else link.unlabelled)
        removed += [cases.folder for cases in gone]
        if left.others or left.unlabelled:
            links[identifier] = left
    write_links(covid.record, links)
    for relative in removed:
        folder = covid.folder.parent / relative
        made_as_file(folder).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    used = {Path(other.folder).parts[0] for link in links.values() for other in link.others}
    for home in {Path(relative).parts[0] for relative in removed} - used:
        folder = covid.folder.parent / home
        (folder / f"{linked_plans_name(covid)}.json").unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return sorted(removed)
