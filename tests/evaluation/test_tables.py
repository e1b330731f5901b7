"""Summary, terminal table, CSV and JSON."""

import csv
import json
import math

import numpy as np
import pytest

from nnunet_covid.evaluation import evaluate_folders, summarise, summary_as_json, terminal_table, write_report
from nnunet_covid.evaluation.tables import aligned


@pytest.fixture
def evaluation(png_folders):
    return evaluate_folders(png_folders.predictions, png_folders.references)


def test_means_are_over_cases_and_never_pooled(evaluation):
    values = [s.values["dice"] for s in evaluation.scores]
    dice = summarise(evaluation).classes["infection"].metrics["dice"]
    assert (dice.n, dice.mean) == (3, pytest.approx((10 / 12 + 1 + 0) / 3))
    assert dice.std == pytest.approx(np.std(values, ddof=1))
    assert (dice.minimum, dice.median, dice.maximum) == pytest.approx((0, 10 / 12, 1))


def test_left_out_cases_are_counted(nifti_folders):
    evaluation = evaluate_folders(nifti_folders.predictions, nifti_folders.references, empty_policy="nan-both")
    consolidation = summarise(evaluation).classes["consolidation"]
    assert (consolidation.cases, consolidation.empty_both, consolidation.metrics["dice"].n) == (2, 1, 1)
    assert consolidation.metrics["specificity"].n == 2
    assert "(n=1)" in terminal_table(evaluation)


def test_the_mean_over_classes_is_the_mean_of_their_means(nifti_folders):
    summary = summarise(evaluate_folders(nifti_folders.predictions, nifti_folders.references))
    expected = np.mean([c.metrics["dice"].mean for c in summary.classes.values()])
    assert summary.mean_over_classes["dice"] == pytest.approx(expected)


def test_there_is_no_mean_over_one_class(evaluation):
    assert summarise(evaluation).mean_over_classes == {}
    assert "mean over classes" not in terminal_table(evaluation)


def test_the_table_names_units_tolerance_and_policy(evaluation, nifti_folders):
    in_pixels = terminal_table(evaluation)
    assert "NSD at 3 px (no spacing in these files: distances are in pixels)" in in_pixels
    assert "HD95 [px]" in in_pixels
    assert "empty prediction only 1, both empty 0 of 3 (policy: score)" in in_pixels
    assert "toolbox" not in in_pixels
    in_millimetres = terminal_table(
        evaluate_folders(nifti_folders.predictions, nifti_folders.references, tolerance=1.5)
    )
    assert "NSD at 1.5 mm" in in_millimetres
    assert "HD95 [mm]" in in_millimetres
    assert "Size error [ml]" in in_millimetres


def test_csv_holds_every_case_exactly(evaluation, tmp_path):
    write_report(evaluation, tmp_path / "out", plots=False)
    with (tmp_path / "out" / "cases.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [r["case"] for r in rows] == ["a", "b", "c"]
    assert [float(r["dice"]) for r in rows] == [s.values["dice"] for s in evaluation.scores]
    assert [int(r["tp"]) for r in rows] == [100, 120, 0]
    assert [r["empty"] for r in rows] == ["", "", "prediction"]
    assert {"hd95_px", "reference_area_px", "area_error_px"} <= set(rows[0])


def test_missing_values_are_empty_cells_and_null(nifti_folders, tmp_path):
    evaluation = evaluate_folders(nifti_folders.predictions, nifti_folders.references, empty_policy="nan-reference")
    write_report(evaluation, tmp_path, plots=False)
    rows = list(csv.DictReader((tmp_path / "cases.csv").open(newline="")))
    assert rows[3]["dice"] == rows[3]["hd95_mm"] == ""
    assert float(rows[3]["specificity"]) == 1
    document = json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} in JSON"))
    assert document == summary_as_json(evaluation)
    assert document["classes"]["consolidation"]["empty_both"] == 1
    assert document["settings"]["empty_policy"] == "nan-reference"


def test_a_class_without_any_value_has_no_mean(nifti_folders):
    (nifti_folders.predictions / "case_1.nii.gz").unlink()
    (nifti_folders.references / "case_1.nii.gz").unlink()
    evaluation = evaluate_folders(nifti_folders.predictions, nifti_folders.references, empty_policy="nan-both")
    summary = summarise(evaluation)
    assert math.isnan(summary.classes["consolidation"].metrics["dice"].mean)
    assert summary.mean_over_classes["dice"] == summary.classes["ggo"].metrics["dice"].mean
    assert summary_as_json(evaluation)["classes"]["consolidation"]["metrics"]["dice"]["mean"] is None


def test_columns_are_aligned():
    assert aligned(["name", "x"], [["a", "1.25"], ["long name", "3"]]) == [
        "name          x",
        "─────────  ────",
        "a          1.25",
        "long name     3",
    ]
