"""The trainers keep nnU-Net's contract and refuse what they cannot do, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid import trainers
from nnunet_covid.nnunet.architecture import has_background_head
from nnunet_covid.trainers.inf_net import InfNetTrainer
from nnunet_covid.trainers.inf_net_timm import InfNetPretrainedTrainer, InfNetRes2NetScratchTrainer

OF_EVERY_KIND = (
    "InfNetTrainer",
    "InfNetRes2NetTrainer",
    "InfNetPretrainedTrainer",
    "InfNetPretrainedEnlargedTrainer",
    "UNetPretrainedTrainer",
    "UNetPretrainedEnlargedTrainer",
    "SSANetReweightedTrainer",
    "SSANetResNet34Trainer",
)
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "nnUNet_results"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An initialised trainer on the CPU that has not looked at any data."""
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)

    def build(trainer: type, dataset_json: dict[str, Any] | None = None, **plans: Any) -> Any:
        configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
        made = trainer(
            planned.plans(**plans), configuration, 0, dataset_json or planned.dataset_json(), torch.device("cpu")
        )
        made.initialize()
        return made

    return build


def batch(trainer: Any, num_labels: int = 2) -> dict[str, Any]:
    """What nnU-Net's loader gives for this trainer."""
    size = trainer.configuration_manager.patch_size
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, num_labels, (2, 1, *size))).short()
    if trainer.label_manager.has_regions:
        channels = [*trainer.label_manager.foreground_regions, (trainer.label_manager.ignore_label,)]
        values = [(c,) if isinstance(c, int) else c for c in channels]
        labels = torch.cat([torch.isin(labels, torch.tensor(v)) for v in values], dim=1)
    strides = [[round(1 / factor) for factor in scale] for scale in trainer._get_deep_supervision_scales()]
    targets = [labels[(..., *(slice(None, None, step) for step in stride))] for stride in strides]
    return {"data": torch.randn(2, 1, *size), "target": targets}


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_a_step_moves_the_weights(name: str, make: Any) -> None:
    trainer = type(name, (getattr(trainers, name),), {"encoder_weights": None, "scales": (1.0,)})
    made = make(trainer, stages=6, patch=[64, 64])
    if hasattr(made, "reweighted"):
        made.reweighted.set_counts([9, 1])
    before = [p.detach().clone() for p in made.network.parameters()]
    made.network.train()
    assert np.isfinite(made.train_step(batch(made))["loss"])
    moved = [not torch.equal(a, b) for a, b in zip(before, made.network.parameters(), strict=True)]
    # timm starts residual branches at zero, so that their inner layers move from the second step on
    assert np.mean(moved) > 0.5
    made.network.eval()
    with torch.no_grad():
        scores = made.validation_step(batch(made))
    assert scores["tp_hard"].shape == (1,)


@pytest.mark.parametrize("name", ["InfNetPretrainedTrainer", "SSANetResNet34Trainer"])
def test_other_trainers_on_timm_take_an_enlarged_image(name: str, make: Any) -> None:
    settings = {"encoder_weights": None, "enlargement": 2}
    made = make(type(name, (getattr(trainers, name),), settings), stages=6, patch=[64, 64])
    first = made.network.encoder(torch.randn(1, 1, 64, 64))[0]
    assert first.shape[2:] == tuple(64 // stride for stride in made.network.encoder.description.strides[0])
    assert np.isfinite(made.train_step(batch(made))["loss"])


@pytest.mark.parametrize("name", ["UNetPretrainedTrainer", "InfNetRes2NetTrainer"])
def test_on_a_cpu_channels_come_last_in_memory_and_maps_stay_the_same(name: str, make: Any) -> None:
    made = make(type(name, (getattr(trainers, name),), {"encoder_weights": None}), stages=6, patch=[64, 64])
    network, image = made.network.eval(), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        assert network.encoder(image)[-1].is_contiguous(memory_format=torch.channels_last)
        maps = network(image)
        torch.testing.assert_close(maps, network.to(memory_format=torch.contiguous_format)(image), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_regions_with_an_ignore_label_train_and_validate(dims: int, make: Any) -> None:
    data = planned.dataset_json(REGIONS, regions_class_order=[1, 2])
    made = make(InfNetTrainer, data, dims=dims, stages=4, patch=[16] * dims if dims == 3 else [32, 32])
    assert made.network(batch(made)["data"])[0].shape[1] == 2
    assert np.isfinite(made.train_step(batch(made, 4))["loss"])
    with torch.no_grad():
        assert made.validation_step(batch(made, 4))["tp_hard"].shape == (2,)
    assert not has_background_head(PlansManager(made.plans_manager.plans))


def test_classes_with_an_ignore_label_get_one_head_each_and_a_background(make: Any) -> None:
    labels = {"background": 0, "ground_glass": 1, "consolidation": 2, "ignore": 3}
    made = make(InfNetTrainer, planned.dataset_json(labels), stages=4, patch=[32, 32])
    assert made.network(batch(made)["data"])[0].shape[1] == 3
    data = batch(made, 4)
    ignored = data["target"][0] == 3
    losses = []
    for hidden in (0, 1, 2):
        made.network.eval()
        seen = data["target"][0].clone()
        reference, valid = made.loss.split_target(seen)
        assert torch.equal(valid.bool(), ~ignored)
        assert reference.shape[1] == 2
        assert torch.equal(reference[:, 1:] == 1, seen == 2)
        with torch.no_grad():
            outputs = [torch.where(ignored, float(hidden), m) for m in made.network(data["data"])]
            losses.append(made.loss(outputs, [seen]).item())
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])


def test_prediction_builds_the_network_that_was_trained(make: Any) -> None:
    data = planned.dataset_json(REGIONS, regions_class_order=[1, 2])
    made = make(InfNetTrainer, data, stages=5)
    saved = PlansManager(made.plans_manager.plans)  # what the model folder keeps
    network = InfNetTrainer.build_network_architecture(saved, saved.get_configuration("2d"), 1, 2, False)
    network.load_state_dict(made.network.state_dict())
    image = torch.randn(1, 1, 64, 64)
    made.set_deep_supervision_enabled(False)
    made.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), made.network(image))


def test_logit_layers_are_left_out_of_pretrained_weights(make: Any) -> None:
    made = make(InfNetTrainer, stages=6)
    single_channel = [n for n, p in made.network.named_parameters() if p.shape[0] == 1 and p.ndim == 4]
    assert len(single_channel) == 8  # six steps of the cascade, the global map, the edge
    assert all(".seg_layers." in n for n in single_channel)


def test_a_trainer_starts_from_a_model_with_another_number_of_classes(make: Any, tmp_path: Path) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    source = make(InfNetTrainer, stages=4)
    torch.save({"network_weights": source.network.state_dict()}, tmp_path / "weights.pth")
    labels = {"background": 0, "ground_glass": 1, "consolidation": 2}
    target = make(InfNetTrainer, planned.dataset_json(labels), stages=4)
    load_pretrained_weights(target.network, tmp_path / "weights.pth")
    for (name, a), b in zip(target.network.named_parameters(), source.network.parameters(), strict=True):
        assert ".seg_layers." in name or torch.equal(a, b)


def test_a_paper_step_uses_every_scale_and_clips_values(make: Any) -> None:
    made = make(InfNetRes2NetScratchTrainer, stages=6, patch=[128, 96])
    sizes: list[tuple[int, ...]] = []
    clipped: list[float] = []
    made.network.register_forward_pre_hook(lambda module, args: sizes.append(tuple(args[0].shape[2:])))
    step = made.optimizer.step

    def recorded_step() -> None:
        clipped.append(max(p.grad.abs().max().item() for p in made.network.parameters()))
        step()

    made.optimizer.step = recorded_step
    made.network.train()
    made.train_step(batch(made))
    assert sizes == [(96, 64), (128, 96), (160, 128)]
    assert len(clipped) == 3
    assert max(clipped) <= 0.5


def test_every_scale_is_compiled_by_itself(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "automatic_dynamic_shapes", True)
    make(InfNetTrainer)
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> torch.fx.GraphModule:
        assert all(isinstance(x, torch.Tensor) for x in inputs), "compiled for any size"
        sizes.append([x.shape for x in inputs])
        return graph

    compiled = torch.compile(torch.nn.Conv2d(1, 3, 1), backend=backend)
    for side in (48, 64, 80):
        assert compiled(torch.zeros(2, 1, side, side)).shape == (2, 3, side, side)
    assert len(sizes) == 3


def test_the_paper_recipe_divides_the_learning_rate_at_half_time(make: Any) -> None:
    made = make(InfNetRes2NetScratchTrainer, stages=6)
    rates = []
    for epoch in (0, 49, 50, 99):
        made.lr_scheduler.step(epoch)
        rates.append(made.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
    assert isinstance(made.optimizer, torch.optim.Adam)


@pytest.mark.parametrize(("epochs", "first_half"), [(2, 1), (3, 2), (25, 13)])
def test_one_step_halves_an_odd_number_of_epochs_too(epochs: int, first_half: int, make: Any) -> None:
    made = make(getattr(trainers, f"InfNetRes2NetScratchTrainer_{epochs}epochs"), stages=6)
    scheduler = made.configure_optimizers()[1]
    rates = []
    for epoch in range(epochs):
        scheduler.step(epoch)
        rates.append(scheduler.get_last_lr()[0])
    assert rates == pytest.approx([1e-4] * first_half + [1e-5] * (epochs - first_half))


def refused(capsys: pytest.CaptureFixture[str], folders: Path, trainer: type, **plans: Any) -> str:
    """The one line that a refusal prints; checks that it ends the run with status 2 and wrote nothing."""
    with pytest.raises(SystemExit) as stop:
        trainer(
            planned.plans(**plans),
            "3d_fullres" if plans.get("dims") == 3 else "2d",
            0,
            planned.dataset_json(),
            torch.device("cpu"),
        )
    assert stop.value.code == 2
    assert list(folders.iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_too_few_stages_are_refused(capsys: pytest.CaptureFixture[str], folders: Path) -> None:
    error = refused(capsys, folders, InfNetTrainer, stages=3)
    assert "'2d' of testPlans" in error
    assert "has 3" in error
    assert "larger patch" in error


@pytest.mark.parametrize(
    ("base", "settings", "plans", "expected"),
    [
        (InfNetTrainer, {"output": "stride4"}, {}, "output = 'stride4'"),
        (InfNetTrainer, {"deeper_stages": "keep"}, {}, "deeper_stages = 'keep'"),
        (InfNetTrainer, {"optimizer_name": "lion"}, {}, "optimizer_name = 'lion'"),
        (InfNetTrainer, {"schedule": "cosine"}, {}, "schedule = 'cosine'"),
        (InfNetPretrainedTrainer, {"encoder_name": "no_such_net"}, {}, "no_such_net"),
        (InfNetPretrainedTrainer, {}, {"dims": 3}, "2D only"),
    ],
)
def test_unsupported_settings_are_refused(
    base: type,
    settings: dict[str, Any],
    plans: dict[str, Any],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    folders: Path,
) -> None:
    assert expected in refused(capsys, folders, type("Variant", (base,), settings), **plans)


def test_missing_weights_end_with_one_line(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    missing = type("Missing", (InfNetPretrainedTrainer,), {"encoder_weights": "/no/such/file.pth"})
    with pytest.raises(SystemExit) as stop:
        make(missing)
    assert stop.value.code == 2
    assert "/no/such/file.pth does not exist" in capsys.readouterr().err


def test_an_encoder_that_was_trained_before_needs_no_weights(make: Any) -> None:
    settings = {"encoder_weights": "/no/such/file.pth", "trained_before": True}
    assert make(type("Trained", (InfNetPretrainedTrainer,), settings)).was_initialized


def test_a_checkpoint_needs_no_encoder_weights(make: Any, tmp_path: Path) -> None:
    settings = {"encoder_weights": "/no/such/file.pth"}
    trained = make(type("Scratch", (InfNetPretrainedTrainer,), {"encoder_weights": None}))
    trained.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    plans = planned.plans()
    continued = type("Missing", (InfNetPretrainedTrainer,), settings)(
        plans, "2d", 0, planned.dataset_json(), torch.device("cpu")
    )
    continued.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    for a, b in zip(continued.network.parameters(), trained.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_the_encoder_may_learn_at_another_rate_after_a_warm_up(make: Any) -> None:
    kind = type("Slow", (InfNetTrainer,), {"encoder_rate": 0.1, "warm_up": 1, "learning_rate": 0.02})
    made = make(kind)
    encoder = {id(p) for p in made.network.encoder.parameters()}
    found = {}
    for epoch in range(2):
        made.lr_scheduler.step(epoch)
        for group in made.optimizer.param_groups:
            inside = {id(p) in encoder for p in group["params"]}
            assert len(inside) == 1
            found[epoch, inside.pop()] = group["lr"]
    poly = (1 - 1 / made.num_epochs) ** 0.9
    assert found == pytest.approx(
        {(0, False): 0.01, (0, True): 0.001, (1, False): 0.02 * poly, (1, True): 0.002 * poly}
    )
    assert sum(len(g["params"]) for g in made.optimizer.param_groups) == len(list(made.network.parameters()))


@pytest.mark.parametrize("dims", [2, 3])
def test_edges_lie_in_the_planes_that_the_plan_convolves(dims: int, make: Any) -> None:
    if dims == 2:
        assert make(InfNetTrainer).loss.edge_axes == (True, True)
        return
    kernels = [[1, 3, 3]] * 2 + [[3, 3, 3]] * 3
    strides = [[1, 1, 1]] + [[1, 2, 2]] * 2 + [[2, 2, 2]] * 2
    made = make(InfNetTrainer, dims=3, kernels=kernels, strides=strides, patch=[8, 32, 32])
    assert made.loss.edge_axes == (False, True, True)
