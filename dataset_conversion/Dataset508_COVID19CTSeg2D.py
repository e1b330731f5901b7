"""Slices of COVID-19-CT-Seg's coronacases patients, exported as pictures with lung and infection masks.

The exporter stretched and equalised each slice on its own: there are no Hounsfield units. Needs a table that
names each file's patient, so that the folds keep patients together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_covid.raw_dataset.case import SourceCase
from nnunet_covid.raw_dataset.classes import binary
from nnunet_covid.raw_dataset.command_line import converter_main
from nnunet_covid.raw_dataset.conversion import convert_data_set
from nnunet_covid.raw_dataset.data_set_info import DataSetInfo
from nnunet_covid.raw_dataset.pairing import files_by_stem, find_root, padded, pair
from nnunet_covid.raw_dataset.patient_table import read_patients
from nnunet_covid.raw_dataset.picture_pairs import check_sizes, read_picture_pair
from nnunet_covid.raw_dataset.problems import Problems
from nnunet_covid.raw_dataset.recipe import Recipe

INFO = DataSetInfo(
    number=508,
    name="COVID19CTSeg2D",
    command="covid-19-ct-seg-2d",
    title="COVID-19-CT-Seg, coronacases slices as pictures",
    paper="Ma et al., Towards data-efficient learning: a benchmark for COVID-19 CT lung and infection segmentation, "
    "Medical Physics 2021",
    url="https://zenodo.org/record/3757476",
    licence="CC BY-NC-SA",
    expected_files=("ct/*.png", "lungs/*.png", "covid/*.png", "cases.csv with the columns file and case"),
)


def find_cases(source: Path, problems: Problems) -> list[SourceCase]:
    """Pictures and masks with the same file name; the patient is kept in the case name."""
    root = find_root(source, "cases.csv", INFO.expected_files)
    patients = read_patients(root / "cases.csv")
    images = files_by_stem(root / "ct", problems)
    masks = files_by_stem(root / "covid", problems)
    lungs = files_by_stem(root / "lungs", problems)
    pair(images, lungs, problems)
    cases = []
    for stem, image, mask in pair(images, masks, problems):
        patient = patients.get(image.name)
        if patient is None:
            problems.add(image, "has no line in cases.csv; add its patient there or take the picture out")
            continue
        name = f"{patient}_{padded(stem, 4)}"
        cases.append(SourceCase(name, image, mask, lungs.get(stem), patient=patient))
    check_sizes(cases, problems)
    return cases


RECIPE = Recipe(
    info=INFO,
    find_cases=find_cases,
    read=read_picture_pair,
    schemes={"infection": binary("infection", foreground=255)},
    channel="grey_ct",
    file_ending=".png",
    has_volumes=False,
)


def convert(source: Path, **arguments: Any) -> Path:
    """Convert the data set; for the arguments see ``convert_data_set``."""
    return convert_data_set(RECIPE, Path(source), **arguments)


if __name__ == "__main__":
    raise SystemExit(converter_main(RECIPE))
