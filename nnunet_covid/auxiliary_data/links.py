"""What is linked to a planned COVID data set: the record beside its data, its check before a training, its description.

Links are made and removed in :mod:`nnunet_covid.auxiliary_data.linking`.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.dataset_json import IMAGES, channel_names, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import read_json, stays_below, write_json
from nnunet_covid.nnunet.dataset import dataset_name, nnunet_folder
from nnunet_covid.nnunet.models import read_plans
from nnunet_covid.nnunet.preprocess import Preprocessing, properties_of


@dataclass(frozen=True)
class PlannedDataset:
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
        """As behind ``nnUNetv2_train -p``."""
        return str(self.plans.plans_name)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return len(channel_names(self.dataset_json))

    @property
    def record(self) -> Path:
        """Where its links are recorded."""
        return record_file(self.folder, self.plans_name)

    def digest(self, configuration: str) -> str:
        """Changes with what decides how the plans pre-process."""
        return Preprocessing(self.plans.plans, configuration).digest()

    def identifier(self, configuration: str) -> str:
        """Name of the folder with the data of a configuration."""
        identifier = self.plans.get_configuration(configuration).data_identifier
        if not stays_below(identifier, one_name=True):  # what is in that folder may be deleted
            raise UserError(f"the plans {self.plans_name} keep data in {identifier!r}, which is no name; plan again")
        return str(identifier)

    def data(self, configuration: str) -> Path:
        """That folder."""
        return self.folder / self.identifier(configuration)


def open_planned(number_or_name: str, plans_name: str) -> PlannedDataset:
    """Read plans and dataset.json.

    Raises:
        UserError: If the data set is not planned.
    """
    name = dataset_name(number_or_name)
    folder = nnunet_folder("nnUNet_preprocessed") / name
    number = name[7:10]
    plans = folder / f"{plans_name}.json"
    if not plans.is_file():
        raise UserError(
            f"{plans} does not exist; run nnUNetv2_plan_and_preprocess -d {number} first, or name other plans"
        )
    dataset_json = read_dataset_json(folder / "dataset.json", needed=IMAGES)
    return PlannedDataset(name, folder, read_plans(plans), dataset_json)


@dataclass(frozen=True)
class LinkedCases:
    """Pre-processed cases of one source.

    Attributes:
        name: The data set's name, or the folder of the unlabelled images.
        folder: Where they are, relative to ``nnUNet_preprocessed``.
        cases: Their names.
        cases_with_lesion: How many hold a lesion; 0 for unlabelled images.
        lesions: Label values that counted as lesion; empty for unlabelled images.
    """

    name: str
    folder: str
    cases: tuple[str, ...]
    cases_with_lesion: int = 0
    lesions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Refuse, in a record from disk, a folder or a case elsewhere: unlinking deletes the folder.

        Raises:
            ValueError: If one leads there.
        """
        if not stays_below(self.folder) or not all(stays_below(case, one_name=True) for case in self.cases):
            raise ValueError(f"{self.folder} is no place of linked cases")


@dataclass(frozen=True)
class Link:
    """What is linked to the data of one configuration.

    Attributes:
        configuration: The configuration that it was made for; others that share its data share the link.
        dimensions: 2 or 3.
        digest: How the cases were pre-processed (:meth:`nnunet_covid.nnunet.preprocess.Preprocessing.digest`).
        others: Data sets of other diseases.
        unlabelled: Unlabelled COVID images.
    """

    configuration: str
    dimensions: int
    digest: str
    others: tuple[LinkedCases, ...] = ()
    unlabelled: LinkedCases | None = None


def record_file(preprocessed_data_set: Path, plans_name: str) -> Path:
    """Where the links of these plans are recorded."""
    return preprocessed_data_set / f"{plans_name}_link.json"


def read_links(file: Path) -> dict[str, Link]:
    """Data identifier to link; empty without a record.

    Raises:
        UserError: If the file is no such record.
    """
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["links"]
        return {identifier: _link(entry) for identifier, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{file} is no record of links; remove it and link again") from e


def write_links(file: Path, links: dict[str, Link]) -> None:
    """Write the record; without any link the file goes."""
    if not links:
        file.unlink(missing_ok=True)
        return
    entries = {identifier: asdict(link) for identifier, link in links.items()}
    write_json(file, {"version": 1, "links": entries})


def _link(entry: dict[str, Any]) -> Link:
    others, unlabelled = tuple(_cases(other) for other in entry["others"]), entry["unlabelled"]
    return Link(**{**entry, "others": others, "unlabelled": _cases(unlabelled) if unlabelled else None})


def _cases(entry: dict[str, Any]) -> LinkedCases:
    return LinkedCases(**{**entry, "cases": tuple(entry["cases"]), "lesions": tuple(entry["lesions"])})


def preprocessed_folder() -> Path:
    """``nnUNet_preprocessed``."""
    return Path(nnUNet_preprocessed.get() or ".")


def made_as_file(folder: Path) -> Path:
    """Beside a folder of linked cases: how they were pre-processed."""
    return folder.with_name(f"{folder.name}_link.json")


def find_link(
    preprocessed: Path,
    plans: PlansManager,
    configuration: str,
    *,
    require_others: bool = False,
    require_unlabelled: bool = False,
) -> Link | None:
    """The link of a configuration, or ``None`` if nothing is linked to it.

    Args:
        preprocessed: ``nnUNet_preprocessed``.
        require_others: Ask for images of other diseases.
        require_unlabelled: Ask for unlabelled images.

    Raises:
        UserError: If there is one that cannot be used: pre-processed with other plans, deleted, or without a lesion; or
            if none has what is asked for.
    """
    links = read_links(record_file(preprocessed / plans.dataset_name, plans.plans_name))
    link = links.get(plans.get_configuration(configuration).data_identifier)
    if link is not None:
        digest = Preprocessing(plans.plans, configuration).digest()
        for cases in (*link.others, *([link.unlabelled] if link.unlabelled else [])):
            _check_cases(preprocessed, cases, digest, link, again=link_again(plans, configuration, cases))
        if link.others and not any(other.cases_with_lesion for other in link.others):
            names = ", ".join(other.name for other in link.others)
            raise UserError(f"none of the cases of {names} holds a lesion; link a data set with lesions")
    if require_others and (link is None or not link.others):
        made = [other for other in links.values() if other.others]
        raise _not_linked("data set of another disease", "-a OTHER_DATASET", made, plans, configuration)
    if require_unlabelled and (link is None or link.unlabelled is None):
        made = [other for other in links.values() if other.unlabelled]
        raise _not_linked("folder of unlabelled images", "--unlabelled FOLDER", made, plans, configuration)
    return link


def _not_linked(what: str, option: str, made: list[Link], plans: PlansManager, configuration: str) -> UserError:
    listed = ", ".join(f"{other.configuration} ({other.dimensions}D)" for other in made)
    elsewhere = f" (there is one for {listed})" if made else ""
    dimensions = len(plans.get_configuration(configuration).patch_size)
    return UserError(
        f"no {what} is linked to configuration '{configuration}' ({dimensions}D) of "
        f"{plans.plans_name} of {plans.dataset_name}{elsewhere}: run {_link_command(plans, configuration, option)}"
    )


def link_again(plans: PlansManager, configuration: str, cases: LinkedCases) -> str:
    """The command that makes a link of the same cases anew."""
    images = f"--unlabelled {shlex.quote(cases.name)} --at-most {len(cases.cases)}"
    return _link_command(plans, configuration, f"-a {cases.name}" if cases.lesions else images)


def _link_command(plans: PlansManager, configuration: str, source: str) -> str:
    return f"nnunet-covid link -d {plans.dataset_name} {source} -p {plans.plans_name} -c {configuration}"


def _check_cases(preprocessed: Path, cases: LinkedCases, digest: str, link: Link, *, again: str) -> None:
    folder = preprocessed / cases.folder
    if not folder.is_dir():
        raise UserError(f"linked data are gone: {folder} does not exist; run {again}")
    missing = [name for name in cases.cases if properties_of(folder / name) is None]
    if missing:
        first = folder / missing[0]
        raise UserError(f"linked data are incomplete or damaged: {len(missing)} cases, first {first}; run {again}")
    made_as = read_json(made_as_file(folder)) or {}
    if digest != link.digest or digest != made_as.get("digest"):
        raise UserError(f"linked data in {folder} were pre-processed with other plans than these; run {again}")


def describe_links(covid: PlannedDataset) -> str:
    """One block per configuration, with what is wrong where it cannot be used."""
    links = read_links(covid.record)
    if not links:
        return f"nothing is linked to {covid.name} under {covid.plans_name}"
    return "\n".join(line for link in links.values() for line in _lines(covid, link))


def _lines(covid: PlannedDataset, link: Link) -> list[str]:
    lines = [f"{covid.name}, {covid.plans_name}, {link.configuration} ({link.dimensions}D)"]
    for other in link.others:
        values = ", ".join(map(str, other.lesions))
        found = f"{other.cases_with_lesion} with lesion (label {values})"
        lines.append(f"  {len(other.cases)} cases of {other.name}, {found}")
    if link.unlabelled:
        lines.append(f"  {len(link.unlabelled.cases)} unlabelled images of {link.unlabelled.name}")
    try:
        find_link(covid.folder.parent, covid.plans, link.configuration)
    except UserError as e:
        return [*lines, f"  cannot be used: {e}"]
    train = f"  train: nnUNetv2_train {covid.name[7:10]} {link.configuration} 0 -p {covid.plans_name} -tr"
    lines += [f"{train} CollaborativeTrainer"] if link.others else []
    if not link.unlabelled:
        return lines
    if len(link.unlabelled.cases) < 2:
        return [*lines, "  one unlabelled image is too few for a training with _consistency: link a folder of more"]
    return [*lines, f"{train} nnUNetTrainer_consistency"]
