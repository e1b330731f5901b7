"""SSA-Net's trainers wire network, losses and settings together, and refuse what they cannot do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid import trainers
from nnunet_covid.losses.ssa_net import distillation_loss
from nnunet_covid.networks.spatial_convolution import SpatialConvolution
from nnunet_covid.trainers.ssa_net import (
    SSANetDiceCETrainer,
    SSANetDiceTrainer,
    SSANetMutualTrainer,
    SSANetResNet34PretrainedTrainer,
    SSANetResNet34Trainer,
    SSANetReweightedTrainer,
    SSANetStride32Trainer,
    SSANetTrainer,
)

REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}
CLASSES = {"background": 0, "ground_glass": 1, "consolidation": 2, "ignore": 3}


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "nnUNet_preprocessed" / "Dataset999_Test").mkdir()
    return tmp_path / "nnUNet_results"


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An initialised trainer on the CPU that has not looked at any data."""
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)

    def build(trainer: type, labels: dict[str, Any] | None = None, **plans: Any) -> Any:
        regions = {"regions_class_order": [1, 2]} if labels is REGIONS else {}
        data = planned.dataset_json(labels, **regions)
        plans = {"stages": 4, "patch": [32, 32], **plans}
        made = trainer(
            planned.plans(**plans), "3d_fullres" if plans.get("dims") == 3 else "2d", 0, data, torch.device("cpu")
        )
        torch.manual_seed(0)
        made.initialize()
        return made

    return build


def batch(made: Any, num_labels: int = 2) -> dict[str, Any]:
    """What nnU-Net's loader gives for this trainer."""
    size = made.configuration_manager.patch_size
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, num_labels, (2, 1, *size))).short()
    if made.label_manager.has_regions:
        labels = torch.cat([torch.isin(labels, torch.tensor(v)) for v in ([1, 2], [2], [3])], dim=1)
    targets = []
    for scale in made._get_deep_supervision_scales():
        targets.append(labels[(..., *(slice(None, None, round(1 / f)) for f in scale))])
    return {"data": torch.randn(2, 1, *size), "target": targets}


def naive_dice_loss(logits: torch.Tensor, target: torch.Tensor, ignore: int | None = None) -> float:
    """Eq. (6) of the foreground classes, summed over the batch as the plans of 2D data say."""
    probabilities = logits.double().softmax(1).numpy()
    labels = target[:, 0].numpy()
    valid = labels != ignore
    scores = []
    for label in range(1, probabilities.shape[1]):
        p, g = probabilities[:, label][valid], (labels == label)[valid]
        scores.append(2 * (p * g).sum() / (p.sum() + g.sum()))
    return 1 - float(np.mean(scores))


@pytest.mark.parametrize("labels", [None, CLASSES], ids=["binary", "classes with an ignore label"])
def test_the_loss_is_supervised_dice_and_a_tenth_of_the_distillation(labels: Any, make: Any) -> None:
    made = make(SSANetDiceTrainer, labels)
    data = batch(made, 4 if labels else 2)
    with torch.no_grad():
        outputs = made.network(data["data"])
        loss = made.loss(outputs, data["target"]).item()
    dice = [naive_dice_loss(m, t, 3) for m, t in zip(outputs, data["target"], strict=False)]
    supervised = (dice[0] + dice[1] / 2) / 1.5  # nnU-Net leaves the coarsest of three maps out
    distilled = distillation_loss(outputs[3:]).item()
    assert distilled > 0
    assert loss == pytest.approx(supervised + 0.1 * distilled, rel=1e-4)


def test_the_weight_of_the_distillation_is_a_setting(make: Any) -> None:
    losses = []
    for weight in (0.0, 1000.0):
        made = make(type("Variant", (SSANetTrainer,), {"distillation_weight": weight}))
        data = batch(made)
        with torch.no_grad():
            outputs = made.network(torch.ones_like(data["data"]).cumsum(-1) / 10)
            losses.append(made.loss(outputs, data["target"]).item())
    assert losses[1] - losses[0] == pytest.approx(1000 * distillation_loss(outputs[3:]).item(), rel=1e-3)


def test_distillation_starts_with_its_epoch(make: Any) -> None:
    made = make(type("Variant", (SSANetTrainer,), {"distillation_start": 2, "distillation_weight": 1000.0}))
    made.num_epochs = 4
    data = batch(made)
    losses = []
    for made.current_epoch in range(4):
        made.on_train_epoch_start()
        with torch.no_grad():
            losses.append(made.loss(made.network(data["data"]), data["target"]).item())
    assert losses[0] == losses[1] < losses[2] == losses[3]


@pytest.mark.parametrize("base", [SSANetTrainer, SSANetMutualTrainer])
def test_the_deepest_stage_learns_from_the_distillation_only_if_told_to(base: type, make: Any) -> None:
    made = make(base)
    outputs = made.network(batch(made)["data"])
    made.loss.distillation(outputs[3:]).backward()
    deepest = [p.grad for p in made.network.encoder.stages[-1].parameters()]
    assert any(g is not None and g.abs().sum() > 0 for g in deepest) == (base is SSANetMutualTrainer)
    assert made.network.encoder.stages[0][0].convs[0].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("trainer", [SSANetTrainer, SSANetDiceCETrainer])
def test_regions_with_an_ignore_label_train_and_validate(dims: int, trainer: type, make: Any) -> None:
    made = make(trainer, REGIONS, dims=dims, patch=[16] * dims)
    data = batch(made, 4)
    assert np.isfinite(made.train_step(data)["loss"])
    with torch.no_grad():
        assert made.validation_step(batch(made, 4))["tp_hard"].shape == (2,)


@pytest.mark.parametrize("trainer", [SSANetTrainer, SSANetReweightedTrainer, SSANetDiceCETrainer])
def test_ignored_voxels_change_nothing(trainer: type, make: Any) -> None:
    made = make(trainer, CLASSES)
    if trainer is SSANetReweightedTrainer:
        made.reweighted.set_counts([7, 2, 1])
    data = batch(made, 4)
    with torch.no_grad():
        outputs = made.network(data["data"])
        losses = []
        for hidden in (-5.0, 0.0, 5.0):
            maps = [torch.where(t == 3, hidden, m) for m, t in zip(outputs, data["target"], strict=False)]
            losses.append(made.loss([*maps, *outputs[3:]], data["target"]).item())
    assert losses[0] == pytest.approx(losses[1]) == pytest.approx(losses[2])


def test_the_dice_ce_loss_is_nnunet_s(make: Any) -> None:
    made = make(type("Variant", (SSANetDiceCETrainer,), {"self_attention": False}))
    data = batch(made)
    with torch.no_grad():
        outputs = made.network(data["data"])
        expected = nnUNetTrainer._build_loss(made)(outputs, data["target"])
        torch.testing.assert_close(made.loss(outputs, data["target"]), expected)


def test_prediction_builds_the_network_that_was_trained(make: Any) -> None:
    made = make(SSANetTrainer, REGIONS)
    saved = PlansManager(made.plans_manager.plans)
    network = SSANetTrainer.build_network_architecture(saved, saved.get_configuration("2d"), 1, 2, False)
    network.load_state_dict(made.network.state_dict())
    image = torch.randn(1, 1, 32, 32)
    made.set_deep_supervision_enabled(False)
    made.network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), made.network(image))


def test_logit_layers_are_left_out_of_pretrained_weights(make: Any) -> None:
    for trainer in (SSANetTrainer, type("Small", (SSANetResNet34Trainer,), {"encoder_name": "resnet18"})):
        made = make(trainer)
        heads = [n for n, p in made.network.named_parameters() if p.shape[0] == 2 and p.ndim == 4]
        assert heads
        assert all(".seg_layers." in n for n in heads)


@pytest.mark.parametrize(
    ("name", "spatial", "start"),
    [
        ("SSANetTrainerBackbone", False, None),
        ("SSANetTrainerSA", False, 0),
        ("SSANetTrainerSA40", False, 40),
        ("SSANetTrainerSC", True, None),
        ("SSANetTrainer", True, 0),
    ],
)
def test_the_rows_of_table_3(name: str, spatial: bool, start: int | None, make: Any) -> None:
    made = make(getattr(trainers, name))
    assert any(isinstance(m, SpatialConvolution) for m in made.network.modules()) == spatial
    distillation = made.loss.distillation
    assert (distillation.start_epoch if distillation else None) == start


def test_a_distillation_that_never_starts_is_refused(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(trainers.SSANetTrainerSA40_10epochs)
    with pytest.raises(SystemExit) as stop:
        made.on_train_start()
    assert stop.value.code == 2
    assert "from epoch 40 on, but the training ends after 10" in capsys.readouterr().err


def test_a_network_that_was_trained_before_distils_at_once(make: Any) -> None:
    made = make(type("Trained", (trainers.SSANetTrainerSA40_10epochs,), {"trained_before": True}))
    assert made.loss.distillation.start_epoch == 0


def test_the_paper_s_recipe() -> None:
    made = SSANetResNet34Trainer(planned.plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
    assert (made.num_epochs, made.initial_lr, made.optimizer_name) == (150, 1e-4, "adam")
    assert made.encoder_weights is None
    assert made._get_deep_supervision_scales() == [[1.0, 1.0]]


def test_missing_weights_end_with_one_line(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"encoder_weights": "/no/such/file.pth", "encoder_name": "resnet18"}
    with pytest.raises(SystemExit):
        make(type("Missing", (SSANetResNet34PretrainedTrainer,), settings))
    assert "/no/such/file.pth does not exist" in capsys.readouterr().err


MASKED = planned.dataset_json(channel_names={"0": "CT", "1": "nonorm"})


@pytest.mark.parametrize(
    ("base", "settings", "plans", "data", "expected"),
    [
        (SSANetTrainer, {"distillation_exponent": 0.5}, {}, None, "z of the attention maps must be at least 1"),
        (SSANetTrainer, {"kernel": 4}, {}, None, "kernel = 4"),
        (SSANetTrainer, {"kernel_3d": 0}, {}, None, "kernel_3d = 0"),
        (SSANetTrainer, {"segmentation_loss": "focal"}, {}, None, "segmentation_loss = 'focal'"),
        (SSANetTrainer, {}, {"stages": 1}, None, "at least two stages, but this one has 1: plan a larger patch"),
        (SSANetTrainer, {}, {}, MASKED, "promises 2 input channels (CT, nonorm; number 1 is a lung mask)"),
        (SSANetResNet34Trainer, {}, {}, MASKED, "promises 2 input channels"),
        (SSANetReweightedTrainer, {}, {}, planned.dataset_json(REGIONS, regions_class_order=[1, 2]), "has regions"),
        (SSANetResNet34Trainer, {}, {"dims": 3}, None, "2D only"),
        (SSANetResNet34Trainer, {"encoder_name": "no_such_net"}, {}, None, "no_such_net"),
    ],
)
def test_unsupported_settings_and_data_are_refused(
    base: type,
    settings: dict[str, Any],
    plans: dict[str, Any],
    data: dict[str, Any] | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    folders: Path,
) -> None:
    configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
    variant = type("Variant", (base,), settings)
    with pytest.raises(SystemExit) as stop:
        variant(planned.plans(**plans), configuration, 0, data or planned.dataset_json(), torch.device("cpu"))
    assert stop.value.code == 2
    assert list(folders.iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith("error: Variant cannot train configuration")
    assert error.count("\n") == 1
    assert expected in error


class Cases:
    """As much of nnU-Net's data set as a trainer looks at: images with a lung mask, and segmentations on disk."""

    def __init__(self, folder: Path, lungs: dict[str, int], labels: dict[str, list[int]]) -> None:
        self.source_folder, self.lungs, self.labels = str(folder), lungs, labels
        self.identifiers = list(lungs)
        for case in lungs:
            (folder / f"{case}_seg.b2nd").write_text("as in labels")

    def load_case(self, case: str) -> tuple[Any, ...]:
        image = np.ones((2, 1, 2, 2))
        image[1] = self.lungs[case]
        return image, np.array(self.labels[case]).reshape(1, 1, 1, -1), None, {}


def prepared(trainer: type, cases: Cases, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer with a lung mask that has been given these training cases."""
    plans = planned.plans(stages=3)
    plans["configurations"]["2d"]["normalization_schemes"] = ["CTNormalization", "NoNormalization"]
    plans["configurations"]["2d"]["use_mask_for_norm"] = [False, False]
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    monkeypatch.setattr(nnUNetTrainer, "get_tr_and_val_datasets", lambda self: (cases, None))
    made = trainer(plans, "2d", 0, MASKED, torch.device("cpu"))
    made.initialize()
    return made


def test_empty_lung_masks_stop_the_training_or_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {"a": [0, 1], "b": [0, 1]}
    made = prepared(SSANetTrainer, Cases(tmp_path, {"a": 0, "b": 1}, labels), monkeypatch)
    made.get_tr_and_val_datasets()
    assert "WARNING: the lung mask is empty in 1 of 2 training cases: a" in capsys.readouterr().out
    made = prepared(SSANetTrainer, Cases(tmp_path, {"a": 0, "b": 0}, labels), monkeypatch)
    with pytest.raises(SystemExit) as stop:
        made.get_tr_and_val_datasets()
    assert stop.value.code == 2
    assert "lung mask (channel 1) of all 2 training cases is empty" in capsys.readouterr().err


def test_class_weights_come_from_the_training_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = Cases(tmp_path, {"a": 1, "b": 1}, {"a": [0, 0, 0, 1], "b": [-1, 0, 0, 0]})
    made = prepared(SSANetReweightedTrainer, cases, monkeypatch)
    made.get_tr_and_val_datasets()
    assert made.reweighted.weights.tolist() == pytest.approx([8 / 7 / 2, 8 / 2])
    cache = tmp_path / "nnUNet_preprocessed" / "Dataset999_Test" / "class_counts_testPlans_2d.json"
    assert cache.is_file()

    cases = Cases(tmp_path, {"c": 1}, {"c": [0, 0]})
    made = prepared(SSANetReweightedTrainer, cases, monkeypatch)
    with pytest.raises(SystemExit):
        made.get_tr_and_val_datasets()
    assert "no voxel of class 1 in the training set (fold 0)" in capsys.readouterr().err


def test_a_network_may_end_at_stride_32(make: Any) -> None:
    """Seven planned stages reach stride 64; six are built, trained on five maps and read at full resolution."""
    planned_network = make(SSANetTrainer, stages=7, patch=[64, 64])
    made = make(SSANetStride32Trainer, stages=7, patch=[64, 64])
    assert len(planned_network.network.encoder.stages) == 7
    assert len(made.network.encoder.stages) == 6
    data = batch(made)
    assert len(data["target"]) == len(made.loss.segmentation.weight_factors) == 5
    assert np.isfinite(made.train_step(data)["loss"])
    made.set_deep_supervision_enabled(False)
    with torch.no_grad():
        assert made.network(data["data"]).shape == (2, 2, 64, 64)
