"""The command line as a whole: what it offers, and how it ends."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from nnunet_covid import cli
from nnunet_covid.cli.arguments import add_checkpoint
from nnunet_covid.cli.predict import add_predict_arguments
from nnunet_covid.errors import UserError


@pytest.mark.parametrize("name", cli.SUBCOMMANDS)
def test_every_subcommand_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"usage: nnunet-covid {name}" in told
    assert len(told.split("\n\n")[1]) > 40  # a description, not only options


def test_an_unknown_command_ends_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["segment"])
    assert stop.value.code == 2
    assert "invalid choice: 'segment'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "status", "message"),
    [
        (UserError("no file a.png"), 2, "error: no file a.png\n"),
        (UserError("too small", about="resize_maps"), 2, "error: too small (--resize-maps)\n"),
        (PermissionError(13, "Permission denied", "out/a.csv"), 2, "error: out/a.csv: Permission denied\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_mistakes_and_interruptions_end_with_one_line(
    raised: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: object) -> None:
        raise raised

    monkeypatch.setattr("nnunet_covid.cli.installation.where", fail)
    assert cli.main(["where"]) == status
    assert capsys.readouterr().err == message


def test_a_reader_that_leaves_early_causes_no_traceback() -> None:
    program = (
        "import sys, nnunet_covid.cli as cli, nnunet_covid.cli.installation as installation\n"
        "installation.where = lambda args: [print('x' * 1000) for _ in range(1000)] and None\n"
        "sys.exit(cli.main(['where']))"
    )
    pipe = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    )
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    pipe.stdout.read(10)
    pipe.stdout.close()
    assert pipe.stderr.read() == ""
    assert pipe.wait() == 0


def test_importing_the_package_is_light() -> None:
    program = "import sys, nnunet_covid, nnunet_covid.cli, nnunet_covid.trainers; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", errors="replace", check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize("option", ["--c", "--continue_prediction"])
def test_predict_continues_under_both_of_nnunets_names(option: str) -> None:
    parser = argparse.ArgumentParser()
    add_predict_arguments(parser)
    needed = ["-i", "images", "-o", "out", "-m", "model", "-c", "2d"]
    assert not parser.parse_args(needed).continue_prediction
    found = parser.parse_args([*needed, option])
    assert found.continue_prediction
    assert (found.c, found.checkpoint) == ("2d", "checkpoint_final.pth")


@pytest.mark.parametrize("option", ["-chk", "--checkpoint"])
def test_a_checkpoint_is_named_as_nnunet_names_it_or_in_full(option: str) -> None:
    parser = argparse.ArgumentParser()
    add_checkpoint(parser)
    assert parser.parse_args([]).checkpoint == "checkpoint_final.pth"
    assert parser.parse_args([option, "checkpoint_best.pth"]).checkpoint == "checkpoint_best.pth"


@pytest.mark.parametrize("count", ["0", "-1", "1.5", "²", "many"])
@pytest.mark.parametrize(
    "command",
    [
        "link -d 1 -np",
        "link -d 1 --unlabelled x --at-most",
        "relations x --rows",
        "evaluate x y -n",
        "calibrate x -n",
        "pretrain 1 2d -i x -np",
        "pseudo-label 1 2d 0 --strategy random -np",
        "predict -i x -o y -m z --batch",
        "sweep --jobs",
        "convert folder x --workers",
    ],
)
def test_a_count_is_a_whole_number_from_one_on(command: str, count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), count])
    assert ended.value.code == 2
    assert f"{count} is not a positive number" in capsys.readouterr().err
