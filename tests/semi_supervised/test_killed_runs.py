"""Killed with SIGKILL at random moments and started again, a run does what it would have done."""

from __future__ import annotations

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from killable_run import in_own_process
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid.startup import TRAINERS_FOLDER

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL, no fork server"),
]
TRAINER = "nnUNetTrainer_1epochs_2its"
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"per_round": 2, "round_epochs": 1, "round_iterations": 2},
    "iterative": {"per_round": 2, "until_pool_empty": True, "threshold": 0.4},
}
KILLS = 3


class Runner:
    """Starts the same run again and again."""

    def __init__(self, made: TinyDataSet, strategy: str, tag: str) -> None:
        variables = {"nnUNet_n_proc_DA": "0", "nnUNet_extTrainer": str(TRAINERS_FOLDER)}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["killable_run", "timm"])  # nnU-Net's look-up imports it
        self.log = made.root / f"{tag}.log"
        arguments = (made.unlabelled, made.configuration, TRAINER, strategy, tag, STRATEGIES[strategy])
        self._start = lambda: context.Process(
            target=in_own_process, args=({**made.environment(), **variables}, self.log, *arguments)
        )
        self.report = made.model(f"{TRAINER}_pseudo{tag}") / "fold_0" / "pseudo_labels"

    def run(self, kill_after: float | None = None) -> bool:
        """Whether the run came to its end by itself."""
        process = self._start()
        process.start()
        process.join(kill_after)
        if process.is_alive():
            process.kill()
            process.join()
            return False
        assert process.exitcode == 0, self.log.read_text()[-4000:]
        return True

    def seconds(self) -> float:
        """How long all units took."""
        units = json.loads((self.report / "state.json").read_text())["units"]
        return sum(unit["seconds"] for unit in units.values())

    def results(self) -> dict[str, Any]:
        """Everything that must not depend on when the run was killed."""
        units = json.loads((self.report / "state.json").read_text())["units"]
        drawn = {name: unit["result"] for name, unit in units.items() if name.endswith("/select")}
        models = {name: unit["result"]["model"] for name, unit in units.items() if "model" in (unit["result"] or {})}
        dice = {name: unit["result"]["mean"] for name, unit in units.items() if "/validate" in name}
        shown = {p.relative_to(self.report).as_posix(): p.read_bytes() for p in self.report.glob("round_*/*")}
        return {"units": list(units), "drawn": drawn, "models": models, "dice": dice, "labels": shown}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_at_random_moments(strategy: str, tmp_path: Path) -> None:
    made = make_tiny_data_set(tmp_path, unlabelled=3, size=36)
    undisturbed = Runner(made, strategy, "Undisturbed")
    assert undisturbed.run()
    seconds = undisturbed.seconds()
    rng = np.random.default_rng(STRATEGIES[strategy]["per_round"] + len(strategy))
    killed = Runner(made, strategy, "Killed")
    times_killed = sum(not killed.run(rng.uniform(0.15, 0.6) * seconds) for _ in range(KILLS))
    assert times_killed, "not killed once: the moments are too late"
    while not killed.run(10 * seconds + 60):
        pass
    expected = undisturbed.results()
    assert killed.results() == expected
    assert any(name.endswith(".png") for name in expected["labels"])
    drawn = [case for cases in expected["drawn"].values() for case in cases]
    assert sorted(drawn) == ["un_0", "un_1", "un_2"], "no case lost, none twice"
    rounds = sorted((made.preprocessed / "pseudo_labels").glob("*Undisturbed*/round_*"))
    assert [path for folder in rounds for path in folder.glob("*_seg.b2nd")]
    for folder in rounds:
        other = folder.parent.with_name(folder.parent.name.replace("Undisturbed", "Killed")) / folder.name
        names = {p.name for p in folder.iterdir()}
        assert {p.name for p in other.iterdir() if not p.name.startswith(".")} == names
        for path in folder.glob("*_seg.b2nd"):
            mine, theirs = (blosc2.open(str(p), mode="r")[:] for p in (path, other / path.name))
            np.testing.assert_array_equal(mine, theirs)
