"""LiTS: liver and liver tumours, 131 labelled and 70 test volumes (Bilic et al., 2023).

Users report masks whose header is blank (1 mm voxels at the origin) while their volume has a real one, with the voxels
in the volume's order: these are taken to lie on the volume's grid, and named. The volumes show the abdomen, so that
some hold no lung.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=522,
    name="LiTS",
    command="lits",
    title="LiTS, liver tumour segmentation",
    paper="Bilic et al., The Liver Tumor Segmentation Benchmark (LiTS), Medical Image Analysis 2023",
    url="https://competitions.codalab.org/competitions/17094",
    licence="CC BY-NC-ND 4.0",
    expected_files=("…/volume-*.nii", "…/segmentation-*.nii", "…/test-volume-*.nii (optional)"),
)

SCHEMES = {
    "exclusive": raw.ClassScheme(values={0: 0, 1: 1, 2: 2}, labels={"background": 0, "liver": 1, "tumour": 2}),
    "regions": raw.ClassScheme(
        values={0: 0, 1: 1, 2: 2}, labels={"background": 0, "liver": (1, 2), "tumour": 2}, regions_class_order=(1, 2)
    ),
    "tumour": raw.ClassScheme(values={0: 0, 1: 0, 2: 1}, labels={"background": 0, "tumour": 1}),
}


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Volumes and segmentations paired by number, over all batch folders."""
    volumes = raw.find_files(source, r"(test-)?volume-\d+\.nii(\.gz)?", INFO.expected_files)
    pattern = r"segmentation-\d+\.nii(\.gz)?"
    masks = {_number(path): path for path in raw.find_files(source, pattern, INFO.expected_files)}
    cases = []
    for path in volumes:
        number = _number(path)
        if path.name.startswith("test-"):
            cases.append(raw.SourceCase(f"lits_test_{number}", path, part=raw.Part.TEST, shows_lungs=False))
        elif number not in masks:
            problems.add(path, f"has no mask; add segmentation-{int(number)}.nii or take the volume out")
        else:
            cases.append(raw.SourceCase(f"lits_{number}", path, masks.pop(number), shows_lungs=False, blank_masks=True))
    for number, path in masks.items():
        problems.add(path, f"is a mask without a volume; add volume-{int(number)}.nii or take the mask out")
    return cases


def _number(path: Path) -> str:
    return re.findall(r"-(\d+)\.", path.name)[0].zfill(3)


RECIPE = raw.Recipe(INFO, find_cases, raw.read_volume_pair, schemes=SCHEMES)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
