"""COVID-19-CT-Seg: 20 volumes with lungs and infection (Ma et al., Medical Physics 2021).

The radiopaedia volumes come windowed from [-1250, 250] HU to [0, 255], the coronacases volumes in Hounsfield
units. Both are brought to the window's grey scale; with ``--no-window`` or another window the radiopaedia
volumes are mapped back, and the coronacases volumes clipped likewise.

Two pairs of radiopaedia volumes show one patient each. The folds are five blocks of four volumes, the
benchmark's sizes, with these pairs kept together; the benchmark's own assignment lies in a pickle file beside
its code and can be given as JSON with ``--splits``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.files import files_in

INFO = raw.DatasetInfo(
    number=505,
    name="COVID19CTSeg",
    command="covid-19-ct-seg",
    title="COVID-19-CT-Seg, 20 volumes",
    paper="Ma et al., Towards data-efficient learning: a benchmark for COVID-19 CT lung and infection segmentation, "
    "Medical Physics 2021",
    url="https://zenodo.org/record/3757476",
    licence="CC BY-NC-SA",
    expected_files=(
        "COVID-19-CT-Seg_20cases/{coronacases,radiopaedia}_*.nii.gz",
        "Infection_Mask/*.nii.gz",
        "Lung_Mask/*.nii.gz",
    ),
)

WINDOW = (-1250.0, 250.0)

SCHEMES = {
    "infection": raw.binary("infection"),
    "lungs-and-infection": raw.ClassScheme(
        values={0: 0, 1: 3},  # the lungs are painted beneath: see ``read``
        labels={"background": 0, "left_lung": 1, "right_lung": 2, "infection": 3},
    ),
}


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Volumes, wherever they lie outside of the folders of masks, with infection and lung mask."""
    root = raw.find_root(source, "Infection_Mask", INFO.expected_files)
    paths = [path for path in files_in(root, below=True) if raw.ending_of(path, (".nii.gz", ".nii"))]
    images = {raw.stem_of(path): path for path in paths if not path.parent.name.lower().endswith("_mask")}
    masks, lungs = root / "Infection_Mask", root / "Lung_Mask"
    found = raw.pairs(images, masks, problems, lungs=lungs, endings=raw.VOLUME_ENDINGS)
    return [raw.SourceCase(stem, *files, patient=patient_of(stem)) for stem, *files in found]


def patient_of(stem: str) -> str:
    """``radiopaedia_29_86490_1`` and ``radiopaedia_29_86491_1`` are two series of radiopaedia's case 29."""
    match = re.match(r"radiopaedia_\d+", stem)
    return match.group() if match else stem


def read(case: raw.SourceCase, scheme: raw.ClassScheme) -> raw.Scan:
    """Read one volume in Hounsfield units within the window.

    Raises:
        UnusableFile: If a radiopaedia volume is not in grey values.
    """
    scan = raw.read_volume_pair(case, scheme)
    if case.name.startswith("radiopaedia"):
        low, high = float(scan.image.min()), float(scan.image.max())
        if low < 0 or high > 255:
            reason = f"values from {low:g} to {high:g}, expected grey values 0 to 255 as published; download it again"
            raise raw.UnusableFile(case.image, reason)
        scan.image = raw.from_8_bit(scan.image, *WINDOW)
        scan.notes["scale"] = "grey values of [-1250, 250] HU mapped back"
    else:
        scan.image = scan.image.clip(int(WINDOW[0]), int(WINDOW[1]))
    if "left_lung" in scheme.labels and case.lungs is not None and scan.label is not None:
        sides = raw.map_values(raw.read_voxels(case.lungs), {0: 0, 1: 1, 2: 2}, case.lungs)
        scan.label = np.where(scan.label > 0, scan.label, sides)
    if scan.label is not None:
        scan.notes["mean_hu"] = raw.mean_by_class(scan.image, scan.label, scheme)
    return scan


RECIPE = raw.Recipe(
    info=INFO,
    find_cases=find_cases,
    read=read,
    schemes=SCHEMES,
    split=raw.few_training_folds,
    defaults=raw.Options(window=WINDOW),
)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
