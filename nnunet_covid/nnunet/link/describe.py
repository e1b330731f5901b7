"""What is linked, in lines for a person."""

from __future__ import annotations

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.link.check import find_link
from nnunet_covid.nnunet.link.create import PlannedDataSet
from nnunet_covid.nnunet.link.record import Link, LinkedCases, read_links


def describe_links(covid: PlannedDataSet) -> str:
    """One block per configuration, with what is wrong where it cannot be used."""
    links = read_links(covid.record)
    if not links:
        return f"nothing is linked to {covid.name} under {covid.plans_name}"
    return "\n".join(line for link in links.values() for line in _lines(covid, link))


def _lines(covid: PlannedDataSet, link: Link) -> list[str]:
    lines = [f"{covid.name}, {covid.plans_name}, {link.configuration} ({link.dimensions}D)"]
    lines += [f"  {_counted(other)}" for other in link.others]
    if link.unlabelled:
        lines.append(f"  {len(link.unlabelled.cases)} unlabelled images of {link.unlabelled.name}")
    try:
        find_link(covid.folder.parent, covid.plans, link.configuration)
    except UserError as e:
        return [*lines, f"  cannot be used: {e}"]
    others = link.configuration if link.others else None
    train = f"nnUNetv2_train {covid.name[7:10]} {others} 0 -p {covid.plans_name} -tr CollaborativeTrainer"
    return [*lines, f"  train: {train}" if others else "  link a data set of another disease as well (-a)"]


def _counted(cases: LinkedCases) -> str:
    values = ", ".join(map(str, cases.lesions))
    return f"{len(cases.cases)} cases of {cases.name}, {cases.cases_with_lesion} with lesion (label {values})"
