"""Planning and pre-processing of a data set for a sweep, and the configurations that its file describes."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.sweep.plan import make_sweep
from nnunet_covid.sweep.preparation import Preparation
from nnunet_covid.sweep.runs import Run

pytestmark = pytest.mark.usefixtures("places")
HERE = {"datasets": 940, "configurations": "2d", "device": "cpu"}


def test_a_described_configuration_is_added_to_the_plans(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    arguments = {
        "n_stages": 3,
        "features_per_stage": [32, 64, 128],
        "strides": [1, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
    }
    parent = {"data_identifier": "nnUNetPlans_2d", "architecture": {"arch_kwargs": arguments}}
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": parent}}))
    small = {"spacing": [4, 4], "smaller": True}
    preparation = Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d", "small"], {"small": small})
    assert preparation.missing(folder.parent) == ["2d", "small"], "no cases yet"
    preparation._describe(folder.parent)
    written = preparation.read_plans(folder.parent)["small"]
    assert written["inherits_from"] == "2d"
    assert written["data_identifier"] == "nnUNetPlans_small"
    assert written["architecture"]["arch_kwargs"] == {
        "n_stages": 2,
        "features_per_stage": [16, 32],
        "strides": [1, 2],
        "n_conv_per_stage_decoder": [2],
    }
    for place in ("gt_segmentations/a.png", "nnUNetPlans_2d/a.pkl", "nnUNetPlans_small/a.pkl"):
        (folder / place).parent.mkdir()
        (folder / place).touch()
    assert preparation.finished(folder.parent)
    uneven = {"spacing": [4, 4], "patch_size": [32, 30]}
    with pytest.raises(UserError, match=r"'uneven': 30 of its patch_size \[32, 30\] is no multiple of 4"):
        Preparation("Dataset940_Tiny", "nnUNetPlans", ["uneven"], {"uneven": uneven})._describe(folder.parent)
    even = {**uneven, "smaller": True}  # a stage less
    Preparation("Dataset940_Tiny", "nnUNetPlans", ["even"], {"even": even})._describe(folder.parent)
    with pytest.raises(UserError, match="no configuration 'other'"):
        Preparation("Dataset940_Tiny", "nnUNetPlans", ["other"])._describe(folder.parent)


def test_a_described_configuration_may_inherit_from_another_whether_or_not_a_run_has_that(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    parent = {"data_identifier": "nnUNetPlans_2d", "patch_size": [64, 64]}
    chain = {
        "quarter": {"inherits_from": "half", "batch_size": 4},
        "half": {"inherits_from": "2d", "patch_size": [32, 32]},
    }
    for configurations in ("quarter", ["quarter", "half"], ["half", "quarter"]):
        (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": parent}}))
        content = {**HERE, "trainers": "A", "configurations": configurations, "new_configurations": chain}
        preparation = make_sweep("test", content).runs[0].preparation
        preparation.check_configurations(folder.parent)
        preparation._describe(folder.parent)
        written = preparation.read_plans(folder.parent)
        assert (written["half"]["patch_size"], written["quarter"]["batch_size"]) == ([32, 32], 4)
        assert written["quarter"]["inherits_from"] == "half"
        assert not make_sweep("test", content).runs[0].finished(tmp_path, folder.parent), "added as described"


@pytest.mark.parametrize(
    ("parent", "says"),
    [
        ({"inherits_from": "3d"}, "configuration 'b' inherits from '3d'; name one of 2d"),
        ({"inherits_from": "a"}, r"configuration '\w' inherits from '\w'; name one of 2d"),
        ({"patch_size": 32}, "configuration 'b' of the sweep file does not fit .*nnUNetPlans.json"),
    ],
)
def test_what_cannot_be_described_so_is_told_before_anything_is_begun(
    parent: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": {"data_identifier": "d"}}}))
    described = {"a": {"inherits_from": "b"}, "b": parent}
    content = {**HERE, "trainers": "A", "configurations": "a", "new_configurations": described}
    with pytest.raises(UserError, match=says):
        make_sweep("test", content).runs[0].preparation.check_configurations(folder.parent)


def test_plans_that_share_pre_processed_data_are_not_prepared_at_once_nor_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As nnU-Net's usual planner and those of the residual encoders share the slices; it empties their folder first."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    (folder / "gt_segmentations").mkdir()
    (folder / "gt_segmentations/a.png").touch()
    plans = json.dumps({"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}})
    begun = []

    def preprocess_dataset(*words: Any, **_: Any) -> None:
        begun.append(words[1])
        time.sleep(0.3)
        (folder / "nnUNetPlans_2d").mkdir()
        (folder / "nnUNetPlans_2d/a.pkl").touch()

    monkeypatch.setattr(nnunet, "preprocess_dataset", preprocess_dataset)
    preparations = [Preparation("Dataset940_Tiny", name, ["2d"]) for name in ("nnUNetPlans", "nnUNetResEncUNetMPlans")]
    for one in preparations:
        one.file(folder.parent).write_text(plans)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda one: one.run(folder.parent), preparations))
    assert len(begun) == 1
    assert all(one.finished(folder.parent) for one in preparations)


@pytest.mark.parametrize("planned", [False, True])
def test_a_configuration_that_is_added_takes_no_data_of_an_earlier_one_of_its_name(
    planned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do new plans where a misspelt one ended the first try; a folder may be a link to another disk."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    folder, disk = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny", tmp_path / "disk"
    shared = {"inherits_from": "2d", "data_identifier": "nnUNetPlans_shared"}
    plans = {"2d": {"data_identifier": "nnUNetPlans_2d"}, "old": {"data_identifier": "nnUNetPlans_shared"}}

    def plan(*_: Any, **__: Any) -> None:
        (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": plans}))

    disk.mkdir()
    (disk / "a.pkl").touch()
    for name in ("2d", "half"):
        (folder / f"nnUNetPlans_{name}").symlink_to(disk)
    for place in ("gt_segmentations/a.png", "nnUNetPlans_shared/a.pkl"):
        (folder / place).parent.mkdir()
        (folder / place).touch()
    (folder / "of_another_tool.json").write_text(json.dumps({"configurations": ["nnUNetPlans_2d"]}))
    made: list[str] = []
    monkeypatch.setattr(nnunet, "extract_fingerprints", lambda *_, **__: None)
    monkeypatch.setattr(nnunet, "plan_experiments", plan)
    monkeypatch.setattr(nnunet, "preprocess_dataset", lambda *_, configurations, **__: made.extend(configurations))
    if planned:
        plan()
    else:
        with pytest.raises(UserError, match="has no configuration 'hlaf'"):
            Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d", "hlaf"]).run(folder.parent)
    described = {"half": {"batch_size": 4}, "third": shared}
    Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d", "half", "third"], described).run(folder.parent)
    assert made == (["half"] if planned else ["2d", "half", "third"])
    assert (disk / "a.pkl").exists()


@pytest.mark.parametrize("identifier", ["", "..", "a/b"])
def test_a_described_configuration_keeps_its_data_in_a_folder_of_the_data_set(identifier: str, tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": {"data_identifier": "d"}}}))
    preparation = Preparation("Dataset940_Tiny", "nnUNetPlans", ["a"], {"a": {"data_identifier": identifier}})
    with pytest.raises(UserError, match=r"configuration 'a': data_identifier .* is no name of a folder"):
        preparation.check_configurations(folder.parent)


def test_what_cannot_be_removed_of_earlier_plans_ends_the_preparation(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": {"data_identifier": "d"}}}))
    (folder / "nnUNetPlans_half").touch()
    with pytest.raises(NotADirectoryError):
        Preparation("Dataset940_Tiny", "nnUNetPlans", ["half"], {"half": {}}).run(folder.parent)


def test_where_plans_are_made_anew_the_data_of_earlier_ones_are_too_but_not_those_of_other_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if it is killed between two configurations; a training on the other plans may be reading theirs."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as nnunet

    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"

    def plan(*_: Any, **__: Any) -> None:
        entries = {name: {"data_identifier": f"nnUNetPlans_{name}"} for name in ("2d", "3d_lowres", "3d_fullres")}
        (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": entries}))

    def preprocess_dataset(*_: Any, configurations: tuple[str], **__: Any) -> None:
        if configurations[0] in made:
            raise KeyboardInterrupt
        made.append(configurations[0])
        (folder / f"nnUNetPlans_{configurations[0]}").mkdir()
        (folder / f"nnUNetPlans_{configurations[0]}/a.pkl").touch()

    made: list[str] = ["3d_lowres"]
    other = {"configurations": {"2d": {"data_identifier": "nnUNetPlans_2d"}}}
    (folder / "nnUNetResEncUNetMPlans.json").write_text(json.dumps(other))
    data = (f"nnUNetPlans_{name}/a.pkl" for name in ("2d", "3d_lowres", "3d_fullres"))
    for place in ("gt_segmentations/a.png", *data):
        (folder / place).parent.mkdir()
        (folder / place).touch()
    monkeypatch.setattr(nnunet, "extract_fingerprints", lambda *_, **__: None)
    monkeypatch.setattr(nnunet, "plan_experiments", plan)
    monkeypatch.setattr(nnunet, "preprocess_dataset", preprocess_dataset)
    preparation = Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d", "3d_fullres", "3d_lowres"])
    with pytest.raises(KeyboardInterrupt):
        preparation.run(folder.parent)
    assert preparation.missing(folder.parent) == ["3d_lowres"]
    made.clear()
    preparation.run(folder.parent)
    assert made == ["3d_lowres"]


@pytest.mark.parametrize(
    ("planner", "says"),
    [
        ("nnUNetPlannerResEncM", 'writes the plans nnUNetResEncUNetMPlans: set plans = "nnUNetResEncUNetMPlans"'),
        ("NoPlanner", "planner NoPlanner: nnU-Net has none of this name; leave planner out"),
    ],
)
def test_a_planner_that_does_not_write_these_plans_is_refused(planner: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d"], planner=planner).run(tmp_path / "nnUNet_preprocessed")


def test_folds_that_nnunet_would_not_plan_with_are_told_before(tmp_path: Path) -> None:
    for place, case in (("nnUNet_raw", "a"), ("nnUNet_preprocessed", "b")):
        folder = tmp_path / place / "Dataset940_Tiny"
        folder.mkdir(exist_ok=True)
        (folder / "splits_final.json").write_text(json.dumps([{"train": [case], "val": ["c"]}]))
    with pytest.raises(UserError, match=r"has other folds than .*nnUNet_raw.*, and nnU-Net will not plan"):
        Preparation("Dataset940_Tiny", "nnUNetPlans", ["2d"]).run(tmp_path / "nnUNet_preprocessed")


@pytest.mark.parametrize(("planner", "refused"), [("nnUNetPlannerResEncL", True), ("nnUNetPlannerResEncM", False)])
def test_plans_of_another_planner_are_not_taken_for_those_of_the_named_one(
    planner: str, refused: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    (folder / "Mine.json").write_text(json.dumps({"experiment_planner_used": "nnUNetPlannerResEncM"}))
    sweep = {"planner": planner, "plans": "Mine", "train": [{"trainers": "A", "folds": 0}]}
    prepare = next(run for run in make_sweep("test", {**HERE, **sweep}).runs if run.kind == "prepare")
    if refused:
        with pytest.raises(UserError, match=r"written by nnUNetPlannerResEncM, not by .* nnUNetPlannerResEncL: give"):
            prepare.finished(tmp_path, folder.parent)
    else:
        assert not prepare.finished(tmp_path, folder.parent)


def test_a_configuration_that_the_plans_have_with_other_values_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed/Dataset940_Tiny"
    parent = {"data_identifier": "nnUNetPlans_2d", "batch_size": 2}
    (folder / "nnUNetPlans.json").write_text(json.dumps({"configurations": {"2d": parent}}))
    Preparation("Dataset940_Tiny", "nnUNetPlans", ["small"], {"small": {"spacing": [4, 4]}})._describe(folder.parent)

    def run(described: dict[str, Any]) -> Run:
        content = {**HERE, "trainers": "A", "configurations": "small", "new_configurations": {"small": described}}
        return make_sweep("test", content).runs[0]

    assert not run({"spacing": [4, 4]}).finished(tmp_path, folder.parent), "described so, not pre-processed"
    itself = {**HERE, "trainers": "A", "configurations": "2d", "new_configurations": {"2d": {"batch_size": 3}}}
    with pytest.raises(UserError, match=r"has another batch_size in '2d'"):
        make_sweep("test", itself).runs[0].finished(tmp_path, folder.parent)
    for other in ({"spacing": [2, 2]}, {"spacing": [4, 4], "batch_size": 3}, {}):
        with pytest.raises(
            UserError, match=r"nnUNetPlans.json has another \w+ in 'small' than the sweep file describes"
        ):
            run(other).finished(tmp_path, folder.parent)
