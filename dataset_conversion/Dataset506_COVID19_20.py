"""COVID-19-20 lung CT lesion segmentation challenge: 199 labelled volumes, 50 for validation without labels."""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=506,
    name="COVID19_20",
    command="covid-19-20",
    title="COVID-19-20 challenge",
    paper="Roth et al., Rapid artificial intelligence solutions in a pandemic, Medical Image Analysis 2022",
    url="https://covid-segmentation.grand-challenge.org",
    licence="CC BY-NC-SA 4.0",
    expected_files=(
        "Train/volume-covid19-A-*_ct.nii.gz with *_seg.nii.gz beside",
        "Validation/volume-covid19-A-*_ct.nii.gz (optional)",
    ),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Volumes of folders with segmentations are for training, those of folders without for testing."""
    cases = []
    for image in raw.find_files(source, r"volume-covid19-A-\d+.*_ct\.nii(\.gz)?", INFO.expected_files):
        number = re.findall(r"A-(\d+)", image.name)[0]
        mask = image.with_name(image.name.replace("_ct.nii", "_seg.nii"))
        labelled = any(image.parent.glob("volume-covid19-A-*_seg.nii*"))
        if labelled and not mask.is_file():
            problems.add(image, f"has no mask; add {mask.name} or take the volume out")
            continue
        part = raw.Part.TRAINING if labelled else raw.Part.TEST
        cases.append(raw.SourceCase(f"covid1920_{number}", image, mask if labelled else None, part=part))
    return cases


RECIPE = raw.Recipe(INFO, find_cases, raw.read_volume_pair, schemes={"lesion": raw.binary("lesion")})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
