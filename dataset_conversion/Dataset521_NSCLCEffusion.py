"""NSCLC-Radiomics CTs (DICOM) with pleural-effusion masks (NIfTI), 78 cases (Kiser et al., 2020).

The masks' second axis runs against the DICOM's. Both know where they lie in space, so the masks are resampled
there; copying the array would put them on air. As a check the mean inside each mask must be that of fluid.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=521,
    name="NSCLCEffusion",
    command="nsclc-effusion",
    title="NSCLC-Radiomics with pleural effusion",
    paper="Kiser et al., PleThora: Pleural effusion and thoracic cavity segmentations, Medical Physics 2020",
    url="https://doi.org/10.7937/tcia.2020.6c7y-gq39",
    licence="CC BY-NC 3.0",
    expected_files=("…/LUNG1-*/…/*.dcm", "…/LUNG1-*_effusion_first_reviewer.nii.gz"),
)

FLUID = (-150.0, 100.0)
"""Plausible mean inside an effusion mask, HU: water with a rim of lung. Aligned masks
have means between about -130 and 20; the same masks copied as arrays lie below -170."""


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """One CT series per effusion mask; of several reviewers the first counts."""
    masks: dict[str, Path] = {}
    for path in raw.find_files(source, r"LUNG1-\d+_effusion_.*\.nii(\.gz)?", INFO.expected_files):
        if masks.setdefault(_patient(path.name), path) != path:  # first_reviewer comes before second_reviewer
            problems.leave_out(path, "the mask of another reviewer")
    content = raw.dicom_folder(source)
    series: dict[str, list[Path]] = defaultdict(list)
    for folder in (found.folder for found in content.series):
        patient = next(iter(re.findall(r"LUNG1-\d+", folder.relative_to(source).as_posix())), "")
        series[patient].append(folder)
        if patient not in masks:
            problems.leave_out(folder, "a series without a mask")
    for path, reason in content.unusable:
        problems.add(path, reason)
    for path, reason in content.left_out:
        if raw.is_dicom(path):
            problems.leave_out(path, reason)
    cases = []
    for patient, mask in masks.items():
        if len(series[patient]) != 1:
            found = "no CT series" if not series[patient] else f"{len(series[patient])} CT series"
            problems.add(mask, f"{found} in a folder named {patient}; there must be one")
            continue
        cases.append(raw.SourceCase(f"nsclc_{patient}", series[patient][0], mask, patient=patient))
    return cases


def _patient(name: str) -> str:
    return re.findall(r"LUNG1-\d+", name)[0]


def read(case: raw.SourceCase, scheme: raw.ClassScheme) -> raw.Scan:
    """Read one series and its mask, resampled in space.

    Raises:
        UnusableFile: If the mask does not lie on fluid.
    """
    scan = raw.read_volume_pair(case, scheme, resample=True)
    for mean in scan.notes["mean_hu"].values():
        if not FLUID[0] <= mean <= FLUID[1]:
            reason = f"mean {mean:g} HU inside the mask is not that of fluid; check that mask and CT belong together"
            raise raw.UnusableFile(case.mask or case.image, reason)
    return scan


RECIPE = raw.Recipe(info=INFO, find_cases=find_cases, read=read, schemes={"effusion": raw.binary("effusion")})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
