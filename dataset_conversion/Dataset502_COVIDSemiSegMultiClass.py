"""COVID-SemiSeg, ground-glass opacity and consolidation apart: 50 training and 48 test slices (Fan et al.).

The masks are colour pictures; each pixel goes to the nearest colour of the table, or the file is refused. The
folder ``Prior`` holds nothing but the union of the classes and is not used. Where the download has no
``MultiClassInfection-Test``, the test images of the binary part stand in: they are the same slices.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.dataset_conversion.Dataset501_COVIDSemiSeg import INFO as BINARY
from nnunet_covid.dataset_conversion.Dataset501_COVIDSemiSeg import labelled_cases, test_cases

INFO = replace(
    BINARY,
    number=502,
    name="COVIDSemiSegMultiClass",
    command="covid-semiseg-multiclass",
    title="COVID-SemiSeg, ground-glass opacity and consolidation",
    expected_files=(
        "TrainingSet/MultiClassInfection-Train/{Imgs/*.jpg,GT/*.png}",
        "TestingSet/MultiClassInfection-Test/{Imgs/*.jpg,GT/*.png} (optional)",
    ),
)

COLOURS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2}
"""Ground-glass opacity is red, consolidation green."""

SCHEMES = {
    "exclusive": raw.ClassScheme(
        values={0: 0, 1: 1, 2: 2},
        labels={"background": 0, "ground_glass_opacity": 1, "consolidation": 2},
        colours=COLOURS,
    ),
    "regions": raw.ClassScheme(
        values={0: 0, 1: 1, 2: 2},
        labels={"background": 0, "infection": (1, 2), "consolidation": 2},
        regions_class_order=(1, 2),
        colours=COLOURS,
    ),
    "infection": raw.ClassScheme(values={0: 0, 1: 1, 2: 1}, labels={"background": 0, "infection": 1}, colours=COLOURS),
}


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Multi-class training and test slices in the layout of the authors' download."""
    root = raw.find_root(source, "TrainingSet/MultiClassInfection-Train", INFO.expected_files)
    cases = labelled_cases(root / "TrainingSet" / "MultiClassInfection-Train", raw.Part.TRAINING, problems)
    test = root / "TestingSet" / "MultiClassInfection-Test"
    if test.is_dir():
        cases += test_cases(test, problems)
    else:
        binary_test = test_cases(root / "TestingSet" / "LungInfection-Test", problems)
        cases += [replace(case, mask=None) for case in binary_test]  # its references know one class only
    return cases


RECIPE = raw.picture_recipe(INFO, find_cases, schemes=SCHEMES)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
