"""Settings, order of the steps, resuming and failing; the steps themselves are in test_demo_end_to_end.py."""

import copy
import json
import os
import subprocess
import sys

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.demo import pipeline
from nnunet_covid.demo.pipeline import Demo, Settings, StepFailed, add_light_configuration
from nnunet_covid.errors import UserError
from nnunet_covid.startup import TRAINERS_FOLDER, chosen_device

PLANS = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "batch_size": 2,
            "patch_size": [160, 224],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {"n_stages": 3, "features_per_stage": [32, 64, 12], "strides": [1, 2, 2]},
                "_kw_requires_import": [],
            },
        }
    },
}


class RecordedDemo(Demo):
    """A demo whose steps only say that they ran; ``broken`` names one that fails."""

    def __init__(self, folder, settings=None, broken=None):
        self.ran, self.told, self.broken = [], [], broken
        super().__init__(folder, settings or Settings(), tell=self.told.append)

    def steps(self):
        return [
            (name, name, lambda name=name: self.work(name), self.folder / name) for name in ("data", "train", "score")
        ]

    def work(self, name):
        if name == self.broken:
            raise StepFailed("it broke", ["last line"])
        self.ran.append(name)
        (self.folder / name).write_text("result")
        if name == "score":
            self.evaluation.mkdir(exist_ok=True)
            (self.evaluation / "table.txt").write_text("the table\n")
            self._mean_dice = 0.75


def test_steps_run_in_order_and_the_result_is_told(tmp_path):
    demo = RecordedDemo(tmp_path / "demo")
    assert demo.run() == 0.75
    assert demo.ran == ["data", "train", "score"]
    assert [line for line in demo.told if line.startswith("[")] == ["[1/3] data", "[2/3] train", "[3/3] score"]
    assert any(str(demo.overlay) in line for line in demo.told)


def test_a_broken_demo_names_the_step_and_goes_on_there_next_time(tmp_path):
    with pytest.raises(StepFailed, match=r"step 2 of 3 \(train\): it broke") as caught:
        RecordedDemo(tmp_path, broken="train").run()
    assert caught.value.last_lines == ["last line"]
    again = RecordedDemo(tmp_path)
    assert again.run() == 0.75
    assert again.ran == ["train", "score"]
    assert "[1/3] data: done before" in again.told


def test_a_finished_demo_shows_its_result_again(tmp_path):
    RecordedDemo(tmp_path).run()
    again = RecordedDemo(tmp_path)
    assert again.run() == 0.75
    assert again.ran == []
    assert "the table" in again.told


def test_a_step_whose_result_is_gone_is_done_again(tmp_path):
    RecordedDemo(tmp_path).run()
    (tmp_path / "train").unlink()
    again = RecordedDemo(tmp_path)
    again.run()
    assert again.ran == ["train"]


def test_other_settings_in_the_same_folder_are_refused_and_named(tmp_path):
    RecordedDemo(tmp_path).run()
    before = (tmp_path / "demo.json").read_text()
    made = Settings()
    other = Settings(epochs=made.epochs + 1, seed=made.seed + 1)
    expected = rf"other settings \(epochs {made.epochs}, seed {made.seed}\); choose another folder,"
    with pytest.raises(UserError, match=expected):
        RecordedDemo(tmp_path, other).run()
    assert (tmp_path / "demo.json").read_text() == before


@pytest.mark.parametrize("content", [None, "no json", json.dumps({"something": "else"})])
def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path, content):
    (tmp_path / "thesis.txt").write_text("do not lose")
    if content is not None:
        (tmp_path / "demo.json").write_text(content)
    with pytest.raises(UserError, match="not empty and holds no demo"):
        RecordedDemo(tmp_path).run()
    assert (tmp_path / "thesis.txt").read_text() == "do not lose"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        RecordedDemo(tmp_path / "file" / "demo").run()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"training": 4}, "at least 5"),
        ({"test": 0}, "number of test must be at least 1"),
        ({"epochs": 0}, "number of epochs"),
        ({"pixel": 9.0}, "0.5 to 4 mm"),
        ({"seed": -1}, "0 or a positive integer below"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(wrong, words):
    with pytest.raises(UserError, match=words) as caught:
        Settings(**wrong)
    assert "\n" not in str(caught.value)


def test_trainer_name_says_length_and_seed():
    assert Settings(epochs=3, iterations=7, seed=2).trainer == "InfNetTrainer_3epochs_7its_seed2"


def test_environment_has_folders_of_its_own_and_keeps_other_trainers(tmp_path):
    base = {"nnUNet_raw": "elsewhere", "nnUNet_extTrainer": "theirs", "PATH": "kept"}
    environment = Demo(tmp_path, Settings()).environment(base)
    assert environment["nnUNet_raw"] == str(tmp_path / "nnUNet_raw")
    assert environment["nnUNet_extTrainer"].split(os.pathsep) == ["theirs", str(TRAINERS_FOLDER)]
    assert environment["PATH"] == "kept"
    assert base["nnUNet_raw"] == "elsewhere"


def test_no_workers_asked_for_in_trainings_do_not_break_planning(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    ran_under = []
    monkeypatch.setattr(pipeline, "run_logged", lambda *arguments: ran_under.append(arguments[3]))
    plan = next(work for name, _, work, _ in Demo(tmp_path, Settings(device="cuda")).steps() if name == "plan")
    plan()
    assert int(ran_under[0]["nnUNet_n_proc_DA"]) > 0


def test_auto_takes_cuda_if_present(monkeypatch):
    import torch

    for present, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert chosen_device("auto") == device


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="sees no cuda device"):
        chosen_device("cuda")


def test_importing_the_command_does_not_import_torch():
    program = "import nnunet_covid.cli.demo, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_derived_configuration_has_half_the_features_and_inherits_the_rest(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(PLANS))
    add_light_configuration(path)
    plans = PlansManager(json.loads(path.read_text()))
    half, base = (plans.get_configuration(name) for name in ("2d_light", "2d"))
    assert half.network_arch_init_kwargs["features_per_stage"] == [16, 32, 8]
    assert half.network_arch_init_kwargs["strides"] == [1, 2, 2]
    assert half.patch_size == base.patch_size
    assert half.batch_size == base.batch_size == 2
    assert half.data_identifier == base.data_identifier
    assert base.network_arch_init_kwargs["features_per_stage"] == [32, 64, 12]


def test_many_patches_in_a_batch_become_a_few(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    plans = copy.deepcopy(PLANS)
    plans["configurations"]["2d"]["batch_size"] = 18
    path.write_text(json.dumps(plans))
    add_light_configuration(path)
    assert PlansManager(json.loads(path.read_text())).get_configuration("2d_light").batch_size == 6


def test_adding_it_twice_changes_nothing(tmp_path):
    path = tmp_path / "nnUNetPlans.json"
    path.write_text(json.dumps(PLANS))
    add_light_configuration(path)
    once = path.read_text()
    add_light_configuration(path)
    assert path.read_text() == once
