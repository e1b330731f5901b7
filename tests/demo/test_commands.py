import os
import subprocess
import sys
import time

import pytest

from nnunet_covid.demo.pipeline import LAST_LINES, EpochLines, StepFailed, run_logged
from nnunet_covid.errors import UserError
from nnunet_covid.startup import console_command


def run_program(program, tmp_path, **arguments):
    run_logged(
        [sys.executable, "-c", program],
        tmp_path / "logs" / "step.log",
        shown="the command",
        environment=os.environ,
        **arguments,
    )
    return (tmp_path / "logs" / "step.log").read_text()


def test_command_belongs_to_the_running_interpreter():
    command = console_command("nnunet-covid", "--version")
    assert command[0] == sys.executable
    assert (
        "nnunet-covid"
        in subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=True).stdout
    )


def test_command_that_is_not_installed_is_named():
    with pytest.raises(UserError, match="nnUNetv2_dance is not installed"):
        console_command("nnUNetv2_dance")


def test_output_and_errors_go_to_the_log_and_line_by_line_to_the_caller(tmp_path):
    seen = []
    program = "import sys; print('one'); print('two', file=sys.stderr); print('bar 1%\\rbar 2%')"
    log = run_program(program, tmp_path, on_line=seen.append)
    assert log.startswith("$ the command\n")
    assert {"one\n", "two\n", "bar 1%\n", "bar 2%\n"} == set(seen)


def test_failure_names_command_status_and_log_and_holds_the_last_lines(tmp_path):
    program = "import sys\nfor i in range(50): print('line', i)\nsys.exit(3)"
    with pytest.raises(StepFailed, match=r"'the command' ended with status 3; its log: .*step\.log") as caught:
        run_program(program, tmp_path)
    assert "\n" not in str(caught.value)
    assert caught.value.last_lines == [f"line {i}" for i in range(50 - LAST_LINES, 50)]


def test_a_second_run_keeps_the_log_of_the_first(tmp_path):
    run_program("print('first')", tmp_path)
    log = run_program("print('second')", tmp_path)
    assert "first" in log
    assert "second" in log


def test_interruption_ends_the_command(tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_program("import time; print('up', flush=True); time.sleep(60)", tmp_path, on_line=interrupt)
    assert time.monotonic() - start < 20


def test_training_log_becomes_one_line_per_epoch():
    told = []
    lines = EpochLines(12, told.append)
    for line in (
        "2026-01-01 10:00:00.0: Epoch 0 ",
        "2026-01-01 10:00:00.0: Current learning rate: 0.01",
        "2026-01-01 10:00:09.0: train_loss 4.5947",
        "2026-01-01 10:00:09.0: val_loss 4.1",
        "2026-01-01 10:00:09.0: Pseudo dice [np.float32(0.5312)]",
        "2026-01-01 10:00:09.0: Epoch time: 9.12 s",
        "2026-01-01 10:00:09.0: Yayy! New best EMA pseudo Dice: 0.53",
    ):
        lines(line)
    assert told == ["epoch   1/12   training loss 4.5947   validation Dice 0.53   9 s"]


def test_an_epoch_without_a_figure_is_told_all_the_same():
    told = []
    lines = EpochLines(2, told.append)
    for line in ("Epoch 1 ", "train_loss nan", "Pseudo dice [np.float32(nan)]", "Epoch time: 1.0 s"):
        lines(line)
    assert told == ["epoch   2/2   training loss nan   validation Dice –   1 s"]
