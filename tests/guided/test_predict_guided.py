"""``nnunet-covid predict-guided`` equals the two stages run by hand, goes on where it stopped, and refuses misfits."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
from image_files import checksums, grey, read_array, write_picture
from model_folders import complete_plans, write_model

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.calibration.model_folder import write_calibration
from nnunet_covid.cli import main
from nnunet_covid.dataset_json import GUIDED_KEY
from nnunet_covid.files import UNFINISHED
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.folder import alone_in

LABELS = {"background": 0, "ground_glass": 1, "consolidation": 2}


def second_stage(kind: str) -> dict[str, Any]:
    channels = {"0": "grey_ct", "1": "nonorm" if kind == "label" else "rgb_to_0_1"}
    return planned.dataset_json(LABELS, channel_names=channels, **{GUIDED_KEY: {"map": kind}})


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A first stage and a second one for either kind of map."""
    base = tmp_path_factory.mktemp("models")
    models = {
        "first": planned.dataset_json(),
        "label": second_stage("label"),
        "probability": second_stage("probability"),
    }
    for name, dataset_json in models.items():
        plans = complete_plans(dataset_json, stages=3, patch=[32, 32])
        (configuration,) = plans["configurations"].values()
        if name == "label":
            configuration["normalization_schemes"][1] = "NoNormalization"
        elif name == "probability":
            configuration["normalization_schemes"][1] = "RGBTo01Normalization"
        write_model(base / name, plans, dataset_json)
    return {name: base / name for name in models}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for seed, case in enumerate("ab"):
        write_picture(tmp_path / f"in/{case}_0000.png", grey((36, 30), seed))
    return tmp_path / "in"


def predict(stages: dict[str, Path], kind: str, images: Path, output: Path, *options: str) -> int:
    folders = map(str, (stages["first"], stages[kind], images, output))
    return main(["predict-guided", *folders, "-device", "cpu", "--disable_tta", *options])


@pytest.mark.parametrize("kind", ["label", "probability"])
def test_both_stages_equal_the_stages_one_by_one(
    stages: dict[str, Path], images: Path, tmp_path: Path, kind: str
) -> None:
    """By hand: predict with stage 1, write its map as a channel, predict the two channels with stage 2."""
    options = ["--save-infection", "--save_probabilities"]
    assert predict(stages, kind, images, tmp_path / "out", *options) == 0
    first, second = (TrainedModel(stages[name], device="cpu", mirroring=False) for name in ("first", kind))
    for case in first.cases(images):
        prepared = first.prepare(case)
        labels, probabilities = first.label_map(prepared, first.predict_logits(prepared))
        channel = labels[0] if kind == "label" else np.round(probabilities[1, 0] * 255)
        write_picture(tmp_path / f"two/{case.name}_0001.png", channel.astype(np.uint8))
        (tmp_path / f"two/{case.name}_0000.png").write_bytes(case.files[0].read_bytes())
        assert channel.any()
        np.testing.assert_array_equal(read_array(tmp_path / f"out/infection/{case.name}.png"), channel)
    for case in second.cases(tmp_path / "two"):
        prepared = second.prepare(case)
        labels, probabilities = second.label_map(prepared, second.predict_logits(prepared))
        np.testing.assert_array_equal(read_array(tmp_path / f"out/{case.name}.png"), labels[0])
        saved = np.load(tmp_path / f"out/{case.name}.npz")["probabilities"]
        np.testing.assert_allclose(saved, probabilities, atol=1e-5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("a.png", "b.png", "a.npz", "b.npz", "infection", "dataset.json", "plans.json", "predicted.jsonl")
    }


@pytest.mark.parametrize("source", ["folds", "reference"])
def test_stage_two_sees_maps_as_it_was_trained_on_though_stage_one_is_calibrated(
    stages: dict[str, Path], images: Path, tmp_path: Path, source: str
) -> None:
    """Those of validations are uncalibrated; references know nothing of that, and calibrated maps come nearest them."""
    copies = {name: shutil.copytree(stages[name], tmp_path / name) for name in ("first", "probability")}
    described = json.loads((copies["probability"] / "dataset.json").read_text())
    described[GUIDED_KEY]["maps_from"] = source
    (copies["probability"] / "dataset.json").write_text(json.dumps(described))
    assert predict(copies, "probability", images, tmp_path / "plain", "--save-infection") == 0
    write_calibration([copies["first"] / "fold_0/checkpoint_final.pth"], Calibration(True, (1.7,), (0.3,)))
    assert predict(copies, "probability", images, tmp_path / "calibrated", "--save-infection") == 0
    for name in ("a", "b"):
        plain, calibrated = (read_array(tmp_path / f"{made}/infection/{name}.png") for made in ("plain", "calibrated"))
        assert np.array_equal(plain, calibrated) == (source == "folds")


def test_a_stopped_run_goes_on(
    stages: dict[str, Path],
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert predict(stages, "label", images, tmp_path / "whole") == 0

    original = TrainedModel.label_map
    calls = []

    def failing(self: TrainedModel, case: Any, logits: Any) -> Any:
        calls.append(case.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return original(self, case, logits)

    monkeypatch.setattr(TrainedModel, "label_map", failing)
    assert predict(stages, "label", images, out) == 130
    assert sorted(path.name for path in out.glob("*.png")) == ["a.png"]
    (out / ".partial.1.b.png").write_bytes(b"half")
    assert predict(stages, "label", images, out) == 0
    assert calls == ["a", "a", "b", "b", "b", "b"]
    assert "1 of 2 cases are there already" in capsys.readouterr().out
    found, expected = checksums(out), checksums(tmp_path / "whole")
    assert found.pop("predicted.jsonl") != expected.pop("predicted.jsonl"), "the times of both runs"
    assert found == expected
    assert predict(stages, "label", images, out, "--overwrite") == 0
    assert calls[6:] == ["a", "a", "b", "b"]
    write_picture(images / "b_0000.png", grey((36, 30), 5))
    assert predict(stages, "label", images, out) == 0
    assert calls[10:] == ["b", "b"]
    assert predict(stages, "probability", images, out) == 0, "other models"
    assert calls[12:] == ["a", "a", "b", "b"]
    assert predict(stages, "probability", images, out, "--save-infection") == 0
    assert predict(stages, "probability", images, out, "--save-infection") == 0
    assert calls[16:] == ["a", "a", "b", "b"]
    assert sorted(path.name for path in (out / "infection").iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("order", "files", "message"),
    [
        (("label", "first"), ["a_0000.png"], "was not trained on a data set of 'nnunet-covid guide'"),
        (("label", "label"), ["a_0000.png"], "stage 1 reads the channels grey_ct, nonorm"),
        (("first", "label"), [], "holds no image that ends in .png"),
        (("first", "label"), ["a_0000.png", "a_0001.png"], "channels 0000, 0001, but 0000 is expected"),
    ],
)
def test_mistakes(
    stages: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    order: tuple[str, str],
    files: list[str],
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        write_picture(tmp_path / "in" / name, grey((20, 20), 0))
    models = [str(stages[name]) for name in order]
    assert main(["predict-guided", *models, str(tmp_path / "in"), str(tmp_path / "out"), "-device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_one_run_at_a_time(
    stages: dict[str, Path], images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What another run has begun to write stays, too."""
    half = tmp_path / f"out/{UNFINISHED}1.b.png"
    with alone_in(tmp_path / "out"):
        half.write_bytes(b"half")
        assert predict(stages, "label", images, tmp_path / "out") == 2
        assert "another process is at work on" in capsys.readouterr().err
        assert half.is_file()
    assert predict(stages, "label", images, tmp_path / "out") == 0
    assert not half.exists()
