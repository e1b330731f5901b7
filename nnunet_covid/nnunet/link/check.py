"""Can a training begin with the link that is recorded?"""

from __future__ import annotations

from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.link.create import read_made_as
from nnunet_covid.nnunet.link.digest import preprocessing_digest
from nnunet_covid.nnunet.link.preprocess import PARTS
from nnunet_covid.nnunet.link.record import Link, LinkedCases, read_links, record_file


def find_link(preprocessed: Path, plans: PlansManager, configuration: str) -> Link | None:
    """The link of a configuration, or ``None`` if nothing is linked to it.

    Args:
        preprocessed: ``nnUNet_preprocessed``.

    Raises:
        UserError: If there is one that cannot be used: pre-processed with other plans, deleted, or without a lesion.
    """
    file = record_file(preprocessed / plans.dataset_name, plans.plans_name)
    link = read_links(file).get(plans.get_configuration(configuration).data_identifier)
    if link is None:
        return None
    digest = preprocessing_digest(plans, configuration)
    for cases in (*link.others, *([link.unlabelled] if link.unlabelled else [])):
        _check_cases(preprocessed, cases, digest, link, again=link_command(plans, configuration, cases))
    if link.others and not any(other.cases_with_lesion for other in link.others):
        names = ", ".join(other.name for other in link.others)
        raise UserError(f"none of the cases of {names} holds a lesion; link a data set with lesions")
    return link


def require_others(link: Link | None, preprocessed: Path, plans: PlansManager, configuration: str) -> Link:
    """The link, if there are images of other diseases in it.

    Raises:
        UserError: Says what to do.
    """
    if link is not None and link.others:
        return link
    links = read_links(record_file(preprocessed / plans.dataset_name, plans.plans_name))
    made = [f"{other.configuration} ({other.dimensions}D)" for other in links.values() if other.others]
    elsewhere = f" (there is one for {', '.join(made)})" if made else ""
    dimensions = len(plans.get_configuration(configuration).patch_size)
    raise UserError(
        f"no data set of another disease is linked to configuration '{configuration}' ({dimensions}D) of "
        f"{plans.plans_name} of {plans.dataset_name}{elsewhere}: run {link_command(plans, configuration)}"
    )


def link_command(plans: PlansManager, configuration: str, cases: LinkedCases | None = None) -> str:
    """The command that makes the link."""
    if cases is None:
        source = "-a OTHER_DATASET"
    else:
        images = f"--unlabelled {cases.name} --at-most {len(cases.cases)}"
        source = f"-a {cases.name}" if cases.lesions else images
    return f"nnunet-covid link -d {plans.dataset_name} {source} -p {plans.plans_name} -c {configuration}"


def _check_cases(preprocessed: Path, cases: LinkedCases, digest: str, link: Link, *, again: str) -> None:
    folder = preprocessed / cases.folder
    if not folder.is_dir():
        raise UserError(f"linked data are gone: {folder} does not exist; run {again}")
    missing = [name for name in cases.cases if not all((folder / f"{name}{part}").is_file() for part in PARTS)]
    if missing:
        raise UserError(f"linked data are incomplete: {len(missing)} cases, first {folder / missing[0]}; run {again}")
    made_as = read_made_as(folder) or {}
    if digest != link.digest or digest != made_as.get("digest"):
        raise UserError(f"linked data in {folder} were pre-processed with other plans than these; run {again}")
