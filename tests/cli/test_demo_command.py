import pytest

from nnunet_covid.cli import main
from nnunet_covid.demo.pipeline import Demo, StepFailed


def test_help_names_every_option_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["demo", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in ("--output", "--device", "--seed", "--epochs", "--iterations", "--training", "--test", "(default: 9"):
        assert word in text


@pytest.mark.parametrize(
    "arguments", [["--training", "3"], ["--epochs", "0"], ["--pixel", "50"], ["--seed", "-2"], ["--device", "mps"]]
)
def test_mistakes_are_told_in_one_line_and_write_nothing(arguments, tmp_path, capsys, monkeypatch):
    import torch

    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert main(["demo", "-o", str(tmp_path / "demo"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_a_failed_step_ends_with_its_log_and_one_error_line_and_status_1(tmp_path, capsys, monkeypatch):
    def fail(self):
        raise StepFailed("step 4 of 6 (train): 'nnUNetv2_train' ended with status 1; its log: x.log", ["a", "b"])

    monkeypatch.setattr(Demo, "run", fail)
    assert main(["demo", "-o", str(tmp_path), "--device", "cpu"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "a",
        "b",
        "error: step 4 of 6 (train): 'nnUNetv2_train' ended with status 1; its log: x.log",
    ]


def test_options_reach_the_demo(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(Demo, "run", lambda self: seen.append((self.folder, self.settings)))
    options = ["--device", "cpu", "--seed", "3", "--epochs", "2", "--iterations", "4", "--training", "6", "--test", "1"]
    assert main(["demo", "-o", str(tmp_path), *options]) == 0
    folder, settings = seen[0]
    assert folder == tmp_path
    assert (settings.seed, settings.epochs, settings.iterations, settings.training, settings.test) == (3, 2, 4, 6, 1)
