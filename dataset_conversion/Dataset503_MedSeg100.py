"""COVID-19 CT Segmentation by MedSeg: 100 unrelated slices stacked in one NIfTI file.

The values look like Hounsfield units, but were guessed slice by slice from JPEG pictures: the channel is named
``grey_ct``, so that nnU-Net normalises every slice on its own. The patients of the slices are not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_covid.raw_dataset.case import Part, SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.command_line import converter_main
from nnunet_covid.raw_dataset.conversion import convert_data_set
from nnunet_covid.raw_dataset.data_set_info import DataSetInfo
from nnunet_covid.raw_dataset.pairing import find_root
from nnunet_covid.raw_dataset.problems import Problems
from nnunet_covid.raw_dataset.recipe import Recipe
from nnunet_covid.raw_dataset.slice_stacks import read_stacked_slice, stacked_cases

INFO = DataSetInfo(
    number=503,
    name="MedSeg100",
    command="medseg-100",
    title="COVID-19 CT Segmentation data set, 100 slices",
    paper="MedSeg and the Italian Society of Medical and Interventional Radiology, 2020",
    url="https://medicalsegmentation.com/covid19/",
    licence="CC0",
    expected_files=("tr_im.nii.gz", "tr_mask.nii.gz", "val_im.nii.gz (optional, no masks)"),
)


MEDSEG_SCHEMES = {
    "exclusive": ClassScheme(
        values={0: 0, 1: 1, 2: 2, 3: 3},
        labels={"background": 0, "ground_glass_opacity": 1, "consolidation": 2, "pleural_effusion": 3},
    ),
    "regions": ClassScheme(
        values={0: 0, 1: 1, 2: 2, 3: 0},
        labels={"background": 0, "infection": (1, 2), "consolidation": 2},
        regions_class_order=(1, 2),
    ),
    "infection": ClassScheme(values={0: 0, 1: 1, 2: 1, 3: 0}, labels={"background": 0, "infection": 1}),
}
"""Pleural effusion is fluid around the lung, not infected lung: only the first scheme keeps it."""


def find_cases(source: Path, problems: Problems) -> list[SourceCase]:
    """One case per slice of the stacks."""
    root = find_root(source, "tr_im.nii*", INFO.expected_files)
    cases = stacked_cases(root, "tr_im", "tr_mask", "medseg100", Part.TRAINING, problems)
    if list(root.glob("val_im.nii*")):
        cases += stacked_cases(root, "val_im", None, "medseg100_val", Part.TEST, problems)
    return cases


RECIPE = Recipe(
    info=INFO,
    find_cases=find_cases,
    read=read_stacked_slice,
    schemes=MEDSEG_SCHEMES,
    channel="grey_ct",
    file_ending=".nii.gz",
    has_volumes=False,
)


def convert(source: Path, **arguments: Any) -> Path:
    """Convert the data set; for the arguments see ``convert_data_set``."""
    return convert_data_set(RECIPE, Path(source), **arguments)


if __name__ == "__main__":
    raise SystemExit(converter_main(RECIPE))
