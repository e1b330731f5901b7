"""``nnunet-covid evaluate`` and ``compare`` as the person at the terminal meets them."""

import json

import numpy as np
import pytest
from PIL import Image

from nnunet_covid.cli import main


@pytest.fixture
def folders(tmp_path):
    """Predictions and references of two cases, 10×10 pixels, without a dataset.json."""
    reference = np.zeros((10, 10), dtype=np.uint8)
    reference[2:6, 2:6] = 1
    for name, shift in (("predictions", 1), ("references", 0)):
        (tmp_path / name).mkdir()
        for case in ("a", "b"):
            Image.fromarray(np.roll(reference, shift, 0)).save(tmp_path / name / f"{case}.png")
    return tmp_path


def evaluate(folders, *options):
    return main(["evaluate", str(folders / "predictions"), str(folders / "references"), "--quiet", *map(str, options)])


def test_the_table_is_printed_and_the_files_are_written(folders, capsys):
    assert evaluate(folders, "--labels", "infection=1", "-o", folders / "out") == 0
    output = capsys.readouterr().out
    assert "Dice" in output
    assert "0.750 ± 0.000" in output
    assert (
        json.loads((folders / "out" / "summary.json").read_text())["classes"]["infection"]["metrics"]["dice"]["mean"]
        == 0.75
    )
    assert (folders / "out" / "bland_altman.png").is_file()


def test_options_reach_the_evaluation(folders, capsys):
    options = ["--labels", "infection=1", "--tolerance", "0.5", "--empty-policy", "nan-both", "-n", "2", "--no-maps"]
    assert evaluate(folders, *options, "-o", folders / "out", "--no-plots") == 0
    settings = json.loads((folders / "out" / "summary.json").read_text())["settings"]
    assert (settings["nsd_tolerance"], settings["empty_policy"]) == (0.5, "nan-both")
    assert sorted(p.name for p in (folders / "out").iterdir()) == ["cases.csv", "summary.json"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "name one from elsewhere, or give the labels (--dataset-json)"),
        (("--labels", "infection"), "expected NAME=VALUE"),
        (("--labels", "infection=x"), "expected NAME=VALUE"),
        (("--labels", "infection=1", "infection=2"), "--labels infection=2: infection is given twice"),
        (("--labels", "infection=2"), "holds the value(s) 1, which the labels do not name"),
        (("--labels", "infection=1", "--maps", "nowhere"), "nowhere: no such folder"),
        (("--labels", "infection=1", "-o", "out", "--images", "nowhere"), "nowhere: no such folder"),
        (("--labels", "infection=1", "--images", "."), "--images: pictures of the worst cases are drawn with -o only"),
        (("--dataset-json", "nowhere.json"), "nowhere.json: cannot be read"),
    ],
)
def test_a_mistake_is_one_line_on_the_error_stream_and_status_2(folders, capsys, options, complaint):
    assert evaluate(folders, *options) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert complaint in captured.err


def test_the_background_may_be_named(folders, capsys):
    assert evaluate(folders, "--labels", "infection=1", "background=0") == 0


def test_an_output_folder_that_cannot_be_made_is_told_first(folders, capsys):
    (folders / "file").touch()
    assert evaluate(folders, "--labels", "infection=1", "-o", folders / "file" / "out") == 2
    assert "cannot be written into" in capsys.readouterr().err


def test_two_evaluations_are_compared(folders, capsys):
    for name in ("first", "second"):
        evaluate(folders, "--labels", "infection=1", "-o", folders / name, "--no-plots")
    capsys.readouterr()
    arguments = ["compare", str(folders / "first"), str(folders / "second"), "-o", str(folders / "comparison")]
    assert main(arguments) == 0
    assert "first" in capsys.readouterr().out
    written = {p.name for p in (folders / "comparison").iterdir()}
    assert written == {"comparison.csv", "comparison.json", "forest.png"}


def test_settings_that_cannot_be_compared_are_noted(folders, capsys):
    for name in ("first", "second"):
        evaluate(folders, "--labels", "infection=1", "-o", folders / name, "--no-plots")
    arguments = ["compare", str(folders / "first"), str(folders / "second")]
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().err == ""
    (folders / "second" / "summary.json").unlink()
    assert main(arguments) == 0
    assert capsys.readouterr().err.startswith(f"note: {folders / 'second'}: no summary.json")
    (folders / "second" / "summary.json").write_text("{}")
    assert main(arguments) == 2
    assert "summary.json: is not a summary" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-1", "1.5", "x"])
def test_a_seed_is_an_integer_that_is_not_negative(capsys, text):
    with pytest.raises(SystemExit) as end:
        main(["compare", "a", "b", "--seed", text])
    assert end.value.code == 2
    assert f"--seed: a seed must be 0 or a positive integer, not {text}" in capsys.readouterr().err


def test_comparing_one_evaluation_is_a_mistake(folders, capsys):
    assert main(["compare", str(folders / "first")]) == 2
    assert capsys.readouterr().err == "error: a comparison needs at least two evaluations\n"
