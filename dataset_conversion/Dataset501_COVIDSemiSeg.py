"""COVID-SemiSeg, binary: 50 labelled, 1600 unlabelled and 48 test slices (Fan et al., TMI 2020).

The slices stay as they lie in the source, rotated by 90°: a model trained on them expects them so. The
folders ``Edge`` and ``Prior`` are not used; edges are derived from the labels during training. References of
the test slices are optional. Unlabelled slices keep their patient in the case name:
``coronacases_org_001_057``.
"""

from __future__ import annotations

import re
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=501,
    name="COVIDSemiSeg",
    command="covid-semiseg",
    title="COVID-SemiSeg, infection",
    paper="Fan et al., Inf-Net: Automatic COVID-19 Lung Infection Segmentation from CT Images, IEEE TMI 2020",
    url="https://github.com/DengPingFan/Inf-Net",
    licence="non-commercial research use",
    expected_files=(
        "TrainingSet/LungInfection-Train/Doctor-label/{Imgs/*.jpg,GT/*.png}",
        "TrainingSet/LungInfection-Train/Pseudo-label/Imgs/*.jpg (optional)",
        "TestingSet/LungInfection-Test/{Imgs/*.jpg,GT/*.png} (optional)",
    ),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Labelled, test and unlabelled slices in the layout of the authors' download."""
    root = raw.find_root(source, "TrainingSet/LungInfection-Train", INFO.expected_files)
    training = root / "TrainingSet" / "LungInfection-Train"
    cases = labelled_cases(training / "Doctor-label", raw.Part.TRAINING, problems)
    cases += test_cases(root / "TestingSet" / "LungInfection-Test", problems)
    if (training / "Pseudo-label").is_dir():
        cases += unlabelled_cases(training / "Pseudo-label" / "Imgs", problems)
    return cases


def labelled_cases(folder: Path, part: raw.Part, problems: raw.Problems) -> list[raw.SourceCase]:
    """Pairs of ``Imgs`` and ``GT``; the patient of these slices is not known."""
    return [
        raw.SourceCase(f"covidsemiseg_{raw.padded(stem)}", image, mask, part=part)
        for stem, image, mask, _ in raw.pairs(folder / "Imgs", folder / "GT", problems)
    ]


def test_cases(folder: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """The official test slices, with references where ``GT`` exists."""
    if not folder.is_dir():
        return []
    if (folder / "GT").is_dir():
        return labelled_cases(folder, raw.Part.TEST, problems)
    return [
        raw.SourceCase(f"covidsemiseg_{raw.padded(stem)}", image, part=raw.Part.TEST)
        for stem, image in raw.files_by_stem(folder / "Imgs", problems).items()
    ]


def unlabelled_cases(folder: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Slices named ``Data-1_<patient>_<slice>.jpg``."""
    cases = []
    for stem, image in raw.files_by_stem(folder, problems).items():
        name = raw.padded(re.sub(r"^Data-\d+_", "", stem))
        patient = name.rpartition("_")[0]
        cases.append(raw.SourceCase(name=name, image=image, patient=patient, part=raw.Part.UNLABELLED))
    return cases


RECIPE = raw.picture_recipe(INFO, find_cases, schemes={"infection": raw.binary("infection", foreground=255)})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
