"""Whole runs of the command: killed ones, what joins and what stays out, and what nnU-Net makes of the checkpoint."""

from __future__ import annotations

import json
import multiprocessing
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from killable_pretraining import killed_at
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid import cli
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.pretraining import steps


def command(made: TinyDataSet, *more: str) -> list[str]:
    given = ["pretrain", "940", made.configuration, "-i", str(made.unlabelled), "-p", "testPlans", "-device", "cpu"]
    return [*given, *more]


def folder(made: TinyDataSet, name: str = "unlabelled", trainer: str = "nnUNetTrainer") -> Path:
    results = made.root / "nnUNet_results" / made.preprocessed.name
    return results / "pretraining" / f"{trainer}__testPlans__{made.configuration}" / name


def checkpoint(place: Path) -> dict[str, Any]:
    return read_checkpoint(place / "checkpoint_final.pth", needed=("trainer_name", "init_args", "pretraining"))


def state(place: Path) -> dict[str, Any]:
    return json.loads((place / "state.json").read_text())["units"]


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_killed_run_goes_on_to_the_same_end(made, environment, tmp_path: Path, capsys, monkeypatch) -> None:
    variables = environment(made)
    assert cli.main(command(made, "--steps", "7", "--name", "undisturbed")) == 0
    killed = command(made, "--steps", "7", "--name", "killed")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killable_pretraining", "timm"])
    process = context.Process(target=killed_at, args=(variables, tmp_path / "log", killed, 5, 3))
    process.start()
    process.join(300)
    assert process.exitcode == -9, (tmp_path / "log").read_text()[-3000:]
    place = folder(made, "killed")
    assert torch.load(place / steps.LATEST)["done"] == 3
    assert not (place / "checkpoint_final.pth").exists()
    capsys.readouterr()
    assert cli.main([*killed, "--mask-share", "0.6"]) == 2
    assert "`mask_share`" not in (said := capsys.readouterr().err)
    assert "--mask-share was 0.7 and is 0.6" in said
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    assert cli.main(killed) == 0
    assert not (place / steps.LATEST).exists()
    both = [checkpoint(folder(made, name)) for name in ("undisturbed", "killed")]
    assert_equal(*(one["network_weights"] for one in both))
    losses = [state(folder(made, name))["learn"]["result"]["losses"] for name in ("undisturbed", "killed")]
    assert [row[0] for row in losses[1]] == [1, 7]
    assert losses[0][0] == losses[1][0]
    written = (place / "checkpoint_final.pth").stat().st_mtime_ns
    assert cli.main(killed) == 0
    assert (place / "checkpoint_final.pth").stat().st_mtime_ns == written
    (place / "checkpoint_final.pth").unlink()
    assert cli.main(killed) == 0
    assert_equal(checkpoint(place)["network_weights"], both[0]["network_weights"])


def test_the_command_that_is_printed_can_be_pasted(made, environment, tmp_path: Path, monkeypatch, capsys) -> None:
    environment(made)
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "my results"))
    assert cli.main(command(made, "--steps", "1")) == 0
    printed = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert printed[0] == "nnUNetv2_train"
    assert printed[-2] == "-pretrained_weights"
    assert Path(printed[-1]).is_file()


def test_own_images_join_only_as_training_images_of_the_fold(made, environment, tmp_path: Path, capsys) -> None:
    environment(made)
    mixed = tmp_path / "mixed"
    shutil.copytree(made.unlabelled, mixed)
    for source, name in (("imagesTr/case_5", "validation"), ("imagesTs/test_0", "test"), ("imagesTr/case_0", "train")):
        shutil.copy(made.raw / f"{source}_0000.png", mixed / f"{name}_0000.png")
    asked = [*command(made), "-i", str(mixed), "--steps", "1", "--name"]
    assert cli.main([*asked, "mixed"]) == 2
    said = capsys.readouterr().err
    assert "test = imagesTs/test_0" in said
    assert "validation = imagesTr/case_5" in said
    assert "-i " in said
    assert "--leave-out-duplicates" in said
    assert not folder(made, "mixed").exists()
    assert cli.main([*asked, "without", "--leave-out-duplicates"]) == 0
    pool = state(folder(made, "without"))["pool"]["result"]
    assert sorted(pool["cases"]) == ["un_0", "un_1", "un_2"]
    assert sorted(pool["left_out"]) == ["test", "train", "validation"]
    assert state(folder(made, "without"))["labelled cases"]["result"] == []
    cases: list[list[str]] = []
    original = steps.StepBatches.__getitem__

    def watched(self: steps.StepBatches, step: int) -> Any:
        cases.append(list(self.loader._data.identifiers))
        return original(self, step)

    steps.StepBatches.__getitem__ = watched  # type: ignore[method-assign]
    try:
        assert cli.main(command(made, "--steps", "1", "-f", "0")) == 0
    finally:
        steps.StepBatches.__getitem__ = original  # type: ignore[method-assign]
    assert cases[0] == ["case_0", "case_1", "case_2", "case_3", "pseudo/un_0", "pseudo/un_1", "pseudo/un_2"]
    assert folder(made, "fold0").is_dir()


def test_images_that_nothing_can_be_compared_with_are_told(made, environment, capsys) -> None:
    environment(made)
    (made.raw / "imagesTr/case_5_0000.png").unlink()
    assert cli.main(command(made, "--steps", "1", "--name", "lacking")) == 0
    assert "nnUNet_raw lacks 1 image(s), with which none was compared: imagesTr/case_5" in capsys.readouterr().out
    shutil.rmtree(made.raw / "imagesTr")
    assert cli.main(command(made, "--steps", "1", "--name", "bare")) == 0
    assert "nnUNet_raw does not hold the data set: unlabelled images were not" in capsys.readouterr().out


FAMILIES = {
    "nnUNetTrainer": 2,
    "InfNetTrainer": 2,
    "SSANetTrainer": 2,
    "UNetPretrainedScratchTrainer": 2,
    "nnUNetTrainer, 3D": 3,
}


@pytest.fixture(scope="module")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, TinyDataSet]:
    """Slices in patches that hold more than one block of stride 32, and volumes."""
    slices = make_tiny_data_set(tmp_path_factory.mktemp("slices"), unlabelled=2, size=64)
    plans = slices.preprocessed / "testPlans.json"
    plans.write_text(plans.read_text().replace('"patch_size": [32, 32]', '"patch_size": [64, 64]'))
    return {2: slices, 3: make_tiny_data_set(tmp_path_factory.mktemp("volumes"), unlabelled=2, dims=3, size=20)}


@pytest.mark.parametrize("family", FAMILIES)
def test_nnunet_trains_from_the_checkpoint(family: str, data_sets, environment, monkeypatch) -> None:
    from nnunetv2.run.run_training import run_training

    made, trainer = data_sets[FAMILIES[family]], family.split(",")[0]
    environment(made)
    assert cli.main(command(made, "-tr", trainer, "--steps", "2")) == 0
    place = folder(made, trainer=trainer)
    weights = checkpoint(place)["network_weights"]
    assert (place / "reconstructions.png").is_file()
    begun: list[dict[str, torch.Tensor]] = []

    def started(self: Any) -> None:
        begun.append({name: value.clone() for name, value in self.network.state_dict().items()})

    monkeypatch.setattr(nnUNetTrainer, "on_epoch_start", started)
    monkeypatch.setattr(nnUNetTrainer, "on_epoch_end", lambda self: None)
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda self, *_: None)
    run_training(
        "940",
        made.configuration,
        "0",
        f"{trainer}_1epochs_1its",
        "testPlans",
        pretrained_weights=str(place / "checkpoint_final.pth"),
        device=torch.device("cpu"),
    )
    assert begun[0].keys() == weights.keys()
    different = [name for name, value in begun[0].items() if not torch.equal(value, weights[name])]
    assert all("seg_layers" in name for name in different)
    assert {name.split(".")[0] for name in weights} >= {"encoder"}


def stop_at_once(asked: list[str]) -> None:
    """Begin a run and end it where its first step would be."""

    def die(self: Any, checkpoint: Any) -> None:
        self.save()
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps.Pretraining, "run", die)
        assert cli.main(asked) == 130


def test_a_run_begun_on_a_cpu_goes_on_with_the_scaler_of_a_gpu(made, environment, monkeypatch) -> None:
    environment(made)
    asked = command(made, "--steps", "2", "--name", "moved")
    stop_at_once(asked)
    scaler = torch.amp.GradScaler("cpu")
    monkeypatch.setattr(torch.amp, "GradScaler", lambda *_, **__: scaler)
    assert cli.main(asked) == 0
    assert scaler.state_dict()["_growth_tracker"] == 2
    assert all(weight.isfinite().all() for weight in checkpoint(folder(made, "moved"))["network_weights"].values())


def test_a_compiled_run_learns_the_same_without_a_graph_break(made, environment, monkeypatch) -> None:
    environment(made)
    assert cli.main(command(made, "--steps", "2", "--name", "plain")) == 0
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    compile_, compiled = torch.compile, []

    def eagerly(network: torch.nn.Module) -> Any:
        compiled.append(network)
        return compile_(network, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", eagerly)
    torch._dynamo.reset()
    assert cli.main(command(made, "--steps", "2", "--name", "compiled")) == 0
    assert any(isinstance(network, steps.Autoencoder) for network in compiled)
    plain, other = (checkpoint(folder(made, name))["network_weights"] for name in ("plain", "compiled"))
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value)


def test_what_cannot_be_gone_on_from_is_told(made, environment, capsys) -> None:
    environment(made)
    asked = command(made, "--steps", "2", "--name", "damaged")
    stop_at_once(asked)
    latest = folder(made, "damaged") / steps.LATEST
    latest.write_bytes(latest.read_bytes()[:1000])
    capsys.readouterr()
    assert cli.main(asked) == 2
    said = capsys.readouterr().err
    assert f"{latest} cannot be read (" in said
    assert "delete" in said
    assert "Traceback" not in said


def test_hidden_voxels_of_ct_are_the_images_mean_and_not_that_of_lesions(environment, tmp_path: Path, capsys) -> None:
    made = make_tiny_data_set(tmp_path, unlabelled=3)
    path = made.preprocessed / "testPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["2d"]["normalization_schemes"] = ["CTNormalization"]
    of_lesions = {"mean": 1000, "std": 1, "percentile_00_5": 0, "percentile_99_5": 255}
    plans["foreground_intensity_properties_per_channel"] = {"0": of_lesions}
    path.write_text(json.dumps(plans))
    environment(made)
    run = command(made, "--steps", "1")
    assert cli.main(run) == 0
    _, _, of_mean = state(folder(made))["learn"]["result"]["losses"][-1]
    assert of_mean < 0.2 * (1000 - 100) ** 2, "were zero predicted, it would be all of it"
    place = folder(made) / "state.json"
    content = json.loads(place.read_text())
    del content["context"]["hidden voxels of CT"]  # as of a run that was begun with zeros
    place.write_text(json.dumps(content))
    capsys.readouterr()
    assert cli.main(run) == 2
    assert "hidden voxels of CT was None and is 'the mean of what is visible'" in capsys.readouterr().err
