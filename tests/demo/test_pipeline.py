"""The order of the steps, resuming and failing; the steps themselves are in test_demo_end_to_end.py."""

import json

import pytest

from nnunet_covid.demo.commands import StepFailed
from nnunet_covid.demo.pipeline import Demo, Step
from nnunet_covid.demo.settings import Settings
from nnunet_covid.errors import UserError


class RecordedDemo(Demo):
    """A demo whose steps only say that they ran; ``broken`` names one that fails."""

    def __init__(self, folder, settings=None, broken=None):
        self.ran, self.told, self.broken = [], [], broken
        super().__init__(folder, settings or Settings(), tell=self.told.append)

    def steps(self):
        return [
            Step(name, name, lambda name=name: self.work(name), self.workspace.folder / name)
            for name in ("data", "train", "score")
        ]

    def work(self, name):
        if name == self.broken:
            raise StepFailed("it broke", ["last line"])
        self.ran.append(name)
        (self.workspace.folder / name).write_text("result")
        if name == "score":
            self.workspace.evaluation.mkdir(exist_ok=True)
            (self.workspace.evaluation / "table.txt").write_text("the table\n")
            self._mean_dice = 0.75


def test_steps_run_in_order_and_the_result_is_told(tmp_path):
    demo = RecordedDemo(tmp_path / "demo")
    assert demo.run() == 0.75
    assert demo.ran == ["data", "train", "score"]
    assert [line for line in demo.told if line.startswith("[")] == ["[1/3] data", "[2/3] train", "[3/3] score"]
    assert any(str(demo.workspace.overlay) in line for line in demo.told)


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
    expected = rf"other settings \(epochs {made.epochs}, seed {made.seed}\); choose another folder with -o"
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
