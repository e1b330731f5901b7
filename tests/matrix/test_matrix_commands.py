"""What people do with nnU-Net's commands around a training, with every family of trainers, on slices."""

from __future__ import annotations

import functools
import shutil
import signal
import sys
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from cells import EVERYTHING, LATE, Cell, cells_of
from children import train_as_one_of_two, train_until_killed
from data_sets import PLANS, RESIDUAL_PLANS, TEST
from models import (
    ON_CPU,
    QUICK,
    Models,
    check_predictions,
    check_same,
    check_validation,
    short,
    without_validation,
)
from nnunet_here import World, quick_context
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

pytestmark = pytest.mark.e2e
TOGETHER, COMPILED, HALF = 1, 2, 3
"""Folds of the trainings beside fold 0's own."""


def losses(model: Path, fold: int) -> list[float]:
    """Training losses in the last checkpoint."""
    checkpoint = torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
    return checkpoint["logging"]["train_losses"]


@pytest.mark.parametrize("cell", cells_of("--c after SIGKILL"), ids=str)
def test_a_killed_training_goes_on(cell: Cell, models: Models, tmp_path: Path) -> None:
    kind = models.prepared(cell.trainer, "slices", "2d")
    trainer = short(cell.trainer, epochs=2)
    variables = models.start_weights(cell.trainer, kind, "2d")
    command = [str(kind.number), "2d", "0", "-tr", trainer, *ON_CPU]
    environment = {**models.world.environment, **variables}
    process = quick_context("spawn").Process(
        target=train_until_killed, args=(environment, tmp_path / "log", command, 1)
    )
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "log").read_text()
    folder = models.world.results / kind.name / f"{trainer}__{PLANS}__2d" / "fold_0"
    assert not (folder / "checkpoint_final.pth").exists()
    printed = models.world.call("nnUNetv2_train", *command, "--c", **variables)
    assert "Epoch 1" in printed
    assert "Epoch 0" not in printed
    assert "Mean Validation Dice" in printed
    assert len(losses(folder.parent, 0)) == 2


@pytest.mark.parametrize("cell", cells_of("-pretrained_weights"), ids=str)
def test_a_training_starts_from_a_model_of_other_classes(cell: Cell, models: Models) -> None:
    source = models.trained(cell.trainer, "slices") / "fold_0" / "checkpoint_final.pth"
    kind = models.prepared(cell.trainer, "five classes", "2d")
    printed = models.train(cell.trainer, kind, "2d", "-pretrained_weights", source, fold=1)
    listed = printed.split("Loading pretrained weights from file")[1].split("### Done ###")[0]
    taken = [line.split(" shape ")[0] for line in listed.splitlines() if " shape torch.Size" in line]
    weights = torch.load(source, weights_only=False)["network_weights"]
    assert set(taken) == {name for name in weights if ".seg_layers." not in name}
    assert len(taken) < len(weights)
    assert "Mean Validation Dice" in printed


@pytest.mark.parametrize("cell", cells_of("--val --npz"), ids=str)
def test_a_model_is_validated_again(cell: Cell, models: Models) -> None:
    model = models.trained(cell.trainer, "slices")
    kind = models.prepared(cell.trainer, "slices", "2d")
    before = (model / "fold_0" / "checkpoint_final.pth").read_bytes()
    validation = {p.name: p.read_bytes() for p in (model / "fold_0" / "validation").glob("*.png")}
    without_validation(model)
    assert "Mean Validation Dice" in models.train(cell.trainer, kind, "2d", "--val", "--npz")
    check_validation(model, kind)
    assert {p.name: p.read_bytes() for p in (model / "fold_0" / "validation").glob("*.png")} == validation
    assert (model / "fold_0" / "checkpoint_final.pth").read_bytes() == before


@pytest.mark.parametrize("cell", cells_of("best configuration, ensemble, post-processing"), ids=str)
def test_the_best_of_two_models_and_their_ensemble(cell: Cell, models: Models, tmp_path: Path) -> None:
    """Two plans of one trainer, as 2d and 3d_fullres are elsewhere."""
    for plans in (PLANS, RESIDUAL_PLANS):
        models.trained(cell.trainer, "slices", plans=plans)
    kind = models.prepared(cell.trainer, "slices", "2d")
    call = models.world.call
    which = ("-p", PLANS, RESIDUAL_PLANS, "-c", "2d", "-tr", short(cell.trainer), "-f", 0, "-np", 1)
    printed = call("nnUNetv2_find_best_configuration", kind.number, *which)
    assert printed.split("***All results:***")[1].count(short(cell.trainer)) >= 4  # two models, one ensemble of both
    folders = [models.predicted(cell.trainer, "slices", plans=plans) for plans in (PLANS, RESIDUAL_PLANS)]
    call("nnUNetv2_ensemble", "-i", *folders, "-o", tmp_path / "joined", "-np", 1, "--save_npz")
    check_predictions(tmp_path / "joined", kind)
    for case in TEST:
        one, other, both = (
            np.load(f / f"{case}.npz")["probabilities"].astype(float) for f in (*folders, tmp_path / "joined")
        )
        np.testing.assert_allclose(both, (one + other) / 2, atol=2e-3)
    (found,) = {
        p.parent for p in (models.world.results / kind.name).rglob("postprocessing.pkl") if cell.trainer in str(p)
    }
    where = ("-i", tmp_path / "joined", "-o", tmp_path / "done", "-np", 1, "-plans_json", found / "plans.json")
    call("nnUNetv2_apply_postprocessing", *where, "-pp_pkl_file", found / "postprocessing.pkl")
    assert len(list((tmp_path / "done").glob("*.png"))) == len(TEST)


@pytest.mark.parametrize("cell", cells_of("model as zip, installed elsewhere"), ids=str)
def test_a_model_travels_as_a_zip(cell: Cell, models: Models, tmp_path: Path) -> None:
    predicted = models.predicted(cell.trainer, "slices")
    kind = models.prepared(cell.trainer, "slices", "2d")
    which = ("-d", kind.number, "-c", "2d", "-f", 0, "-tr", short(cell.trainer), "-p", PLANS)
    models.world.call("nnUNetv2_export_model_to_zip", *which, "-o", tmp_path / "model.zip")
    assert zipfile.is_zipfile(tmp_path / "model.zip")
    shutil.copytree(models.data.images(kind), tmp_path / "images")
    if EVERYTHING:
        predict_in_another_environment(tmp_path, which)
    else:
        elsewhere = World(tmp_path / "elsewhere")
        elsewhere.call("nnUNetv2_install_pretrained_model_from_zip", tmp_path / "model.zip")
        models.predict(cell.trainer, kind, tmp_path / "out", world=elsewhere, images=tmp_path / "images")
    check_same(tmp_path / "out", predicted)


def predict_in_another_environment(folder: Path, which: tuple[object, ...]) -> None:
    """Install and predict with the commands of a virtual environment with our wheel and its start-up line."""
    from wheel_environment import install_wheel, run_there

    environment = install_wheel(folder / "wheel")
    folders = {f"nnUNet_{name}": str(folder / name) for name in ("raw", "preprocessed", "results")}
    (folder / "results").mkdir()
    done = run_there(environment, "nnunet-covid", "register")
    where = ("-i", folder / "images", "-o", folder / "out")
    for command, arguments in (
        ("nnUNetv2_install_pretrained_model_from_zip", (folder / "model.zip",)),
        ("nnUNetv2_predict", (*where, *which, *QUICK)),
    ):
        program = (
            f"from importlib.metadata import entry_points as e; e(name={command!r}).__iter__().__next__().load()()"
        )
        done = run_there(environment, "python", "-c", program, *map(str, arguments), **folders)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("cell", cells_of("model folder without raw data"), ids=str)
def test_a_copied_model_folder_predicts_without_any_data_set(cell: Cell, models: Models, tmp_path: Path) -> None:
    predicted = models.predicted(cell.trainer, "slices")
    kind = models.prepared(cell.trainer, "slices", "2d")
    source = models.trained(cell.trainer, "slices")
    for part in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        (tmp_path / "model" / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / part, tmp_path / "model" / part)
    shutil.copytree(models.data.images(kind), tmp_path / "images")
    where = ("-i", tmp_path / "images", "-o", tmp_path / "out", "-m", tmp_path / "model", "-f", 0)
    models.world.call("nnUNetv2_predict_from_modelfolder", *where, *QUICK, folders_known=False)
    check_same(tmp_path / "out", predicted)


@pytest.mark.parametrize("cell", cells_of("-num_parts -part_id"), ids=str)
def test_prediction_in_parts(cell: Cell, models: Models, tmp_path: Path) -> None:
    predicted = models.predicted(cell.trainer, "slices")
    kind = models.prepared(cell.trainer, "slices", "2d")
    for part in range(2):
        models.predict(cell.trainer, kind, tmp_path / "out", "-num_parts", 2, "-part_id", part)
        assert len(list((tmp_path / "out").glob("*.png"))) == part + 1
    check_same(tmp_path / "out", predicted)


@pytest.mark.skipif(sys.platform == "win32", reason="gloo meets in a file")
@pytest.mark.parametrize("cell", cells_of("-num_gpus 2"), ids=str)
def test_two_processes_train_together(cell: Cell, models: Models, tmp_path: Path) -> None:
    kind = models.prepared(cell.trainer, "slices", "2d")
    environment = {**models.world.environment, **models.start_weights(cell.trainer, kind, "2d")}
    trainer = short(cell.trainer)
    common = (environment, tmp_path / "log", tmp_path / "meeting", kind.name, TOGETHER, trainer)
    processes = [quick_context("spawn").Process(target=train_as_one_of_two, args=(rank, *common)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    log = (tmp_path / "log").read_text()
    assert [process.exitcode for process in processes] == [0, 0], log[-4000:]
    assert "The world size is 2" in log
    model = models.model(cell.trainer, kind, "2d")
    assert np.isfinite(losses(model, TOGETHER)).all()
    assert (model / f"fold_{TOGETHER}" / "validation" / "summary.json").is_file()
    models.predict(cell.trainer, kind, tmp_path / "out", "--save_probabilities", fold=TOGETHER)
    check_predictions(tmp_path / "out", kind)


@pytest.mark.parametrize("cell", cells_of("torch.compile"), ids=str)
def test_a_compiled_network_has_no_graph_break(cell: Cell, models: Models) -> None:
    """Training, validation and the validation's prediction; nnU-Net compiles on GPUs alone."""
    kind = models.prepared(cell.trainer, "slices", "2d")
    backend = "inductor" if EVERYTHING else "eager"
    compiled = functools.partial(torch.compile, backend=backend, fullgraph=True)
    torch._dynamo.reset()
    with (
        mock.patch.object(nnUNetTrainer, "_do_i_compile", return_value=True),
        mock.patch.object(torch, "compile", compiled),
    ):
        printed = models.train(cell.trainer, kind, "2d", fold=COMPILED)
    assert "Using torch.compile" in printed
    assert "Mean Validation Dice" in printed
    model = models.model(cell.trainer, kind, "2d")
    assert np.isfinite(losses(model, COMPILED)).all()
    weights = torch.load(model / f"fold_{COMPILED}" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert not any("_orig_mod" in name for name in weights)


@pytest.mark.parametrize("cell", cells_of("bfloat16 autocast"), ids=str)
def test_half_precision_learns_and_predicts(cell: Cell, models: Models) -> None:
    """On the CPU, where nnU-Net itself takes no autocast, wherever it would on a GPU."""
    kind = models.prepared(cell.trainer, "slices", "2d")
    entered = []

    def autocast() -> torch.autocast:
        entered.append(True)
        return torch.autocast("cpu", dtype=torch.bfloat16)

    users = [m for n, m in sys.modules.items() if n.startswith(("nnunet",)) and hasattr(m, "dummy_context")]
    with pytest.MonkeyPatch.context() as patch:
        for module in users:
            patch.setattr(module, "dummy_context", autocast)
        printed = models.train(cell.trainer, kind, "2d", fold=HALF)
    assert len(entered) >= 3, "a step, a validation step and a prediction"
    assert "Mean Validation Dice" in printed
    assert np.isfinite(losses(models.model(cell.trainer, kind, "2d"), HALF)).all()


def test_late_trainers_are_those_of_the_table() -> None:
    import nnunet_covid.trainers as ours

    starts = {n: getattr(getattr(ours, n), "distillation_start", 0) for n in ours.TRAINERS}
    assert {name: start for name, start in starts.items() if start > 0} == LATE
