"""Comparing evaluations read from disk: verdicts, settings, cases, and what is refused."""

import csv
import json

import numpy as np
import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import evaluate_folders, write_report
from nnunet_covid.evaluation.comparison import (
    compare_evaluations,
    comparison_record,
    comparison_table,
    notes_on_settings,
    write_comparison,
)

CASES = 12
SETTINGS = {"nsd_tolerance": 3.0, "empty_policy": "score", "length_unit": "mm", "size_unit": "ml"}


def write_scores(folder, dice, hd95=None, unit="mm", cases=None, **settings):
    """An evaluation as ``evaluate -o`` leaves it."""
    folder.mkdir(parents=True)
    names = cases or [f"case_{i}" for i in range(len(dice))]
    distances = np.full(len(dice), 5.0) if hd95 is None else hd95
    with (folder / "cases.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["case", "class", "empty", "tp", "fp", "fn", "tn", "dice", f"hd95_{unit}", "nsd"])
        for name, d, h in zip(names, dice, distances, strict=True):
            writer.writerow([name, "lesion", "", 1, 1, 1, 1, "" if np.isnan(d) else d, h, 0.5])
    (folder / "summary.json").write_text(json.dumps({"settings": SETTINGS | settings}))
    return folder


@pytest.fixture
def methods(tmp_path):
    """Three methods: ``good`` beats ``poor`` on nearly every case, ``alike`` is ``good`` with noise."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.8, CASES)
    return [
        write_scores(tmp_path / "good", base, hd95=10 - 5 * base),
        write_scores(tmp_path / "poor", base - rng.uniform(0.02, 0.1, CASES), hd95=20 - 5 * base),
        write_scores(tmp_path / "alike", base + rng.normal(0, 0.01, CASES), hd95=10 - 5 * base),
    ]


def test_every_pair_is_compared_and_the_better_is_named(methods):
    compared = {(c.a, c.b, c.metric.key): c for c in compare_evaluations(methods, metrics=["dice", "hd95"])}
    assert len(compared) == 6
    assert compared["good", "poor", "dice"].better == "good"
    assert compared["poor", "alike", "dice"].better == "alike"
    assert compared["good", "alike", "dice"].better is None
    # Less is better here, so the negative difference speaks for the first.
    assert compared["good", "poor", "hd95"].statistics.mean_difference < 0
    assert compared["good", "poor", "hd95"].better == "good"
    assert compared["good", "alike", "hd95"].statistics.ties == CASES


def test_p_values_are_adjusted_within_a_metric(methods):
    rows = compare_evaluations(methods, metrics=["dice"])
    smallest = min(rows, key=lambda c: c.statistics.wilcoxon_p)
    assert smallest.holm_p == pytest.approx(3 * smallest.statistics.wilcoxon_p)
    (alone,) = compare_evaluations(methods[:2], metrics=["dice"])
    assert alone.holm_p == alone.statistics.wilcoxon_p


def test_the_order_of_rows_in_the_files_does_not_matter(methods, tmp_path):
    table = methods[1] / "cases.csv"
    head, *rows = table.read_text().splitlines()
    shuffled = tmp_path / "shuffled.csv"
    shuffled.write_text("\n".join([head, *reversed(rows)]))
    (expected,) = compare_evaluations(methods[:2], metrics=["dice"])
    (found,) = compare_evaluations([methods[0], shuffled], names=["good", "poor"], metrics=["dice"])
    assert found == expected


def test_different_cases_are_refused_or_intersected(tmp_path):
    a = write_scores(tmp_path / "a", np.array([0.1, 0.2, 0.3]), cases=["x", "y", "z"])
    b = write_scores(tmp_path / "b", np.array([0.2, 0.3, 0.4]), cases=["y", "z", "w"])
    with pytest.raises(UserError, match=r"'b' lacks x \(lesion\), which 'a' has; compare the common cases only"):
        compare_evaluations([a, b], metrics=["dice"])
    (shared,) = compare_evaluations([a, b], metrics=["dice"], common_cases=True)
    assert (shared.statistics.n, shared.statistics.ties) == (2, 2)
    c = write_scores(tmp_path / "c", np.array([0.2]), cases=["q"])
    with pytest.raises(UserError, match="no case in common"):
        compare_evaluations([a, c], metrics=["dice"], common_cases=True)


def test_cases_left_out_by_the_policy_are_left_out_of_the_pair(tmp_path):
    a = write_scores(tmp_path / "a", np.array([0.1, np.nan, 0.3]))
    b = write_scores(tmp_path / "b", np.array([0.2, 0.2, np.nan]))
    (row,) = compare_evaluations([a, b], metrics=["dice"])
    assert row.statistics.n == 1


@pytest.mark.parametrize(
    ("theirs", "complaint"),
    [({"nsd_tolerance": 2.0}, "different nsd tolerance: 3.0 and 2.0"), ({"empty_policy": "nan-both"}, "empty policy")],
)
def test_different_settings_are_refused(tmp_path, theirs, complaint):
    a = write_scores(tmp_path / "a", np.ones(3))
    b = write_scores(tmp_path / "b", np.ones(3), **theirs)
    with pytest.raises(UserError, match=complaint):
        compare_evaluations([a, b])


@pytest.mark.parametrize(
    "content",
    ["", "{", "{}", "[]", "null", '{"settings": null}', '{"settings": {"nsd_tolerance": 3.0}}', "\xff"],
)
def test_a_damaged_summary_is_refused(methods, content):
    (methods[1] / "summary.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"poor/summary\.json: is not a summary written by .*; evaluate again") as error:
        compare_evaluations(methods)
    assert "\n" not in str(error.value)


def test_a_missing_summary_is_noted(methods):
    assert notes_on_settings(methods) == []
    (methods[1] / "summary.json").unlink()
    assert compare_evaluations(methods)
    (note,) = notes_on_settings([methods[0], methods[1] / "cases.csv", methods[2]])
    assert note.startswith(f"{methods[1] / 'cases.csv'}: no summary.json beside its table")
    assert "nsd_tolerance, empty_policy" in note


def test_millimetres_and_pixels_are_not_compared(tmp_path):
    a, b = write_scores(tmp_path / "a", np.ones(3)), write_scores(tmp_path / "b", np.ones(3), unit="px")
    with pytest.raises(UserError, match="hd95 is in mm in one and in pixels in another"):
        compare_evaluations([a, b])


def test_all_takes_the_metrics_that_every_table_has(methods):
    assert {c.metric.key for c in compare_evaluations(methods, metrics=["all"])} == {"dice", "hd95", "nsd"}


def test_methods_of_equal_folder_names_are_told_apart(tmp_path):
    a = write_scores(tmp_path / "inf_net" / "evaluation", np.ones(3))
    b = write_scores(tmp_path / "nnunet" / "evaluation", np.ones(3))
    (row,) = compare_evaluations([a, b], metrics=["dice"])
    assert (row.a, row.b) == ("inf_net/evaluation", "nnunet/evaluation")


def test_bad_requests_are_refused(methods, tmp_path):
    with pytest.raises(UserError, match="at least two"):
        compare_evaluations(methods[:1])
    with pytest.raises(UserError, match="unknown metric dise"):
        compare_evaluations(methods, metrics=["dise"])
    with pytest.raises(UserError, match="metric s_measure is missing in good, poor, alike"):
        compare_evaluations(methods, metrics=["s_measure"])
    with pytest.raises(UserError, match="a different name for each"):
        compare_evaluations(methods, names=["a", "a", "b"])
    with pytest.raises(UserError, match=r"cases\.csv cannot be read as a table .*; name a folder written by"):
        compare_evaluations([tmp_path, methods[0]])
    other = tmp_path / "other.csv"
    other.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="not a table written by"):
        compare_evaluations([methods[0], other])
    broken = tmp_path / "broken.csv"
    broken.write_text((methods[0] / "cases.csv").read_text().replace("lesion,,1,1,1,1,0", "lesion,,1,1,1,1,x", 1))
    with pytest.raises(UserError, match="no number"):
        compare_evaluations([methods[0], broken])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line.rpartition(",")[0], "holds something that is no number"),
        (lambda line: line.replace(".", ","), "more values than columns in the line of"),
    ],
)
def test_a_line_of_another_length_is_refused(change, says, methods, tmp_path):
    *lines, last = (methods[0] / "cases.csv").read_text().splitlines()
    (tmp_path / "cases.csv").write_text("\n".join([*lines, change(last)]))
    with pytest.raises(UserError, match=says):
        compare_evaluations([methods[1], tmp_path / "cases.csv"])


def test_a_table_that_a_spreadsheet_has_saved_is_the_same(methods, tmp_path):
    text = (methods[0] / "cases.csv").read_text()
    nothing = "," * text.splitlines()[0].count(",")
    (tmp_path / "cases.csv").write_text(text + nothing + "\n", encoding="utf-8-sig", newline="\r\n")
    (expected,) = compare_evaluations(methods[:2], names=["a", "b"], metrics=["dice"])
    (found,) = compare_evaluations([tmp_path / "cases.csv", methods[1]], names=["a", "b"], metrics=["dice"])
    assert found == expected


def test_table_and_files_hold_the_same_figures(methods, tmp_path):
    compared = compare_evaluations(methods)
    text = comparison_table(compared)
    assert len(text.splitlines()) == 2 + len(compared) + 3
    assert "95 % interval" in text.splitlines()[0]
    assert "cannot fall below" not in text
    table, document = write_comparison(compared, tmp_path)
    records = json.loads(document.read_text())
    assert records == [comparison_record(c) for c in compared]
    rows = list(csv.DictReader(table.open(newline="")))
    assert [float(r["mean_difference"]) for r in rows] == [c.statistics.mean_difference for c in compared]


def test_few_cases_come_with_a_warning(tmp_path):
    folders = [write_scores(tmp_path / n, np.linspace(0.1, 0.5, 4) + i) for i, n in enumerate("ab")]
    assert "With 4 cases Wilcoxon's p cannot fall below 0.125." in comparison_table(compare_evaluations(folders))


@pytest.mark.parametrize(("common", "few"), [(0, ""), (1, "With 1 case Wilcoxon's p cannot fall below 1.")])
def test_that_no_case_has_a_value_is_said(common, few, tmp_path):
    dice = np.linspace(0.1, 0.5, CASES)
    nothing, some = np.full(CASES, np.nan), np.where(np.arange(CASES) < common, 1, np.nan)
    folders = [write_scores(tmp_path / n, d) for n, d in (("a", dice), ("b", nothing), ("c", some))]
    text = comparison_table(compare_evaluations(folders, metrics=["dice"]))
    assert "Where n is 0, no case has a value of both: there is nothing to compare." in text
    assert few in text
    assert "With 0" not in text


def test_what_evaluate_writes_can_be_compared(png_folders, tmp_path):
    evaluation = evaluate_folders(png_folders.predictions, png_folders.references)
    for name in ("first", "second"):
        write_report(evaluation, tmp_path / name, plots=False)
    rows = compare_evaluations([tmp_path / "first", tmp_path / "second"], metrics=["all"])
    assert {r.column for r in rows} >= {"dice", "hd95_px", "label_mae"}
    assert all(r.statistics.ties == 3 and r.better is None for r in rows)
