"""``compare``, ``calibrate``, ``demo`` and ``doctor``: what they are asked for, and of what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import planned
from model_folders import complete_plans, write_model

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.registry import BadInput, Kind

MODEL = "nnUNetTrainer__testPlans__2d"
COMPARE = "nnunet-covid compare first second"
CALIBRATE = f"nnunet-covid calibrate {MODEL}"
HEADER = "case,class,empty,tp,fp,fn,tn,dice\n"


def table(folder: Path, method: str, *cases: str) -> None:
    rows = "".join(f"{case},infection,,8,1,1,90,0.{position + 5}\n" for position, case in enumerate(cases))
    (folder / method).mkdir()
    (folder / method / "cases.csv").write_text(HEADER + rows)


def evaluations(folder: Path) -> None:
    """Two methods on the cases a, b and c."""
    for method in ("first", "second"):
        table(folder, method, "a", "b", "c")


def model(folder: Path) -> None:
    dataset = planned.dataset_json()
    write_model(folder / MODEL, complete_plans(dataset, patch=[32, 32], stages=3), dataset)
    (folder / "nnUNet_preprocessed/Dataset999_Test/gt_segmentations").mkdir(parents=True)


def nothing(folder: Path) -> None:
    """The options are wrong."""


def text(name: str, content: str) -> Make:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(content)

    return spoil


def entry(good: Make, command: str, kind: Kind) -> Callable[..., BadInput]:
    """Maker of entries of a command."""

    def make(name: str, situation: str, spoil: Make, options: str, *says: str) -> BadInput:
        return BadInput(name, kind, situation, f"{command} {options}".strip(), spoilt(good, spoil), says)

    return make


compare = entry(evaluations, COMPARE, Kind.STALE)
calibrate = entry(model, CALIBRATE, Kind.STALE)
demo = entry(nothing, "nnunet-covid demo", Kind.OPTIONS)
doctor = entry(nothing, "nnunet-covid doctor", Kind.OPTIONS)

BAD_INPUTS = [
    compare("compare_third", "a third method that is not there", nothing, "third", "third", "evaluate -o"),
    compare("compare_other_table", "another table", text("second/cases.csv", "a,b\n1,2\n"), "", "second/cases.csv"),
    compare("compare_no_number", "a word in place of a score",
            text("second/cases.csv", f"{HEADER}a,infection,,8,1,1,90,good\n"), "", "second/cases.csv", "no number"),
    compare("compare_infinite", "a score without end",
            text("second/cases.csv", f"{HEADER}a,infection,,8,1,1,90,inf\n"), "", "second/cases.csv", "number (inf)"),
    compare("compare_spreadsheet", "a table that a spreadsheet has saved with semicolons",
            text("second/cases.csv", HEADER.replace(",", ";")), "", "second/cases.csv", "evaluate again"),
    compare("compare_other_cases", "a case that one method lacks",
            text("second/cases.csv", f"{HEADER}a,infection,,8,1,1,90,0.5\nb,infection,,8,1,1,90,0.6\n"), "",
            "'second' lacks c", "--common-cases"),
    compare("compare_twice", "a case that is listed twice",
            text("second/cases.csv", f"{HEADER}a,infection,,8,1,1,90,0.5\na,infection,,8,1,1,90,0.6\n"), "",
            "second/cases.csv: lists a case twice"),
    compare("compare_metric", "a metric that there is not", nothing, "--metrics wit", "unknown metric wit"),
    compare("compare_names", "one name for two methods", nothing, "--names mine", "a different name for each"),
    compare("compare_seed", "a negative seed", nothing, "--seed -1", "--seed"),
    compare("compare_output", "a file in place of the output", text("out", ""), "-o out", "out", "another folder"),
    calibrate("calibrate_not_validated", "a model without validation", nothing, "", "no probabilities", "--npz"),
    calibrate("calibrate_checkpoint", "a checkpoint that is not there", nothing, "--checkpoint best.pth", "best.pth"),
    calibrate("calibrate_undo", "nothing to undo", nothing, "--undo", "no checkpoint_final.pth is calibrated"),
    calibrate("calibrate_both", "dry run and undo at once", nothing, "--undo --dry-run", "not allowed with"),
    demo("demo_few", "a demo of three slices", nothing, "--training 3", "3 training cases are too few", "at least 5"),
    demo("demo_no_epochs", "a demo of no epochs", nothing, "--epochs 0", "epochs must be at least 1"),
    demo("demo_word", "a word in place of a number", nothing, "--epochs many", "--epochs", "many"),
    demo("demo_report_few", "reports of a demo of three volumes", nothing, "--report --training 3", "too few"),
    demo("demo_output", "a file in place of the folder", text("nnunet_covid_demo", ""), "", "nnunet_covid_demo"),
    demo("demo_pixel", "pixels of no size", nothing, "--pixel 0", "pixel"),
    doctor("doctor_argument", "an argument to the doctor", nothing, "lungs", "unrecognized arguments: lungs"),
]  # fmt: skip
