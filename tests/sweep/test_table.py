"""The table of a sweep: the docs' own, and by hand."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from image_files import write_picture

from nnunet_covid.errors import UserError
from nnunet_covid.sweep.plan import Sweep, make_sweep, read_sweep
from nnunet_covid.sweep.runs import Run
from nnunet_covid.sweep.scores import COLUMNS, Labels, Row, labels_of, read_scores, score, scored_rows, write_scores
from nnunet_covid.sweep.status import Places
from nnunet_covid.sweep.table import as_text, paired, summarised, terminal, write_table

REPOSITORY = Path(__file__).resolve().parents[2]
SWEEPS = sorted((REPOSITORY / "benchmarks/sweeps").glob("*.toml"))


def _of_the_docs(name: str) -> Sweep:
    return make_sweep(name, read_sweep(REPOSITORY / f"benchmarks/sweeps/{name}.toml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda path: path.stem)
def test_the_sweep_files_of_the_docs_can_be_read_and_are_named(file: Path, places: Places) -> None:
    assert _of_the_docs(file.stem).runs
    assert file.name in (REPOSITORY / "docs/explanation/accuracy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "scores", "page"),
    [
        ("gpu_2d_half", "decision_2d_half", "accuracy"),
        ("all_in_one_2d_small", "all_in_one_2d_small", "accuracy"),
        ("ssa_net_2d_small", "covid_semiseg_2d_small", "ssa-net"),
    ],
)
def test_it_is_the_table_of_the_docs(name: str, scores: str, page: str, places: Places) -> None:
    sweep = _of_the_docs(name)
    rows = scored_rows(sweep, places, REPOSITORY / f"benchmarks/results/{scores}.csv")
    head, *lines = as_text(summarised(sweep, places, rows, sweep.baseline))
    text = (REPOSITORY / f"docs/explanation/{page}.md").read_text(encoding="utf-8")
    dice, interval = head.index("Dice, mean ± sd"), head.index("95 % interval")
    asked = {run.trainer for run in sweep.runs if run.kind == "train"}
    scored = {(row["trainer"], row["length"]) for row in rows if _name(row) in asked}
    assert len(lines) == len(scored)
    for line in lines:
        (shown,) = [row for row in text.splitlines() if row.startswith(f"| `{line[0]}`") and line[dice] in row]
        assert line[interval].replace("-", "−") in shown.replace("-", "−")
        assert all(line[i] in shown for i, name in enumerate(head) if name in ("MAE", "sens.", "prec."))


def _name(row: dict[str, str]) -> str:
    return f"{row['trainer']}_{row['length']}_seed{row['seed']}"


def test_differences_are_of_the_same_cases_seeds_averaged() -> None:
    a = {("0", "x", "0"): 0.8, ("0", "x", "1"): 0.6, ("0", "y", "0"): 0.5, ("1", "z", "0"): 0.9}
    b = {("0", "x", "0"): 0.5, ("0", "x", "1"): 0.5, ("0", "y", "0"): 0.7}
    assert np.allclose(sorted(paired(a, b)), [-0.2, 0.2])
    a["5", "x", "0"], b["5", "x", "0"] = 0.9, 0.4  # another fold that validates on it too
    assert np.allclose(sorted(paired(a, b)), [-0.2, 0.3])


def test_every_case_counts_once_however_many_seeds_its_fold_has(places: Places, tmp_path: Path) -> None:
    rows = read_scores(_scores(tmp_path / "scores.csv", {"A": 0.0}, cases=2), dataset="", configuration="")
    easy, hard = ({**rows[0], "case": case, "fold": fold} for case, fold in (("c0", "0"), ("c1", "1")))
    given = [(easy, "0", 0.8, 0.1), (easy, "1", 1.0, 0.3), (hard, "0", 0.4, 0.5)]
    rows = [{**row, "seed": seed, "dice": str(dice), "map_mae": str(mae)} for row, seed, dice, mae in given]
    (line,) = summarised(_on("nnUNetPlans"), places, rows, "A")
    assert line["cases"] == 2
    assert np.allclose([line["dice"], line["dice_sd"], line["map_mae"]], [0.65, 0.5 / np.sqrt(2), 0.35])


def test_it_is_written_as_csv_markdown_and_picture(places: Places, tmp_path: Path) -> None:
    content = {"datasets": 501, "configurations": "2d", "trainers": ["A", "B"], "folds": 0, "seeds": 0}
    sweep = make_sweep("test", {**content, "baseline": "A"})
    rng = np.random.default_rng(0)
    scores = tmp_path / "scores.csv"
    with scores.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        for trainer, gain in (("A", 0.0), ("B", 0.1)):
            for case in range(8):
                row = dict(
                    zip(COLUMNS[:8], ("Dataset501_COVIDSemiSeg", "2d", trainer, "", "0", "0", case, "c"), strict=True)
                )
                writer.writerow({**row, "dice": 0.5 + gain + 0.01 * rng.normal()})
    rows = scored_rows(sweep, places, scores)
    lines = summarised(sweep, places, rows, "A")
    assert "higher, with one seed" in terminal(lines)
    written = write_table(lines, tmp_path / "out")
    assert [path.name for path in written] == ["table.csv", "table.md", "differences.png"]
    (a, b) = csv.DictReader((tmp_path / "out/table.csv").open(encoding="utf-8"))
    assert a["difference"] == ""
    assert abs(float(b["difference"]) - 0.1) < 0.02
    assert "| `B` |" in (tmp_path / "out/table.md").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="C: no finished run of it; there are A, B"):
        summarised(sweep, places, rows, "C")
    assert labels_of(sweep.runs[-1]).trainer == "B"


@pytest.mark.parametrize(
    ("trainer", "shown", "length", "seed"),
    [
        ("A", "A", "", ""),
        ("A_2epochs", "A", "2epochs", ""),
        ("A_50its_seed3", "A", "50its", "3"),
        ("A_consistency_2epochs_50its_seed0", "A_consistency", "2epochs_50its", "0"),
    ],
)
def test_a_trainers_name_is_taken_apart(trainer: str, shown: str, length: str, seed: str) -> None:
    run = Run("train", "Dataset001_A", "2d", trainer, "0")
    assert labels_of(run)[2:] == (shown, length, seed, "0")
    on_others = Run("train", "Dataset001_A", "2d", trainer, "0", plans="nnUNetResEncUNetMPlans")
    assert labels_of(on_others)[2:] == (f"{shown} on nnUNetResEncUNetMPlans", length, seed, "0")
    rounds = Run("pseudo-label", "Dataset001_A", "2d", trainer, "0", name="Mine")
    assert labels_of(rounds)[2:] == (f"{shown}_pseudoMine", length, seed, "0")


def _scores(file: Path, gains: dict[str, float], cases: int = 8) -> Path:
    rng = np.random.default_rng(0)
    named = {"dataset": "Dataset501_COVIDSemiSeg", "configuration": "2d", "length": "", "seed": "0", "fold": "0"}
    rows = [
        {
            **named,
            "trainer": trainer,
            "case": f"c{case}",
            "class": "c",
            "dice": f"{0.5 + gain + 0.01 * rng.normal():.6f}",
        }
        for trainer, gain in gains.items()
        for case in range(cases)
    ]
    write_scores(file, rows)
    return file


def _on(*plans: str) -> Sweep:
    grids = [{"trainers": ["A", "B"], "plans": name} for name in plans]
    top = {"datasets": 501, "configurations": "2d", "folds": 0, "seeds": 0, "baseline": "A"}
    return make_sweep("test", {**top, "train": grids})


def test_runs_on_other_plans_are_others(places: Places, tmp_path: Path) -> None:
    sweep = _on("nnUNetPlans", "wide")
    gains = {"A": 0.0, "B": 0.1, "A on wide": 0.2, "B on wide": 0.3}
    rows = scored_rows(sweep, places, _scores(tmp_path / "scores.csv", gains))
    lines = summarised(sweep, places, rows, "A")
    assert {line["trainer"]: round(line["dice"] - 0.5, 1) for line in lines} == gains
    assert {line["trainer"]: round(line["difference"], 1) for line in lines if "difference" in line} == {
        "B": 0.1,
        "A on wide": 0.2,
        "B on wide": 0.3,
    }


def test_a_baseline_may_name_its_length(places: Places, tmp_path: Path) -> None:
    content = {"datasets": 501, "configurations": "2d", "trainers": ["A", "B"], "lengths": ["5epochs", "20epochs"]}
    sweep = make_sweep("test", {**content, "folds": 0, "seeds": 0, "baseline": "A"})
    labels = [(trainer, length) for length in ("5epochs", "20epochs") for trainer in "AB"]
    dice = dict(zip(labels, (0.5, 0.6, 0.55, 0.7), strict=True))
    rows = [
        dict(
            zip(COLUMNS[:8], ("Dataset501_COVIDSemiSeg", "2d", trainer, length, "0", "0", case, "c"), strict=True),
            dice=str(value + case / 100),
        )
        for (trainer, length), value in dice.items()
        for case in range(3)
    ]
    lines = {(line["trainer"], line["length"]): line for line in summarised(sweep, places, rows, "A_20epochs")}
    found = {key: round(line["difference"], 3) for key, line in lines.items() if "difference" in line}
    assert found == {("A", "5epochs"): -0.05, ("B", "5epochs"): 0.05, ("B", "20epochs"): 0.15}
    assert lines["B", "5epochs"]["baseline"] == "A_20epochs"
    assert lines["B", "20epochs"]["baseline"] == "A"
    with pytest.raises(UserError, match="no finished run of it"):
        summarised(sweep, places, rows, "A_30epochs")


def test_where_one_kind_of_plans_was_trained_the_baseline_is_on_it(places: Places, tmp_path: Path) -> None:
    sweep = _on("wide")
    rows = scored_rows(sweep, places, _scores(tmp_path / "scores.csv", {"A on wide": 0.0, "B on wide": 0.1}))
    for baseline in ("A", "A on wide"):
        _, line = summarised(sweep, places, rows, baseline)
        assert (line["baseline"], round(line["difference"], 1)) == ("A on wide", 0.1)
    assert "Dice − A on wide (cases)" in terminal(summarised(sweep, places, rows, "A"))
    with pytest.raises(UserError, match="no finished run of it; there are A on wide, B on wide"):
        summarised(sweep, places, rows, "C")


def test_a_table_that_a_spreadsheet_has_saved_is_the_same(tmp_path: Path) -> None:
    file = _scores(tmp_path / "scores.csv", {"A": 0.0}, cases=2)
    expected = read_scores(file, dataset="", configuration="")
    assert {row["dataset"] for row in expected} == {"Dataset501_COVIDSemiSeg"}
    nothing = "," * (len(COLUMNS) - 1)
    text = file.read_text(encoding="utf-8").replace("\n", f"\r\n{nothing}\r\n", 1)
    file.write_text(text, encoding="utf-8-sig", newline="")
    assert read_scores(file, dataset="other", configuration="other") == expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda line: line.replace("0.5", "half"), "lacks a score, or a number is none"),
        (lambda line: line.replace("0.5", "0,5") + ",1", "more values than columns in the line of Dataset501"),
    ],
)
def test_a_line_that_is_not_whole_is_refused(change: Callable[[str], str], says: str, tmp_path: Path) -> None:
    file = _scores(tmp_path / "scores.csv", {"A": 0.0}, cases=2)
    *lines, last = file.read_text(encoding="utf-8").replace(",0.4", ",0.5").splitlines()
    file.write_text("\n".join([*lines, change(last)]), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_scores(file, dataset="", configuration="")


def test_the_classes_of_a_case_are_not_counted_as_cases(places: Places, tmp_path: Path) -> None:
    """Twice the same class says nothing new: mean, spread and interval are those of one."""
    sweep, file = _on("nnUNetPlans"), tmp_path / "scores.csv"
    rows = scored_rows(sweep, places, _scores(file, {"A": 0.0, "B": 0.1}))
    write_scores(file, [*rows, *({**row, "class": "d"} for row in rows)])
    assert summarised(sweep, places, scored_rows(sweep, places, file), "A") == summarised(sweep, places, rows, "A")
    two = [row if row["class"] == "c" else {**row, "dice": "0"} for row in scored_rows(sweep, places, file)]
    _, line = summarised(sweep, places, two, "A")
    assert line["pairs"] == line["cases"] == 8
    assert abs(line["difference"] - 0.05) < 0.01, "half of the one class's"


def test_what_the_fold_of_all_cases_is_validated_on_is_no_score(places: Places, tmp_path: Path) -> None:
    """It was trained on it."""
    content = {"datasets": 501, "configurations": "2d", "trainers": ["A", "B"], "folds": [0, "all"], "seeds": 0}
    file = _scores(tmp_path / "scores.csv", {"A": 0.0, "B": 0.1})
    rows = read_scores(file, dataset="", configuration="")
    write_scores(file, [*rows, *({**row, "fold": "all", "dice": "0.99"} for row in rows)])
    assert {row["fold"] for row in scored_rows(make_sweep("test", content), places, file)} == {"0"}


def test_a_line_that_was_taken_out_is_scored_again(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep, file, times = _on("nnUNetPlans"), tmp_path / "scores.csv", []

    def score(labels: Labels, *_: Path) -> list[Row]:
        times.append(labels)
        return [{**labels._asdict(), "case": f"c{case}", "class": "c", "dice": "0.5"} for case in range(3)]

    monkeypatch.setattr("nnunet_covid.sweep.scores.score", score)
    _finished(places, sweep.runs[1], json.dumps({"metric_per_case": [{"metrics": {"1": {}}}] * 3}))
    for expected in (1, 1):
        assert len(scored_rows(sweep, places, file)) == 3
        assert len(times) == expected
    write_scores(file, read_scores(file, dataset="", configuration="")[1:])
    assert len(scored_rows(sweep, places, file)) == 3
    assert len(times) == 2


def test_probabilities_of_an_earlier_training_are_not_scored(tmp_path: Path) -> None:
    predictions, references, told = tmp_path / "model/fold_0/validation", tmp_path / "references", list[str]()
    predictions.mkdir(parents=True)
    dataset_json = json.dumps({"labels": {"background": 0, "c": 1}, "file_ending": ".png"})
    (tmp_path / "model/dataset.json").write_text(dataset_json, encoding="utf-8")
    blob = np.eye(20, dtype=np.uint8)
    for folder in (predictions, references):
        write_picture(folder / "case.png", blob)
    for probability in (blob * 0.9, blob[::-1] * 0.9):
        np.savez(predictions / "case.npz", probabilities=np.stack([1 - probability, probability])[:, None])
        (row,) = score(Labels("D", "2d", "T", "", "", "0"), predictions, references, told.append)
        assert row["dice"] == "1.000000"
        assert bool(row["map_mae"]) == bool(row["s_measure"]) == (not told)
    assert "case.npz does not belong to the label map beside it" in told[0]


def test_predictions_of_an_earlier_split_are_not_scored(places: Places, tmp_path: Path) -> None:
    """They may be of training cases; nnU-Net's own summary counts them, and so may lines of an earlier version."""
    validation, data = _validated(places, "a", "b.1", "c")
    file = tmp_path / "scores.csv"

    def scored() -> tuple[list[str], list[str]]:
        told = list[str]()
        return [row["case"] for row in scored_rows(_on("nnUNetPlans"), places, file, told.append)], told

    assert scored() == (["a", "b.1", "c"], [])
    for names, left, out in (("b.1 c", ["b.1", "c"], "a"), ("d", [], "a, b.1, c")):
        (data / "splits_final.json").write_text(json.dumps([{"train": ["x"], "val": names.split()}]), encoding="utf-8")
        found, (note,) = scored()
        assert found == left == [row["case"] for row in read_scores(file, dataset="", configuration="")]
        assert note == f"note: {validation} holds {out}, no validation cases of this fold: left out"
        assert not left or scored() == (left, []), "once"


def _validated(places: Places, *names: str) -> tuple[Path, Path]:
    """A run that is finished: where its predictions of these cases lie, and the folder of its data set."""
    run, data = _on("nnUNetPlans").runs[1], places.preprocessed / "Dataset501_COVIDSemiSeg"
    validation = places.results / run.key / "validation"
    cases = [{"prediction_file": str(validation / f"{name}.png"), "metrics": {"1": {}}} for name in names]
    _finished(places, run, json.dumps({"metric_per_case": cases}))
    dataset_json = json.dumps({"labels": {"background": 0, "c": 1}, "file_ending": ".png"})
    (validation.parents[1] / "dataset.json").write_text(dataset_json, encoding="utf-8")
    for name in names:
        write_picture(validation / f"{name}.png", np.eye(20, dtype=np.uint8))
        write_picture(data / f"gt_segmentations/{name}.png", np.eye(20, dtype=np.uint8))
    return validation, data


def test_predictions_of_a_scored_run_may_be_deleted(places: Places, tmp_path: Path) -> None:
    """Though nnU-Net's summary counts those of an earlier split; else the error names the folder that lacks them."""
    validation, data = _validated(places, "a", "b")
    (data / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]), encoding="utf-8")
    for file in (tmp_path / "scores.csv", tmp_path / "scores.csv", None):
        if file is None:
            with pytest.raises(UserError, match=f"{validation}.*{data / 'gt_segmentations'}"):
                scored_rows(_on("nnUNetPlans"), places, file)
        else:
            assert [row["case"] for row in scored_rows(_on("nnUNetPlans"), places, file)] == ["b"]
        for path in validation.glob("*.png"):
            path.unlink()


def test_what_is_not_scored_of_a_run_is_told_with_the_folder_where_it_lies(places: Places, tmp_path: Path) -> None:
    validation, data = _validated(places, "a", "b")
    (data / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]), encoding="utf-8")
    other = np.eye(20)[::-1] * 0.9
    np.savez(validation / "b.npz", probabilities=np.stack([1 - other, other])[:, None])
    told = list[str]()
    scored_rows(_on("nnUNetPlans"), places, None, told.append)
    assert f"{validation}/b.npz does not belong" in told[1]


@pytest.mark.parametrize("seeds", [("0", "01"), ("01", "0")])
def test_one_seed_is_one_that_both_have(seeds: tuple[str, str], places: Places, tmp_path: Path) -> None:
    rows = read_scores(_scores(tmp_path / "scores.csv", {"A": 0.0, "B": 0.1}), dataset="", configuration="")
    each = dict(zip("AB", seeds, strict=True))
    rows = [{**row, "seed": seed} for row in rows for seed in each[row["trainer"]]]
    *_, line = summarised(_on("nnUNetPlans"), places, rows, "A")
    assert line["verdict"] == "higher, with one seed"


def _finished(places: Places, run: Run, summary: str) -> None:
    folder = places.results / run.key
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    zipfile.ZipFile(folder / "checkpoint_final.pth", "w").close()
    (folder / "validation/summary.json").write_text(summary)


def test_a_run_that_was_trained_anew_is_scored_anew(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once; rows of runs that lie elsewhere stay as they are."""
    sweep, file = _on("nnUNetPlans"), _scores(tmp_path / "scores.csv", {"A": 0.0, "B": 0.1}, cases=1)
    elsewhere = [row for row in read_scores(file, dataset="", configuration="") if row["trainer"] == "B"]
    dice = iter(("0.1", "0.2"))

    def score(labels: Labels, *_: Path) -> list[Row]:
        return [{**labels._asdict(), "case": "c0", "class": "c", "dice": next(dice)}]

    monkeypatch.setattr("nnunet_covid.sweep.scores.score", score)
    for summary, expected in (("{}", "0.1"), ("{}", "0.1"), ('{"mean": 1}', "0.2")):
        _finished(places, sweep.runs[1], summary)
        rows = scored_rows(sweep, places, file)
        assert [row["dice"] for row in rows if row["trainer"] == "A"] == [expected]
        assert [{**row, "summary": ""} for row in rows if row["trainer"] == "B"] == elsewhere
        kept = read_scores(file, dataset="", configuration="")
        assert [(row["trainer"], row["dice"]) for row in kept] == [("A", expected), ("B", elsewhere[0]["dice"])]
