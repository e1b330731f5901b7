"""Algorithm 1: who learns from what, exactly; steps, schedules, checkpoints and settings of the trainers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch

from nnunet_covid.auxiliary_data.relation_snapshots import read_snapshots
from nnunet_covid.errors import UserError
from nnunet_covid.trainers import collaborative
from nnunet_covid.trainers.collaborative import (
    CollaborativeTrainer,
    CollaborativeTrainerFrozenGeneral,
    CollaborativeTrainerNoGeneralLoss,
    CollaborativeTrainerNoRelationLoss,
    CollaborativeTrainerNoTargetLoss,
)

ROWS = (
    CollaborativeTrainer,
    CollaborativeTrainerNoGeneralLoss,
    CollaborativeTrainerNoTargetLoss,
    CollaborativeTrainerNoRelationLoss,
    CollaborativeTrainerFrozenGeneral,
)
PARTS = ("general_encoder", "encoder", "decoder")


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv(collaborative.WEIGHTS_VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Any:
    """An initialised trainer on the CPU that has not looked at any data and asks for no link."""
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    monkeypatch.setattr(CollaborativeTrainer, "usable_link", lambda *_: None)

    def build(kind: type = CollaborativeTrainer, dataset_json: dict[str, Any] | None = None, **plans: Any) -> Any:
        torch.manual_seed(0)
        configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
        settings = {"stages": 3, "patch": [32, 32], **plans}
        data = dataset_json or planned.dataset_json()
        made = kind(planned.plans(**settings), configuration, 0, data, torch.device("cpu"))
        made.initialize()
        made.network.train()
        return made

    return build


def batch(trainer: Any, *, other: bool = True, unlabelled: bool = False, labels: int = 2) -> dict[str, Any]:
    """What the joined loaders give for this trainer."""
    size = trainer.configuration_manager.patch_size
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, labels, (2, 1, *size), generator=generator)
    if trainer.label_manager.has_regions:
        channels = [*trainer.label_manager.foreground_regions, (trainer.label_manager.ignore_label,)]
        values = [(c,) if isinstance(c, int) else c for c in channels]
        target = torch.cat([torch.isin(target, torch.tensor(v)) for v in values], dim=1)
    scales = trainer._get_deep_supervision_scales()
    sizes = [[round(s * f) for s, f in zip(size, scale, strict=True)] for scale in scales]
    maps = [torch.nn.functional.interpolate(target.float(), size=s).short() for s in sizes]
    found = {"data": torch.randn(2, 1, *size, generator=generator), "target": maps}
    if other:
        found["other"] = torch.randn(2, 1, *size, generator=generator)
    if unlabelled:
        found["unlabelled"] = torch.randn(3, 1, *size, generator=generator)
    return found


def gradients(trainer: Any, loss: torch.Tensor) -> dict[str, float]:
    """Largest absolute gradient of each part; 0.0 where none arrived."""
    trainer.network.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    found = {}
    for part in PARTS:
        values = [p.grad for p in getattr(trainer.network, part).parameters() if p.grad is not None]
        found[part] = max((g.abs().max().item() for g in values), default=0.0)
    return found


@pytest.mark.parametrize("unlabelled", [False, True])
@pytest.mark.parametrize(
    "plans", [{}, {"residual": True}, {"dims": 3, "patch": [16] * 3}], ids=["2D", "residual", "3D"]
)
def test_every_loss_reaches_its_own_parts_and_no_other(make: Any, plans: dict[str, Any], unlabelled: bool) -> None:
    made = make(**plans)
    data = batch(made, unlabelled=unlabelled)
    logits, features = made.network(data["data"], data["other"], data.get("unlabelled"), True)
    segmentation = gradients(made, made.loss(logits, data["target"]))
    general_loss, target_loss = made.relation_losses(features)
    general, target = gradients(made, general_loss), gradients(made, target_loss)

    assert segmentation["general_encoder"] == 0.0
    assert segmentation["encoder"] > 0
    assert segmentation["decoder"] > 0
    assert general["general_encoder"] > 0
    assert general["encoder"] == general["decoder"] == 0.0
    assert target["encoder"] > 0
    assert target["general_encoder"] == target["decoder"] == 0.0


def test_unlabelled_images_change_both_relation_losses_and_not_the_segmentation_loss(make: Any) -> None:
    made = make()
    data = batch(made, unlabelled=True)
    found = []
    for unlabelled in (None, data["unlabelled"]):
        logits, features = made.network(data["data"], data["other"], unlabelled, True)
        found.append((made.loss(logits, data["target"]), *made.relation_losses(features)))
    without, with_them = found
    torch.testing.assert_close(without[0], with_them[0])
    assert not torch.isclose(without[1], with_them[1])
    assert not torch.isclose(without[2], with_them[2])


def test_one_step_is_three_separate_updates(make: Any) -> None:
    """Against Algorithm 1 done literally: a backward pass per loss and an update per part."""
    made, expected = make(), make()
    expected.network.load_state_dict(made.network.state_dict())
    made.current_epoch = expected.current_epoch = 700
    data = batch(made)
    results = made.train_step(data)

    network = expected.network
    _, of_covid = network(data["data"], None, None, True)
    of_other = network.general_encoder(data["other"])[-1]
    logits = network(data["data"])
    segmentation = expected.loss(logits, data["target"])
    general, target = expected.relation_losses(of_covid._replace(general_other=of_other))
    weight = 0.1 * np.exp(-5 * (1 - 700 / 1000))
    groups = {name: list(getattr(network, name).parameters()) for name in PARTS}
    losses = {
        "general_encoder": weight * general,
        "encoder": segmentation + weight * target,
        "decoder": segmentation,
    }
    for name, loss in losses.items():
        for p, g in zip(
            groups[name], torch.autograd.grad(loss, groups[name], retain_graph=True, allow_unused=True), strict=True
        ):
            p.grad = g
    for group in groups.values():
        torch.nn.utils.clip_grad_norm_(group, 12)
    expected.optimizer.step()
    for a, b in zip(made.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert results["loss"] == pytest.approx(segmentation.item(), rel=1e-4)
    assert results["general_relation"] == pytest.approx(general.item(), rel=1e-4)
    assert results["target_relation"] == pytest.approx(target.item(), rel=1e-4)


@pytest.mark.parametrize("kind", ROWS)
def test_every_row_takes_a_step_validates_and_moves_what_it_should(
    kind: type, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind is CollaborativeTrainerFrozenGeneral:
        trained = make()
        torch.save({"network_weights": trained.network.state_dict()}, tmp_path / "trained.pth")
        monkeypatch.setenv(collaborative.WEIGHTS_VARIABLE, str(tmp_path / "trained.pth"))
    made = make(kind)
    if kind is CollaborativeTrainerFrozenGeneral:
        for key, value in made.network.general_encoder.state_dict().items():
            assert torch.equal(value, trained.network.general_encoder.state_dict()[key])
    before = {part: [p.detach().clone() for p in getattr(made.network, part).parameters()] for part in PARTS}
    losses = made.train_step(batch(made, other=kind.general_weight > 0))
    assert np.isfinite(losses["loss"])
    assert (losses["general_relation"] > 0) == (kind.general_weight > 0)
    assert (losses["target_relation"] < 0) == (kind.target_weight > 0)
    for part, old in before.items():
        same = [torch.equal(a, b) for a, b in zip(old, getattr(made.network, part).parameters(), strict=True)]
        if part == "general_encoder" and not kind.general_weight:
            assert all(same)
        else:
            assert np.mean(same) < 0.5
    made.network.eval()
    with torch.no_grad():
        assert made.validation_step(batch(made, other=False))["tp_hard"].shape == (1,)


@pytest.mark.parametrize("pulled", PARTS)
def test_every_part_is_clipped_by_itself(make: Any, pulled: str) -> None:
    """Whatever pulls at one part, the step of the others is their own gradient's."""
    made = make()
    norms: dict[str, float] = {}

    def record() -> None:
        for part in PARTS:
            grads = [p.grad for p in getattr(made.network, part).parameters()]
            norms[part] = torch.stack([g.norm() for g in grads]).norm().item()

    made.optimizer.step = record
    sums = {part: sum(p.sum() for p in getattr(made.network, part).parameters()) for part in PARTS}
    made.descend(sum((1e6 if part == pulled else 1e-3) * total for part, total in sums.items()), made._clip)
    for part in PARTS:
        count = sum(p.numel() for p in getattr(made.network, part).parameters())
        assert norms[part] == pytest.approx(12 if part == pulled else 1e-3 * count**0.5, rel=1e-3)


def test_regions_with_an_ignore_label_train_and_validate(make: Any) -> None:
    labels = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}
    made = make(dataset_json=planned.dataset_json(labels, regions_class_order=[1, 2]))
    assert np.isfinite(made.train_step(batch(made, labels=4))["loss"])
    with torch.no_grad():
        assert made.validation_step(batch(made, labels=4))["tp_hard"].shape == (2,)


def test_half_precision_steps_stay_finite_and_keep_relations_in_float32(make: Any) -> None:
    made = make()
    data = batch(made)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, features = made.network(data["data"], data["other"], None, True)
        assert features.target_covid.dtype == torch.bfloat16
        general, target = made.relation_losses(features)
    assert general.dtype == target.dtype == torch.float32
    (made.loss(logits, data["target"]) + general + target).backward()
    assert all(torch.isfinite(p.grad).all() for p in made.network.parameters() if p.grad is not None)


def test_a_dead_channel_gives_no_nan(make: Any) -> None:
    made = make()
    for encoder in (made.network.encoder, made.network.general_encoder):
        norm = [m for m in encoder.modules() if isinstance(m, torch.nn.InstanceNorm2d)][-1]
        with torch.no_grad():
            norm.weight[3] = norm.bias[3] = 0
    losses = made.train_step(batch(made))
    assert all(np.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p).all() for p in made.network.parameters())


def test_the_ramp_up_counts_the_steps_of_the_whole_training(make: Any) -> None:
    made = make()
    made.num_epochs, made.num_iterations_per_epoch = 2, 2
    found = []
    for epoch in range(2):
        made.current_epoch = epoch
        made.on_train_epoch_start()
        for _ in range(2):
            found.append(made.ramp)
            made.train_step(batch(made))
    assert found == pytest.approx([np.exp(-5 * (1 - t / 4)) for t in range(4)])


def test_the_ramp_of_a_network_that_was_trained_before_is_over(make: Any) -> None:
    assert make(type("Trained", (CollaborativeTrainer,), {"trained_before": True})).ramp == 1.0


def test_snapshots_hold_the_mean_matrices_of_their_epochs(make: Any) -> None:
    made = make(type("Kept", (CollaborativeTrainer,), {"snapshot_epochs": (1,)}))
    matrices = []
    for epoch in range(2):
        made.current_epoch = epoch
        made.on_train_epoch_start()
        outputs = []
        for _ in range(2):
            if epoch == 1:
                seen = batch(made)
                with torch.no_grad():
                    features = made.network(seen["data"], seen["other"], None, True)[1]
                matrices.append([collaborative.relation_matrix(f.mean(0)).numpy() for f in features])
            outputs.append(made.train_step(batch(made)))
        made.on_train_epoch_end(outputs)
    (snapshot,) = read_snapshots(Path(made.output_folder))
    assert snapshot.epoch == 1
    targets, covids, others = (np.stack(m) for m in zip(*matrices, strict=True))
    np.testing.assert_allclose(snapshot.target_covid, targets.mean(0), atol=1e-5)
    np.testing.assert_allclose(snapshot.general_difference, np.abs(others - covids).mean(0), atol=1e-5)
    np.testing.assert_allclose(snapshot.target_difference, np.abs(targets - covids).mean(0), atol=1e-5)


def test_a_checkpoint_resumes_and_needs_no_other(make: Any, tmp_path: Path) -> None:
    trained = make()
    trained.train_step(batch(trained))
    trained.current_epoch = 499
    trained.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    plans = {**planned.plans(stages=3, patch=[32, 32]), "continue_training": True}
    continued = CollaborativeTrainerFrozenGeneral(plans, "2d", 0, planned.dataset_json(), torch.device("cpu"))
    continued.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    for a, b in zip(continued.network.parameters(), trained.network.parameters(), strict=True):
        assert torch.equal(a, b)
    assert continued.ramp == pytest.approx(np.exp(-2.5))


def test_pretrained_weights_of_another_number_of_classes_are_taken(make: Any, tmp_path: Path) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    source = make()
    torch.save({"network_weights": source.network.state_dict()}, tmp_path / "weights.pth")
    labels = {"background": 0, "ground_glass": 1, "consolidation": 2}
    target = make(dataset_json=planned.dataset_json(labels))
    load_pretrained_weights(target.network, tmp_path / "weights.pth")
    for (name, a), b in zip(target.network.named_parameters(), source.network.parameters(), strict=True):
        assert ".seg_layers." in name or torch.equal(a, b)


def refused(capsys: pytest.CaptureFixture[str], folders: Path, kind: type) -> str:
    with pytest.raises(SystemExit) as stop:
        kind(planned.plans(stages=3), "2d", 0, planned.dataset_json(), torch.device("cpu"))
    assert stop.value.code == 2
    assert list((folders / "nnUNet_results").iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"relation_reduction": "max"}, "relation_reduction = 'max'"),
        ({"target_weight": -1.0}, "target_weight = -1.0"),
        ({"unlabelled_batch_size": 0}, "unlabelled_batch_size = 0, but at least 1: or set use_unlabelled = False"),
    ],
)
def test_unsupported_settings_are_refused(
    settings: dict[str, Any], expected: str, capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    assert expected in refused(capsys, folders, type("Variant", (CollaborativeTrainerNoGeneralLoss,), settings))


def test_a_link_that_is_not_used_may_be_broken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folders: Path
) -> None:
    def broken(*args: Any, **options: Any) -> None:
        raise UserError("broken")

    monkeypatch.setattr(collaborative, "find_link", broken)
    CollaborativeTrainerNoRelationLoss(planned.plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
    shutil.rmtree(folders / "nnUNet_results" / "Dataset999_Test")
    assert "broken" in refused(capsys, folders, CollaborativeTrainer)


def test_without_a_link_training_does_not_begin(capsys: pytest.CaptureFixture[str], folders: Path) -> None:
    error = refused(capsys, folders, CollaborativeTrainer)
    assert "no data set of another disease is linked to configuration '2d' (2D)" in error
    assert "nnunet-covid link -d Dataset999_Test -a OTHER_DATASET -p testPlans -c 2d" in error


@pytest.mark.parametrize(
    ("given", "expected"), [(None, "export NNUNET_COVID_GENERAL_WEIGHTS"), ("/no/file", "not exist")]
)
def test_a_frozen_encoder_needs_its_checkpoint(
    given: str | None,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    folders: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if given:
        monkeypatch.setenv(collaborative.WEIGHTS_VARIABLE, given)
    assert expected in refused(capsys, folders, CollaborativeTrainerFrozenGeneral)


def test_a_checkpoint_of_another_plan_is_refused(
    make: Any, folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"network_weights": make(features=8).network.state_dict()}, folders / "other.pth")
    monkeypatch.setenv(collaborative.WEIGHTS_VARIABLE, str(folders / "other.pth"))
    with pytest.raises(SystemExit):
        make(CollaborativeTrainerFrozenGeneral)
    assert "is not the planned one" in capsys.readouterr().err


@pytest.mark.usefixtures("make")
def test_a_general_encoder_that_has_seen_the_validation_images_is_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"fold": 1, "plans": {"dataset_name": planned.plans()["dataset_name"]}}
    torch.save({"network_weights": {}, "init_args": made}, folders / "other.pth")
    monkeypatch.setenv(collaborative.WEIGHTS_VARIABLE, str(folders / "other.pth"))
    error = refused(capsys, folders, CollaborativeTrainerFrozenGeneral)
    assert "other.pth: made with the training images of fold 1, validation images of fold 0 among them" in error
    again = {**planned.plans(stages=3, patch=[32, 32]), "continue_training": True}
    made = CollaborativeTrainerFrozenGeneral(again, "2d", 0, planned.dataset_json(), torch.device("cpu"))
    with pytest.raises(SystemExit):
        made.initialize()  # --c, and there is no checkpoint to go on from
    assert "validation images of fold 0 among them" in capsys.readouterr().err


def test_an_encoder_of_a_stock_training_is_taken(make: Any, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunet_covid.nnunet.architecture import build_planned_unet

    made = make(CollaborativeTrainerNoRelationLoss)
    stock: Any = build_planned_unet(made.configuration_manager, 1, 2)
    torch.save({"network_weights": stock.state_dict()}, folders / "stock.pth")
    monkeypatch.setenv(collaborative.WEIGHTS_VARIABLE, str(folders / "stock.pth"))
    frozen = make(CollaborativeTrainerFrozenGeneral)
    for a, b in zip(frozen.network.general_encoder.parameters(), stock.encoder.parameters(), strict=True):
        assert torch.equal(a, b)
