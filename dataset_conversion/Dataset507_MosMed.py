"""MosMedData: 1110 chest CTs, 50 of them with lesion masks (Morozov et al., 2020).

Only every tenth slice of each scan was published, so the volumes are thick-sliced. Studies without a mask
become unlabelled cases (``--no-unlabelled`` leaves them out).
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=507,
    name="MosMed",
    command="mosmed",
    title="MosMedData: chest CT scans with COVID-19 related findings",
    paper="Morozov et al., MosMedData: Chest CT Scans With COVID-19 Related Findings Dataset, arXiv 2005.06465",
    url="https://mosmed.ai/datasets/covid19_1110",
    licence="CC BY-NC-ND 3.0",
    expected_files=("studies/CT-*/study_*.nii.gz", "masks/study_*_mask.nii.gz"),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Studies, with the mask of the same number where there is one."""
    studies = raw.find_files(source, r"study_\d+\.nii(\.gz)?", INFO.expected_files)
    masks = {_number(path): path for path in raw.find_files(source, r"study_\d+_mask\.nii(\.gz)?", INFO.expected_files)}
    known = {_number(path) for path in studies}
    for number, path in masks.items():
        if number not in known:
            problems.add(path, f"is a mask without a study; add study_{number}.nii.gz or take the mask out")
    cases = []
    for path in studies:
        mask = masks.get(_number(path))
        part = raw.Part.TRAINING if mask else raw.Part.UNLABELLED
        cases.append(raw.SourceCase(f"mosmed_{_number(path)}", path, mask, part=part))
    return cases


def _number(path: Path) -> str:
    return re.findall(r"study_(\d+)", path.name)[0]


RECIPE = raw.Recipe(INFO, find_cases, raw.read_volume_pair, schemes={"lesion": raw.binary("lesion")})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
