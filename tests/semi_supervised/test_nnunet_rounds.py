"""Rounds on real trainers and tiny data: 2D and 3D, label maps and regions, and every option that changes labels."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from killable_run import SHORT, TRAINER, do_rounds, quick_ending, units
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from skimage import io
from tiny_data_set import TinyDataSet

from nnunet_covid import cli, trainers
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.semi_supervised.training import PREFIX, LabelledAndPseudo
from nnunet_covid.startup import console_command

pytestmark = pytest.mark.e2e
TWO_CLASSES = {"background": 0, "ground_glass": 1, "consolidation": 2}
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


def checksums(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def pseudo_label(experiment: Any, case: str, number: int = 1) -> np.ndarray:
    path = experiment.label_folder / f"round_{number:03d}" / f"{case}_seg.b2nd"
    return blosc2.open(str(path), mode="r")[:]


def test_labels_are_what_nnunet_itself_predicts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    before = checksums(made.preprocessed), checksums(made.raw)
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    after = checksums(made.preprocessed)
    assert {name: after[name] for name in before[0]} == before[0], "nothing of the labelled data has changed"
    assert checksums(made.raw) == before[1]

    model = experiment.report_folder / "training"  # plans and dataset.json as a model folder has them
    shutil.copy(experiment.report_folder / "models" / "base.pth", model / "fold_0" / "checkpoint_final.pth")
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    assert predictor.trainer_name == TRAINER, "the ordinary name"
    for case in ("un_0", "un_1"):
        image, properties = experiment.plans_manager.image_reader_writer_class().read_images(
            [str(made.unlabelled / f"{case}_0000.png")]
        )
        expected = predictor.predict_single_npy_array(image, properties)[0]
        shown = io.imread(experiment.report_folder / "round_001" / f"{case}.png")
        np.testing.assert_array_equal(shown, expected)
        assert shown.any(), "an empty label would prove nothing"
    rows = list(csv.DictReader((experiment.report_folder / "round_001" / "manifest.csv").open()))
    assert [row["image"] for row in rows] == ["un_0", "un_1"]
    assert {row["model"] for row in rows} == {units(experiment)["0/base"]["model"]}
    assert {row["kept"] for row in rows} == {"1.000000"}


def test_a_late_distillation_does_not_stop_the_short_trainings(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    experiment = do_rounds(make().unlabelled, "2d", "SSANetTrainerSA10_11epochs_1its", "random", "Test", SHORT)
    assert units(experiment)["1/round_001"]["steps"] == 1


def test_pseudo_cases_are_trained_on_and_never_validate(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    for path in sorted(made.unlabelled.iterdir()):  # named like labelled cases
        path.rename(path.with_name(path.name.replace("un_", "case_")))
    seen: list[tuple[list[str], list[str]]] = []
    plain = nnUNetTrainer.get_dataloaders

    def noting(self: Any) -> Any:
        training, validation = self.get_tr_and_val_datasets()
        assert isinstance(training, LabelledAndPseudo)
        seen.append((list(training.identifiers), list(validation.identifiers)))
        return plain(self)

    monkeypatch.setattr(nnUNetTrainer, "get_dataloaders", noting)
    do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", {**SHORT, "two_step": True})
    labelled, pseudo = [f"case_{i}" for i in range(4)], [f"{PREFIX}case_{i}" for i in range(2)]
    assert [training for training, _ in seen] == [labelled, labelled + pseudo, pseudo, labelled]
    assert all(validation == ["case_4", "case_5"] for _, validation in seen)


def test_training_really_learns_from_pseudo_labels(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    done = units(experiment)
    assert done["0/base"]["model"] != done["1/round_001"]["model"]
    again = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Again", SHORT)
    assert units(again)["1/round_001"]["model"] == done["1/round_001"]["model"], "the same seed, the same weights"
    other = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Other", {**SHORT, "seed": 1})
    assert units(other)["0/base"]["model"] != done["0/base"]["model"]


def test_a_trainer_of_several_stages_goes_on_learning(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's own with a warm-up gives its optimiser by stage, and the one it has where it is asked again."""
    quick_ending(monkeypatch)
    options = {"max_rounds": 1, "per_round": 2, "threshold": 0.3, "warm_start": True}
    trainer = "nnUNetTrainer_warmup_1epochs_2its"
    done = units(do_rounds(make().unlabelled, "2d", trainer, "iterative", "Test", options))
    assert done["0/base"]["model"] != done["1/round_001"]["model"]


@pytest.mark.parametrize("trainer", ["nnUNetTrainer_1epochs_1its", "InfNetTrainer_1epochs_1its"])
def test_regions_in_3d(trainer: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make(dims=3, labels=REGIONS, regions_class_order=[1, 2], size=20, spacing=1.25)
    options = {"max_rounds": 1, "threshold": 0.5, "untrusted": "ignore", "warm_start": True}
    experiment = do_rounds(made.unlabelled, "3d_fullres", trainer, "iterative", "Test", options)
    label = pseudo_label(experiment, "un_0")
    assert label.shape == (1, 16, 16, 16)
    assert set(np.unique(label)) <= {-1, 0, 1, 2, 3}
    shown = sitk.ReadImage(str(experiment.report_folder / "round_001" / "un_0.nii.gz"))
    assert shown.GetSize() == (20, 20, 20), "as large as the image"
    assert units(experiment)["1/weights"] is None, "regions have no cross entropy over classes"


def test_class_weights_reach_the_cross_entropy(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make(labels=TWO_CLASSES)
    weights = []
    plain = nnUNetTrainer.run_training

    def noting(self: Any) -> None:
        plain(self)
        weights.append(self.loss.loss.ce.weight)

    monkeypatch.setattr(nnUNetTrainer, "run_training", noting)
    options = {"max_rounds": 1, "per_round": 2, "threshold": 0.3, "reweight": "on"}
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "iterative", "Test", options)
    voxels = np.zeros(3)
    for i in range(4):
        label = io.imread(made.raw / "labelsTr" / f"case_{i}.png")
        voxels += [(label == v).sum() for v in range(3)]
    torch.testing.assert_close(weights[0], torch.tensor(voxels.sum() / (3 * voxels)).float())
    for case in ("un_0", "un_1"):
        label = pseudo_label(experiment, case)
        voxels += [(label == v).sum() for v in range(3)]
    torch.testing.assert_close(weights[1], torch.tensor(voxels.sum() / (3 * voxels)).float())


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"threshold": 1.0}, {0}),
        ({"threshold": 1.0, "untrusted": "ignore"}, {3}),
        ({"threshold": 0.0, "class_thresholds": {"consolidation": 1.0}}, {0, 1}),
        ({"soft": True, "confidence": "mirroring"}, {0, 1, 2}),
        ({"confidence": "mirroring", "threshold": 0.9, "untrusted": "ignore"}, {0, 1, 2, 3}),
        ({"select": "confident", "per_round": 1, "mirroring": False}, {0, 1, 2}),
    ],
)
def test_every_option_gives_labels_to_train_on(
    options: dict[str, Any], values: set[int], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_ending(monkeypatch)
    made = make(labels=TWO_CLASSES)
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", {**SHORT, **options})
    chosen = units(experiment)["1/select"]
    assert len(chosen) == options.get("per_round", 2)
    for case in chosen:
        assert set(np.unique(pseudo_label(experiment, case))) <= values
    rows = list(csv.DictReader((experiment.report_folder / "round_001" / "manifest.csv").open()))
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)


def test_the_whole_command_and_what_nnunet_makes_of_it(
    make: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = "nnunetv2.training.nnUNetTrainer.nnUNetTrainer.default_num_processes"
    monkeypatch.setattr(module, 1)
    made = make()
    command = ["pseudo-label", "940", "2d", "0", "-tr", TRAINER, "-p", "testPlans", "--strategy", "iterative"]
    command += ["-device", "cpu"]
    assert cli.main([*command, "-i", str(made.unlabelled), "--max-rounds", "1", "--threshold", "0.3"]) == 0
    model = made.model(f"{TRAINER}_pseudoIterative")
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
    for name in ("plans.json", "dataset.json", "dataset_fingerprint.json"):
        assert (model / name).is_file()
    assert (model / "fold_0" / "progress.png").is_file(), "nnU-Net's zip export wants it"
    assert (model / "fold_0" / "pseudo_labels" / "progress.png").is_file()
    nnunet_takes(made, f"{TRAINER}_pseudoIterative")
    (model / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    assert cli.main([*command, "-i", str(made.unlabelled), "--max-rounds", "1", "--threshold", "0.3"]) == 0
    read_checkpoint(model / "fold_0" / "checkpoint_final.pth")
    assert cli.main([*command, "--status"]) == 0
    table = capsys.readouterr().out
    assert "finished" in table
    assert "validation Dice" in table
    assert cli.main([*command, "-i", str(made.unlabelled), "--max-rounds", "2"]) == 2
    assert "another --name" in capsys.readouterr().err


def nnunet_takes(made: TinyDataSet, trainer: str) -> None:
    """nnU-Net's own commands validate, choose, predict with and hand on a model."""
    settings = {"nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}

    def run(command: str, *arguments: object) -> None:
        done = subprocess.run(
            console_command(command, *arguments),
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"

    model = made.model(trainer)
    what = ["-tr", trainer, "-p", "testPlans"]
    summary = model / "fold_0" / "validation" / "summary.json"
    of_the_rounds = json.loads(summary.read_text())["metric_per_case"]
    summary.unlink()
    run("nnUNetv2_train", 940, "2d", 0, *what, "-device", "cpu", "--val", "--npz")
    assert json.loads(summary.read_text())["metric_per_case"] == of_the_rounds, "validated as nnU-Net does"
    assert len(list((model / "fold_0" / "validation").glob("case_*.npz"))) == 2
    run("nnUNetv2_find_best_configuration", 940, "-c", "2d", *what, "-f", 0, "-np", 1, "--disable_ensembling")
    chosen = json.loads((model.parent / "inference_information.json").read_text())
    assert chosen["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] == trainer
    images, copy = made.raw / "imagesTs", made.root / "elsewhere"
    at = ["-d", 940, "-c", "2d", "-f", 0, *what, "-device", "cpu", "-npp", 1, "-nps", 1]
    run("nnUNetv2_predict", "-i", images, "-o", made.root / "predicted", *at)
    run("nnUNetv2_export_model_to_zip", "-d", 940, "-c", "2d", "-f", 0, *what, "-o", made.root / "model.zip")
    copy.mkdir()
    settings["nnUNet_results"] = str(copy)
    run("nnUNetv2_install_pretrained_model_from_zip", made.root / "model.zip")
    run("nnUNetv2_predict", "-i", images, "-o", made.root / "predicted_by_the_copy", *at)
    first, second = (io.imread(made.root / name / "test_0.png") for name in ("predicted", "predicted_by_the_copy"))
    np.testing.assert_array_equal(first, second)
    assert first.any(), "an empty label would prove nothing"


def test_a_trainer_that_refuses_leaves_nothing_behind(make: Any) -> None:
    made = make(dims=3, size=20)
    before = sorted(made.root.rglob("*"))
    with pytest.raises(SystemExit):
        do_rounds(made.unlabelled, "3d_fullres", "InfNetPretrainedTrainer", "random", "Test", SHORT)
    assert sorted(made.root.rglob("*")) == before


def test_a_result_is_not_trained_by_nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = trainers.InfNetTrainer_5epochs_pseudoRandom
    assert issubclass(kind, trainers.InfNetTrainer)
    assert kind.__name__ == "InfNetTrainer_5epochs_pseudoRandom"
    with pytest.raises(SystemExit):
        kind.run_training(object.__new__(kind))
