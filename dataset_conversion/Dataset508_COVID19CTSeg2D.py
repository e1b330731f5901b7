"""Slices of COVID-19-CT-Seg's coronacases patients, exported as pictures with lung and infection masks.

The exporter stretched and equalised each slice on its own: there are no Hounsfield units. Needs a table that
names each file's patient, so that the folds keep patients together.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
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


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Pictures and masks with the same file name; the patient is kept in the case name."""
    root = raw.find_root(source, "cases.csv", INFO.expected_files)
    patients = raw.read_patients(root / "cases.csv")
    images = raw.files_by_stem(root / "ct", problems)
    masks = raw.files_by_stem(root / "covid", problems)
    lungs = raw.files_by_stem(root / "lungs", problems)
    raw.pair(images, lungs, problems)
    cases = []
    for stem, image, mask in raw.pair(images, masks, problems):
        patient = patients.get(image.name)
        if patient is None:
            problems.add(image, "has no line in cases.csv; add its patient there or take the picture out")
            continue
        name = f"{patient}_{raw.padded(stem, 4)}"
        cases.append(raw.SourceCase(name, image, mask, lungs.get(stem), patient=patient))
    raw.check_sizes(cases, problems)
    return cases


RECIPE = raw.Recipe(
    info=INFO,
    find_cases=find_cases,
    read=raw.read_picture_pair,
    schemes={"infection": raw.binary("infection", foreground=255)},
    channel="grey_ct",
    file_ending=".png",
    has_volumes=False,
)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
