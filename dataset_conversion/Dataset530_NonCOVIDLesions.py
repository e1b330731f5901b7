"""Lesions that are not COVID-19: the union of data sets 520 to 522, for relation-driven collaborative learning.

Whichever of the three lie below the source are used. Every lesion becomes class 1; LiTS's liver is background.
Only labelled cases are taken.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import Dataset520_MSDLung, Dataset521_NSCLCEffusion, Dataset522_LiTS, run_as_script
from nnunet_covid.errors import UserError

MEMBERS = {
    "msd_": (Dataset520_MSDLung.RECIPE, "tumour"),
    "nsclc_": (Dataset521_NSCLCEffusion.RECIPE, "effusion"),
    "lits_": (Dataset522_LiTS.RECIPE, "tumour"),
}
"""Beginning of the case names → the member's recipe and the class scheme that leaves its lesion alone."""

INFO = raw.DatasetInfo(
    number=530,
    name="NonCOVIDLesions",
    command="non-covid-lesions",
    title="Lesions other than COVID-19: lung tumour, pleural effusion, liver tumour",
    paper="Zhang et al., Exploiting shared knowledge from non-COVID lesions for annotation-efficient COVID-19 CT "
    "lung infection segmentation, IEEE JBHI 2021",
    url="see its members msd-lung, nsclc-effusion and lits",
    licence="that of each member",
    expected_files=tuple(
        f"{recipe.info.command}: {', '.join(recipe.info.expected_files)}" for recipe, _ in MEMBERS.values()
    ),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """The labelled cases of every member that is there.

    Raises:
        UserError: If none is.
    """
    cases: list[raw.SourceCase] = []
    for recipe, _ in MEMBERS.values():
        try:
            cases += recipe.find_cases(source, problems)
        except UserError:
            continue  # this member is not there
    if not cases:
        problems.raise_if_any()
        raise UserError(f"{source} holds none of {', '.join(r.info.title for r, _ in MEMBERS.values())}")
    return [case for case in cases if case.part is raw.Part.TRAINING]


def read(case: raw.SourceCase, scheme: raw.ClassScheme) -> raw.Scan:
    """Read a case as its member does, with its lesion as class 1."""
    recipe, lesion = next(member for prefix, member in MEMBERS.items() if case.name.startswith(prefix))
    return recipe.read(case, recipe.schemes[lesion])


RECIPE = raw.Recipe(info=INFO, find_cases=find_cases, read=read, schemes={"lesion": raw.binary("lesion")})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
