"""What a sweep file says, and what it becomes."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.sweep.plan import Slurm, make_sweep, read_sweep, start_of
from nnunet_covid.sweep.runs import Run, put_damaged_aside

HERE = {"datasets": 940, "configurations": "2d", "device": "cpu"}


@pytest.fixture(autouse=True)
def _data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2 import paths

    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
        assert getattr(paths, name).get() == str(tmp_path / name)
    (tmp_path / "nnUNet_preprocessed/Dataset940_Tiny").mkdir()


def trainings(content: dict[str, Any]) -> list[Run]:
    return [run for run in make_sweep("test", {**HERE, **content}).runs if run.kind != "prepare"]


def test_a_grid_is_the_product_of_its_parts_once_each() -> None:
    found = trainings(
        {"trainers": ["A", "B"], "lengths": ["1epochs", "2epochs"], "seeds": [0, 1], "folds": [0, 1, 1], "plans": "P"}
    )
    assert len({run.key for run in found}) == len(found) == 16
    assert found[0].key == "Dataset940_Tiny/A_1epochs_seed0__P__2d/fold_0"
    assert all(run.needs == ("Dataset940_Tiny/prepare__P",) for run in found)
    assert len(trainings({"trainers": "A"})) == 5, "nnU-Net's folds"
    assert trainings({"trainers": "A", "folds": "all"})[0].key.endswith("A__nnUNetPlans__2d/fold_all")


def test_a_training_waits_for_the_pre_training_that_it_names(tmp_path: Path) -> None:
    content = {
        "trainers": "A",
        "seeds": 1,
        "folds": 0,
        "pretrain": [{"name": "own", "images": ".", "options": ["--steps", 5]}],
        "train": [{"pretrained": "own"}],
    }
    sweep = make_sweep("test", {**HERE, **content})
    before, plain, started = (
        next(run for run in sweep.runs if run.kind == kind and bool(run.start) == start)
        for kind, start in (("pretrain", False), ("train", False), ("train", True))
    )
    assert before.command(tmp_path)[:4] == ("nnunet-covid", "pretrain", "Dataset940_Tiny", "2d")
    assert before.key in started.needs
    assert before.key not in plain.needs
    assert plain.key == "Dataset940_Tiny/A_seed1__nnUNetPlans__2d/fold_0"
    assert started.key == f"pretrained_own/{plain.key}", "not the folder of the one from random weights"
    checkpoint = start_of(started, sweep, tmp_path)
    assert checkpoint == tmp_path / "Dataset940_Tiny/pretraining/A__nnUNetPlans__2d/own/checkpoint_final.pth"
    words = started.command(tmp_path, checkpoint)
    assert words[words.index("-pretrained_weights") + 1] == str(checkpoint)
    with pytest.raises(UserError, match="does not pre-train B_seed1"):
        make_sweep("test", {**HERE, **content, "train": [{"pretrained": "own", "trainers": "B"}]})


def test_a_pre_training_on_one_fold_is_for_that_fold_alone() -> None:
    own = {"name": "own", "images": ".", "trainers": "A", "options": ["--steps", 5, "-f", 1]}
    content = {**HERE, "pretrain": [own], "train": [{"pretrained": "own", "trainers": "A", "folds": [1, "all"]}]}
    assert len(make_sweep("test", content).runs) == 4
    content["train"][0]["folds"] = [1, 2]
    with pytest.raises(UserError, match="own sees the training images of fold 1, validation images of fold 2 among"):
        make_sweep("test", content)


@pytest.mark.parametrize(
    ("table", "key"),
    [*(("pretrain", key) for key in ("lengths", "folds", "seeds", "probabilities")), ("pseudo_label", "probabilities")],
)
def test_a_key_that_means_nothing_to_a_table_is_refused_there_and_passed_over_at_the_top(table: str, key: str) -> None:
    value = {"lengths": "5epochs", "probabilities": True}.get(key, 1)
    entry = {"name": "Own", "images": ".", "trainers": "A"} | ({"strategy": "random"} if table != "pretrain" else {})
    make_sweep("test", {**HERE, key: value, table: [entry]})
    with pytest.raises(UserError, match=rf"test \[\[{table}\]\]: unknown key '{key}'"):
        make_sweep("test", {**HERE, table: [{**entry, key: value}]})


def test_rounds_are_a_kind_of_run(tmp_path: Path) -> None:
    table = {"name": "Rand", "strategy": "random", "images": "un", "trainers": "A", "folds": 2}
    (run,) = trainings({"pseudo_label": [table]})
    assert run.key == "Dataset940_Tiny/A_pseudoRand__nnUNetPlans__2d/fold_2"
    words = run.command(tmp_path)
    assert words[:5] == ("nnunet-covid", "pseudo-label", "Dataset940_Tiny", "2d", "2")
    assert words[words.index("--strategy") + 1] == "random"


def test_what_slurm_is_asked_for_is_checked() -> None:
    sweep = make_sweep("test", {**HERE, "trainers": "A", "slurm": {"minutes": 5, "partition": "gpu", "setup": ["x"]}})
    assert sweep.slurm == Slurm(minutes=5, partition="gpu", setup=("x",))
    with pytest.raises(UserError, match=r"minutes = '1:00'"):
        make_sweep("test", {**HERE, "trainers": "A", "slurm": {"minutes": "1:00"}})


def test_a_run_goes_on_from_what_is_there(tmp_path: Path) -> None:
    run = Run("train", "Dataset940_Tiny", "2d", "A", "0")
    folder = tmp_path / run.key
    folder.mkdir(parents=True)

    def words() -> tuple[str, ...]:
        return run.command(tmp_path)

    assert not {"--c", "--val"} & set(words())
    with zipfile.ZipFile(folder / "checkpoint_best.pth", "w") as checkpoint:
        checkpoint.writestr("archive/data.pkl", b"weights")
    assert "--c" in words()
    whole = (folder / "checkpoint_best.pth").read_bytes()
    (folder / "checkpoint_latest.pth").write_bytes(whole[:-9])
    assert [path.name for path in put_damaged_aside(folder)] == ["checkpoint_latest.damaged"]
    assert "--c" in words()
    (folder / "checkpoint_final.pth").write_bytes(whole)
    assert "--val" in words()
    assert not run.finished(tmp_path, tmp_path)
    (folder / "validation").mkdir()
    (folder / "validation/summary.json").write_text('{"mean": ')
    assert not run.finished(tmp_path, tmp_path), "half a summary"
    (folder / "validation/summary.json").write_text("{}")
    assert run.finished(tmp_path, tmp_path)


def finish(run: Run, results: Path) -> None:
    """As a job of a sweep does it; nnU-Net's folder of pre-processed data lies in that of the results."""
    run.note_what_makes_it(results, results / "nnUNet_preprocessed")
    (results / run.key / "validation").mkdir()
    (results / run.key / "validation/summary.json").write_text("{}")
    zipfile.ZipFile(results / run.key / "checkpoint_final.pth", "w").close()


def from_file(weights: Path, content: bytes) -> Run:
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(content)
    (run,) = trainings({"train": [{"trainers": "A", "folds": 0, "pretrained": str(weights)}]})
    return run


def test_a_training_from_another_file_of_the_same_name_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    mine, theirs = (from_file(tmp_path / name / "checkpoint_final.pth", name.encode()) for name in ("a", "b"))
    finish(mine, tmp_path)
    assert mine.finished(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"fold_0 was made with weights = '\w{64}', not '\w{64}': move it away"):
        theirs.finished(tmp_path, tmp_path)
    (tmp_path / mine.key / "checkpoint_final.pth").rename(tmp_path / mine.key / "checkpoint_best.pth")
    with pytest.raises(UserError, match="was made with weights"):
        theirs.finished(tmp_path, tmp_path)  # nor continued
    from_file(Path(mine.start), b"others")
    with pytest.raises(UserError, match="was made with weights"):
        mine.finished(tmp_path, tmp_path)


def test_the_same_weights_in_another_place_or_gone_since_are_the_same(tmp_path: Path) -> None:
    mine, copied = (from_file(tmp_path / name / "weights.pth", b"same") for name in ("a", "b"))
    finish(mine, tmp_path)
    assert copied.finished(tmp_path, tmp_path)
    Path(mine.start).unlink()
    assert mine.finished(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("table", "other"),
    [
        ("pretrain", {"name": "own", "images": "un", "options": ["--steps", 6]}),
        ("pretrain", {"name": "own", "images": "others", "options": ["--steps", 5]}),
        ("pseudo_label", {"name": "R", "images": "un", "strategy": "iterative"}),
        ("train", {"options": ["--disable_checkpointing"]}),
    ],
)
def test_what_was_made_with_other_options_is_not_taken_for_ones_own(
    table: str, other: dict[str, Any], tmp_path: Path
) -> None:
    """Nor is a training that starts from such a pre-training."""
    usual = {
        "pretrain": {"name": "own", "images": "un", "options": ["--steps", 5]},
        "pseudo_label": {"name": "R", "images": "un", "strategy": "random"},
        "train": {},
    }

    def made(content: dict[str, Any]) -> list[Run]:
        further = {"train": [{"trainers": "A", "pretrained": "own"}]} if table == "pretrain" else {}
        return trainings({"folds": 0, **further, table: [{"trainers": "A", **content}]})

    for mine, again, changed in zip(made(usual[table]), made(usual[table]), made(other), strict=True):
        finish(mine, tmp_path)
        assert again.finished(tmp_path, tmp_path)
        with pytest.raises(UserError, match=f"{mine.key} was made with .+: move it away"):
            changed.finished(tmp_path, tmp_path)


def test_results_of_before_there_was_a_record_count_but_from_files_of_weights(tmp_path: Path) -> None:
    pretraining = {"name": "own", "images": "un", "options": ["--steps", 5]}
    grid = {"folds": 0, "trainers": "A"}
    runs = trainings({**grid, "pretrain": [pretraining], "train": [{"pretrained": "own"}]})
    runs.append(from_file(tmp_path / "weights.pth", b"weights"))
    for run in runs:
        finish(run, tmp_path)
        (tmp_path / run.key / "sweep.json").unlink()
    assert all(run.finished(tmp_path, tmp_path) for run in runs[:-1])
    with pytest.raises(UserError, match="does not say which weights it started from") as said:
        runs[-1].finished(tmp_path, tmp_path)
    written = str(said.value).partition("write ")[2].partition(" into ")[0]
    (tmp_path / runs[-1].key / "sweep.json").write_text(written)
    assert runs[-1].finished(tmp_path, tmp_path)


def test_options_that_led_to_nothing_can_be_corrected(tmp_path: Path) -> None:
    wrong, right = (trainings({"train": [{"trainers": "A", "options": o}]})[0] for o in ("--nmu_gpus", "--num_gpus"))
    wrong.note_what_makes_it(tmp_path, tmp_path)
    assert not right.finished(tmp_path, tmp_path)
    finish(right, tmp_path)
    assert right.finished(tmp_path, tmp_path)


def write_plans(preprocessed: Path, spacing: list[int], inherited: int = 2, other: int = 1) -> None:
    file = preprocessed / "Dataset940_Tiny/nnUNetPlans.json"
    configurations = {
        "2d": {"spacing": spacing, "inherits_from": "base"},
        "base": {"batch_size": inherited},
        "3d": {"spacing": other},
    }
    file.write_text(json.dumps({"configurations": configurations, "transpose_forward": [0, 1, 2]}))


def test_what_was_made_with_plans_that_were_made_anew_since_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """Folds of two plans are no model, and none is continued on other plans; other configurations may change."""
    preprocessed = tmp_path / "nnUNet_preprocessed"
    pretrain = {"name": "own", "images": "."}
    rounds = {"name": "R", "images": ".", "strategy": "random"}
    content = {"trainers": "A", "folds": 0, "pretrain": [pretrain], "pseudo_label": [rounds]}
    for run in trainings(content):
        write_plans(preprocessed, [1, 1])
        finish(run, tmp_path)
        write_plans(preprocessed, [1, 1], other=2)
        assert run.finished(tmp_path, preprocessed)
        for changed in ({"spacing": [4, 4]}, {"spacing": [1, 1], "inherited": 3}):
            write_plans(preprocessed, **changed)
            with pytest.raises(UserError, match=r"was made with plans_digest = '\w{8}', not '\w{8}': move it away"):
                run.finished(tmp_path, preprocessed)
        folder = tmp_path / run.key
        (folder / "checkpoint_final.pth").rename(folder / "checkpoint_latest.pth")
        assert "plans_digest" in run.made_otherwise(tmp_path, preprocessed), "nor continued"
        (preprocessed / "Dataset940_Tiny/nnUNetPlans.json").unlink()
        assert not run.made_otherwise(tmp_path, preprocessed), "the plans are gone"


def test_what_was_recorded_before_plans_were_counts_on_any(tmp_path: Path) -> None:
    preprocessed = tmp_path / "nnUNet_preprocessed"
    (run,) = trainings({"trainers": "A", "folds": 0})
    write_plans(preprocessed, [1, 1])
    finish(run, tmp_path)
    record = tmp_path / run.key / "sweep.json"
    made = json.loads(record.read_text(encoding="utf-8"))
    del made["plans_digest"]
    record.write_text(json.dumps(made))
    write_plans(preprocessed, [4, 4])
    assert run.finished(tmp_path, preprocessed)


def write_folds(preprocessed: Path, *folds: tuple[str, str]) -> None:
    content = [{"train": train.split(), "val": val.split()} for train, val in folds]
    (preprocessed / "Dataset940_Tiny/splits_final.json").write_text(json.dumps(content))


def test_what_was_made_on_other_folds_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    """Nor continued: the checkpoint knows what is validated on now. Other folds may change, or be added."""
    preprocessed = tmp_path / "nnUNet_preprocessed"
    rounds = {"name": "R", "images": ".", "strategy": "random"}
    pretrain = {"name": "own", "images": ".", "options": ["-f", 1]}
    for run in trainings({"trainers": "A", "folds": 1, "pseudo_label": [rounds], "pretrain": [pretrain]}):
        write_folds(preprocessed, ("a b", "c"), ("b c", "a"))
        finish(run, tmp_path)
        write_folds(preprocessed, ("a", "b"), ("c b", "a"), ("a", "c"))
        assert run.finished(tmp_path, preprocessed)
        for fold in (("a c", "b"), ("c", "a"), ("b c", "a d")):
            write_folds(preprocessed, ("a b", "c"), fold)
            with pytest.raises(UserError, match=r"was made with fold_digest = '\w{8}', not '\w{8}': move it away"):
                run.finished(tmp_path, preprocessed)
        folder = tmp_path / run.key
        (folder / "checkpoint_final.pth").rename(folder / "checkpoint_latest.pth")
        assert "fold_digest" in run.made_otherwise(tmp_path, preprocessed)
        (preprocessed / "Dataset940_Tiny/splits_final.json").unlink()
        assert not run.made_otherwise(tmp_path, preprocessed), "the folds are gone"


def test_what_began_before_folds_were_recorded_or_made_counts_on_any(tmp_path: Path) -> None:
    """nnU-Net makes them as it begins the first training; the fold of all cases has none."""
    preprocessed = tmp_path / "nnUNet_preprocessed"
    before, every = trainings({"trainers": "A", "folds": [0, "all"]})
    finish(before, tmp_path)
    write_folds(preprocessed, ("a b", "c"))
    finish(every, tmp_path)
    assert before.finished(tmp_path, preprocessed)
    write_folds(preprocessed, ("b c", "a"))
    assert every.finished(tmp_path, preprocessed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"plans": ["a", "b"]}, "test: plans = .+: expected one text"),
        ({"baseline": ["A"]}, "test: baseline = .+: expected one text"),
        ({"planner": 1}, "test: planner = 1: expected one text"),
        ({"trainers": ["A", ["B"]]}, "test: trainers = .+: expected one text or a list of texts"),
        ({"lengths": 5}, "test: lengths = 5: expected one text or a list of texts"),
        ({"datasets": True}, "test: datasets = True: expected texts or numbers"),
        ({"probabilities": "false"}, "test: probabilities = 'false': expected true or false"),
        ({"train": [{"pretrained": ["a.pth"]}]}, r"test \[\[train\]\]: pretrained = .+: expected one text"),
        ({"train": [{"options": {"a": 1}}]}, r"test \[\[train\]\]: options = .+: expected texts or numbers"),
        ({"slurm": {"setup": [["module load x"]]}}, r"test \[slurm\]: setup = .+: expected one text or a list"),
        ({"new_configurations": {"2d": 3}}, r"test \[new_configurations.2d\]: expected a table"),
        ({"new_configurations": {"2d": {"smaller": "false"}}}, "smaller = 'false': expected true or false"),
        ({"new_configurations": {"2d": {}}, "train": [1]}, r"test \[\[train\]\]: expected a table"),
        (
            {"pretrain": [{"name": "my_own", "images": "."}]},
            r"test \[\[pretrain\]\]: `name` my_own: letters and digits",
        ),
        (
            {"pseudo_label": [{"name": "R-1", "images": ".", "strategy": "random"}]},
            r"\[\[pseudo_label\]\]: `name` R-1: lett",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        make_sweep("test", {**HERE, "trainers": "A", **content})


def test_python_3_10_without_its_reader_of_toml_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.toml").touch()
    monkeypatch.setitem(sys.modules, "tomli", None)
    monkeypatch.setattr("nnunet_covid.sweep.plan.sys", SimpleNamespace(version_info=(3, 10)))
    with pytest.raises(UserError, match=r"s.toml: .+ tomli: pip install .+cluster"):
        read_sweep(tmp_path / "s.toml")


def test_python_3_10_has_a_reader_of_toml() -> None:
    from importlib.metadata import requires

    assert any(line.startswith("tomli") and "cluster" in line for line in requires("nnunet_covid") or [])
