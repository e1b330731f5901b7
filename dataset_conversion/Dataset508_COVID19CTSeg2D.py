"""Slices of COVID-19-CT-Seg's coronacases patients, exported as pictures with lung and infection masks.

The exporter stretched and equalised each slice on its own: there are no Hounsfield units. Needs a table that
names each file's patient, so that the folds keep patients together.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.dataset_conversion.Dataset505_COVID19CTSeg import INFO as VOLUMES

INFO = replace(
    VOLUMES,
    number=508,
    name="COVID19CTSeg2D",
    command="covid-19-ct-seg-2d",
    title="COVID-19-CT-Seg, coronacases slices as pictures",
    expected_files=("ct/*.png", "lungs/*.png", "covid/*.png", "cases.csv with the columns file and case"),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Pictures and masks with the same file name; the patient is kept in the case name."""
    root = raw.find_root(source, "cases.csv", INFO.expected_files)
    patients = raw.read_patients(root / "cases.csv")
    cases = []
    for stem, image, mask, lungs in raw.pairs(root / "ct", root / "covid", problems, lungs=root / "lungs"):
        patient = patients.get(image.name)
        if patient is None:
            problems.add(image, "has no line in cases.csv; add its patient there or take the picture out")
        else:
            cases.append(raw.SourceCase(f"{patient}_{raw.padded(stem, 4)}", image, mask, lungs, patient=patient))
    return cases


RECIPE = raw.picture_recipe(INFO, find_cases, schemes={"infection": raw.binary("infection", foreground=255)})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
