"""The sequences of both strategies, with a learner that only keeps a diary; and what a crash does to them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised.options import make_options
from nnunet_covid.semi_supervised.rounds import KINDS, Training
from nnunet_covid.semi_supervised.state import RunState, read_state, status_table

POOL = [f"u{i}" for i in range(7)]
CONTEXT = {"trainer": "T", "dataset": "D", "configuration": "2d", "fold": 0}


class Killed(BaseException):
    """Ends a run as a signal would: nothing after it happens."""


class Diary:
    """Writes down what it is asked to do; Dice follow a script."""

    def __init__(self, dice: Sequence[float], *, dies_at: int = -1, kept: int = 3) -> None:
        self.dice = iter(dice)
        self.kept = kept
        self.calls: list[tuple[Any, ...]] = []
        self.dies_at = dies_at

    def _note(self, *call: Any) -> None:
        if len(self.calls) == self.dies_at:
            raise Killed
        self.calls.append(call)

    def train(self, t: Training) -> dict[str, Any]:
        self._note("train", t.name, t.start, t.labelled, tuple(sorted(t.pseudo.items())), t.epochs, t.class_weights)
        return {"model": t.name, "steps": 1, "forward_seconds": 0.0}

    def label(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, Any]:
        self._note("label", round_number, tuple(cases), model)
        counts = {"0": 80 * len(cases), "1": 20 * len(cases)}
        return {
            "counts": counts,
            "predicted": {"i": 4},
            "kept": {"i": self.kept},
            "confidence": 0.9,
            "forward_seconds": 0.0,
        }

    def confidence(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, float]:
        self._note("confidence", round_number, tuple(cases), model)
        return {case: float(case[1:]) for case in cases}

    def validate(self, model: str) -> dict[str, Any]:
        self._note("validate", model)
        dice = next(self.dice)
        return {"mean": dice, "classes": {"i": dice}, "forward_seconds": 0.0}

    def labelled_counts(self) -> dict[str, int]:
        return {"0": 900, "1": 100}

    def class_weights(self, counts: dict[str, int]) -> list[float]:
        total = sum(counts.values())
        return [total / (2 * counts["0"]), total / (2 * counts["1"])]

    def forget_models_but(self, keep: Sequence[str]) -> None:
        self._note("keep", *keep)

    def forget_labels_of(self, round_number: int) -> None:
        self._note("forget labels", round_number)

    def publish(self, model: str) -> dict[str, Any]:
        self._note("publish", model)
        return {"dice": 0.5}

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == kind]


def run(folder: Path, diary: Diary, strategy: str, said: list[str] | None = None, **options: Any) -> RunState:
    state = RunState(folder, make_options(strategy, options), CONTEXT)  # type: ignore[arg-type]
    state.once("pool", lambda: {"cases": dict.fromkeys(POOL, "x"), "left_out": {}})
    KINDS[strategy](state, diary, POOL, [].append if said is None else said.append).run()
    return state


def test_random_rounds_follow_algorithm_1(tmp_path: Path) -> None:
    diary = Diary([0.1] * 9)
    run(tmp_path, diary, "random", per_round=3)
    labelled = [case for call in diary.of("label") for case in call[2]]
    assert sorted(labelled) == POOL, "every image once, never revised"
    assert [len(call[2]) for call in diary.of("label")] == [3, 3, 1]
    assert [call[3] for call in diary.of("label")] == ["base", "round_001", "round_002"]
    names, starts, epochs = ([call[i] for call in diary.of("train")] for i in (1, 2, 5))
    assert names == ["base", "round_001", "round_002", "round_003", "pre_trained", "fine_tuned"]
    assert starts == [None, "base", "round_001", "round_002", None, "pre_trained"]
    assert epochs == [None, 10, 10, 10, None, None]
    last, pre, fine = diary.of("train")[3:]
    assert dict(last[4]) == dict(pre[4]) == {case: n for n, call in enumerate(diary.of("label"), 1) for case in call[2]}
    assert (pre[3], fine[3], fine[4]) == (False, True, ())
    assert diary.of("publish") == [("publish", "fine_tuned")]


def test_the_two_steps_can_be_left_out(tmp_path: Path) -> None:
    diary = Diary([0.1] * 9)
    run(tmp_path, diary, "random", per_round=4, max_rounds=1, two_step=False)
    assert diary.of("publish") == [("publish", "round_001")]
    assert len(diary.of("label")) == 1


def test_the_iteration_renews_all_labels_and_ends_when_dice_does_not_improve(tmp_path: Path) -> None:
    diary = Diary([0.1, 0.2, 0.3, 0.25])
    run(tmp_path, diary, "iterative", per_round=3)
    assert [len(call[2]) for call in diary.of("label")] == [3, 6, 7]
    assert [call[3] for call in diary.of("label")] == ["base", "round_001", "round_002"]
    assert all(call[2] is None and call[3] and not call[5] for call in diary.of("train")), "new models"
    assert {n for _, n in diary.of("train")[-1][4]} == {3}, "all labels are of the last round"
    assert diary.of("publish") == [("publish", "round_002")], "the best one"


def test_an_empty_pool_does_not_end_the_iteration(tmp_path: Path) -> None:
    diary = Diary([0.1, 0.2, 0.3, 0.4, 0.4])
    run(tmp_path, diary, "iterative", per_round=7)
    assert [len(call[2]) for call in diary.of("label")] == [7, 7, 7, 7]


def test_patience_until_the_pool_is_empty_and_warm_start(tmp_path: Path) -> None:
    diary = Diary([0.5, 0.4, 0.3, 0.2])
    run(tmp_path / "a", diary, "iterative", per_round=3, until_pool_empty=True, warm_start=True)
    assert [call[2] for call in diary.of("train")] == [None, "base", "round_001", "round_002"]
    assert diary.of("publish") == [("publish", "base")]
    diary = Diary([0.5, 0.4, 0.3])
    run(tmp_path / "b", diary, "iterative", per_round=1, patience=2)
    assert len(diary.of("train")) == 3


@pytest.mark.parametrize(("kept", "warnings"), [(0, 1), (1, 0)])
def test_labels_without_any_trusted_voxel_are_not_passed_over_in_silence(
    kept: int, warnings: int, tmp_path: Path
) -> None:
    said: list[str] = []
    run(tmp_path, Diary([0.1, 0.2], kept=kept), "iterative", said, per_round=3, max_rounds=1)
    assert [line.startswith("WARNING: round 1: the model finds i,") for line in said].count(True) == warnings


def test_the_iteration_ends_where_no_dice_is_a_number(tmp_path: Path) -> None:
    said: list[str] = []
    diary = Diary([math.nan] * 9)
    run(tmp_path, diary, "iterative", said, per_round=3, patience=2)
    assert len(diary.of("train")) == 3
    assert [line.startswith("WARNING: the validation cases") for line in said].count(True) == 1


def test_class_weights_are_those_of_labelled_and_current_pseudo_set(tmp_path: Path) -> None:
    diary = Diary([0.1, 0.2, 0.3, 0.2])
    run(tmp_path, diary, "iterative", per_round=5, max_rounds=2)
    weights = [call[6] for call in diary.of("train")]
    # eq. (8), 1 / (C·P_c): 900 and 100 voxels; with 5 images 1300 and 200; with 7 images 1460 and 240
    assert weights[0] == pytest.approx([1000 / 1800, 1000 / 200])
    assert weights[1] == pytest.approx([1500 / 2600, 1500 / 400])
    assert weights[2] == pytest.approx([1700 / 2920, 1700 / 480])
    diary = Diary([0.1, 0.2])
    run(tmp_path / "off", diary, "iterative", per_round=5, max_rounds=1, reweight="off")
    assert [call[6] for call in diary.of("train")] == [None, None]


def test_the_most_confident_images_are_taken(tmp_path: Path) -> None:
    diary = Diary([0.1] * 9)
    run(tmp_path, diary, "random", per_round=3, select="confident", two_step=False)
    assert [call[2] for call in diary.of("label")] == [("u4", "u5", "u6"), ("u1", "u2", "u3"), ("u0",)]


@pytest.mark.parametrize("strategy", ["random", "iterative"])
def test_a_run_that_dies_anywhere_does_the_same(strategy: str, tmp_path: Path) -> None:
    dice = {"base": 0.1, "round_001": 0.3, "round_002": 0.5, "round_003": 0.2, "pre_trained": 0.1, "fine_tuned": 0.2}
    whole = Diary(list(dice.values()))
    undisturbed = run(tmp_path / "whole", whole, strategy, per_round=3)
    for moment in range(len(whole.calls)):
        folder = tmp_path / f"dies_{moment}"
        first = Diary(list(dice.values()), dies_at=moment)
        with pytest.raises(Killed):
            run(folder, first, strategy, per_round=3)
        told = len(first.of("validate"))
        second = Diary(list(dice.values())[told:])
        resumed = run(folder, second, strategy, per_round=3)
        assert list(resumed.units) == list(undisturbed.units)
        for name, unit in undisturbed.units.items():
            assert resumed.units[name]["result"] == unit["result"]
        assert first.calls + second.calls == whole.calls, "nothing twice, nothing left out"


def test_the_state_on_disk_is_always_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Killed):
        run(tmp_path, Diary([0.1] * 9, dies_at=7), "random", per_round=3)
    before = (tmp_path / "state.json").read_text()

    def dies(descriptor: int) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dies)  # while a state is written
        with pytest.raises(Killed):
            run(tmp_path, Diary([0.1] * 9), "random", per_round=3)
    assert (tmp_path / "state.json").read_text() == before
    assert json.loads(before) == read_state(tmp_path)
    run(tmp_path, Diary([0.1] * 9), "random", per_round=3)
    table = status_table(read_state(tmp_path) or {})
    assert "finished" in table
    assert table.splitlines()[6].split()[:3] == ["3", "7", "0"]
    assert table.splitlines()[7].split()[:3] == ["two-step", "7", "0"], "no fourth round, and nothing new is labelled"


def test_other_options_are_refused_on_resume_and_nothing_is_lost(tmp_path: Path) -> None:
    run(tmp_path, Diary([0.1] * 9), "random", per_round=3)
    before = (tmp_path / "state.json").read_bytes()
    with pytest.raises(UserError, match=r"`per_round` was 3 and is 4.*`name`"):
        RunState(tmp_path, make_options("random", {"per_round": 4}), CONTEXT)
    with pytest.raises(UserError, match="trainer was 'T' and is 'U'"):
        RunState(tmp_path, make_options("random", {"per_round": 3}), {**CONTEXT, "trainer": "U"})
    others = {"per_round": 3, "two_step": False, "soft": True, "max_rounds": 2}
    with pytest.raises(UserError) as caught:
        RunState(tmp_path, make_options("random", others), CONTEXT)
    for said in (
        "`two_step` was not given and is given",  # --no-two-step
        "`soft` was not given and is given",
        "`max_rounds` was not given and is 2",
    ):
        assert said in str(caught.value)
    assert (tmp_path / "state.json").read_bytes() == before


def test_a_broken_state_is_told(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match=r"state\.json cannot be read"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("strategy", "given", "message"),
    [
        ("random", {"patience": 2}, "`patience` belongs to `strategy` iterative"),
        ("random", {"warm_start": True}, "`warm_start` belongs to `strategy` iterative"),
        ("random", {"reweight": "on"}, "`reweight` belongs"),
        ("iterative", {"round_epochs": 3}, "`round_epochs` belongs to `strategy` random"),
        ("iterative", {"two_step": False}, "`two_step` belongs"),
        ("iterative", {"soft": True, "threshold": 0.9}, "`threshold` makes hard labels"),
        ("random", {"soft": True, "untrusted": "ignore"}, "`untrusted` makes hard labels"),
        ("random", {"untrusted": "ignore"}, "give a `threshold` above 0"),
        ("iterative", {"untrusted": "ignore", "threshold": 0.0}, "give a `threshold` above 0"),
        ("random", {"confidence": "mirroring", "mirroring": False}, "leave out `mirroring`"),
        ("random", {"per_round": 0}, "must be 1 or more"),
        ("random", {"seed": -1}, "`seed` -1: must be 0 or more"),
        ("iterative", {"threshold": 1.5}, "between 0 and 1"),
        ("iterative", {"class_thresholds": {"ggo": -1.0}}, "η of ggo"),
        ("random", {"learning_rate": -1.0}, "must be positive"),
    ],
)
def test_options_that_do_not_apply_are_refused(strategy: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_options(strategy, given)


def test_defaults_are_the_papers() -> None:
    random, iterative = make_options("random", {}), make_options("iterative", {})
    assert (random.per_round, random.threshold, random.round_epochs, random.learning_rate) == (5, 0.0, 10, 3e-4)
    assert (iterative.threshold, iterative.patience, iterative.untrusted) == (0.95, 1, "background")
    assert iterative.count_for(1600) == 160
    assert iterative.count_for(5) == 1
    assert make_options("iterative", {"soft": True}).threshold == 0
    assert make_options("random", {"learning_rate": 0.0}).learning_rate is None
