"""``nnunet-covid demo`` with everything as small as it goes, in an environment where nothing is exported."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

OPTIONS = ["--device", "cpu", "--training", "5", "--test", "2", "--epochs", "1", "--iterations", "2", "--pixel", "3"]


def demo(folder, *more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("nnUNet_")}
    environment["NNUNET_COVID_NO_STARTUP"] = "1"  # as if 'nnunet-covid register' had never run
    command = [sys.executable, "-m", "nnunet_covid.cli", "demo", "-o", str(folder), *OPTIONS, *more]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        cwd=folder.parent,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("somewhere") / "demo"
    return folder, demo(folder)


def test_demo_leaves_model_predictions_tables_and_picture(finished):
    folder, result = finished
    assert result.returncode == 0, result.stdout + result.stderr
    name = "InfNetTrainer_1epochs_2its_seed0__nnUNetPlans__2d_light"
    assert (folder / "nnUNet_results/Dataset501_COVIDSemiSeg" / name / "fold_0/checkpoint_final.pth").is_file()
    for case in ("covidsemiseg_006", "covidsemiseg_007"):
        prediction = np.asarray(Image.open(folder / "predictions" / f"{case}.png"))
        reference = Image.open(folder / "nnUNet_raw/Dataset501_COVIDSemiSeg/labelsTs" / f"{case}.png")
        assert prediction.shape == np.asarray(reference).shape
        assert set(np.unique(prediction)) <= {0, 1}
        assert (folder / "predictions" / f"{case}.npz").is_file()
    assert "infection" in (folder / "evaluation/table.txt").read_text(encoding="utf-8")
    assert Image.open(folder / "overlay.png").width > 1000
    assert sorted(p.name for p in (folder / "logs").iterdir()) == [
        "convert.log",
        "plan.log",
        "predict.log",
        "train.log",
    ]


def test_demo_tells_each_step_command_and_epoch_and_where_things_are(finished):
    folder, result = finished
    told = result.stdout
    for number in range(1, 7):
        assert f"[{number}/6]" in told
    assert "nnUNetv2_train 501 2d_light 0 -tr InfNetTrainer_1epochs_2its_seed0 -device cpu" in told
    assert "epoch   1/1" in told
    for place in ("predictions", "evaluation", "overlay.png"):
        assert str(folder / place) in told


def test_a_second_start_does_nothing_twice(finished):
    folder, _ = finished
    result = demo(folder)
    assert result.returncode == 0
    assert result.stdout.count("done before") == 6


def test_other_settings_are_refused(finished):
    folder, _ = finished
    result = demo(folder, "--seed", "9")
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "other settings (seed 0)" in result.stderr


def test_a_step_that_fails_names_itself_and_its_log(finished):
    folder, _ = finished
    journal = folder / "demo.json"
    intact = journal.read_text()
    content = json.loads(intact)
    del content["seconds"]["predict"], content["seconds"]["score"]
    journal.write_text(json.dumps(content))
    plans = next(folder.glob("nnUNet_results/*/*/plans.json"))
    plans.rename(plans.with_suffix(".hidden"))
    try:
        result = demo(folder)
    finally:
        plans.with_suffix(".hidden").rename(plans)
        journal.write_text(intact)
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("error: step 5 of 6 (predict): 'nnUNetv2_predict ")
    assert last.endswith("predict.log")
    assert "plans.json" in result.stderr


def test_demo_with_reports_ends_in_two_pages_and_a_change(tmp_path):
    result = demo(tmp_path / "reports", "--report")
    assert result.returncode == 0, result.stdout + result.stderr
    first, second = (tmp_path / "reports" / "reports" / day for day in ("2020-03-28", "2020-04-11"))
    change = json.loads((second / "report.json").read_text(encoding="utf-8"))["change"]
    assert change["days"] == 14
    assert change["previous_scan"] == "2020-03-28"
    assert (first / "report.html").is_file()
    assert (second / "dicom" / "segmentation.dcm").is_file()
    assert "report.html" in result.stdout
    drawn = [float(ml) for ml in re.findall(r"\((\d+) ml drawn\)", result.stdout)]
    assert drawn[0] > drawn[1] > 0, "lesions shrink between the visits"
