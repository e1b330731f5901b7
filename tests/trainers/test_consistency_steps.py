"""Steps of ``TRAINER_consistency`` without data: the equations written out, every kind of trainer, checkpoints."""

from __future__ import annotations

import copy
import functools
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from PIL import Image
from torch._dynamo import OptimizedModule
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from nnunet_covid import trainers
from nnunet_covid.auxiliary_data.links import LinkedCases
from nnunet_covid.auxiliary_data.unlabelled import UnlabelledCases
from nnunet_covid.losses import inf_net
from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.semi_supervised.moving_average import states
from nnunet_covid.semi_supervised.training import cross_entropies, parts_of
from nnunet_covid.trainers import consistency
from nnunet_covid.trainers.collaborative import CollaborativeTrainer

CPU = torch.device("cpu")
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A trainer on a plan alone, at the beginning of its first epoch, with a teacher."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    cases = UnlabelledCases(LinkedCases("images", "images", ("a", "b")), "link")
    monkeypatch.setattr(consistency, "linked_unlabelled", lambda *_: cases)
    for name in ("usable_link", "general_checkpoint"):
        monkeypatch.setattr(CollaborativeTrainer, name, lambda *_: None)

    def build(name: str, labels: dict[str, Any] | None = None, *, plans: Any = None, **settings: Any) -> Any:
        torch.manual_seed(0)
        plans = {"stages": 6, "patch": [64, 64], **(plans or {})}
        order = {"regions_class_order": [1, 2]} if labels == REGIONS else {}
        description = planned.dataset_json(labels, **order)
        configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
        kind = type(name, (getattr(trainers, f"{name}_5epochs_4its"),), settings)
        trainer = kind(planned.plans(**plans), configuration, 0, description, CPU)
        trainer.encoder_weights = None
        trainer.initialize()
        for loss in (trainer.loss, trainer.unlabelled_loss):
            for module in parts_of(loss):
                if hasattr(module, "set_counts"):
                    module.set_counts([4, 1])
        trainer.start_teacher()
        trainer.draws = np.random.default_rng(0)
        trainer.on_train_epoch_start()
        return trainer

    return build


def batch(trainer: Any, *, labels: int = 2) -> dict[str, Any]:
    """What the loaders give for this trainer: two labelled images and two views of two others."""
    size = trainer.configuration_manager.patch_size
    generator = torch.Generator().manual_seed(3)
    found = torch.randint(0, labels, (2, *size), generator=generator).short()
    target = consistency.loss_targets(found, trainer.label_manager, trainer._get_deep_supervision_scales())
    images = torch.randn(2, 3, *size, generator=generator)
    return {"data": images[:, :1], "target": target, consistency.KEY: images[:, 1:]}


@pytest.mark.parametrize("by_trust", [False, True])
@pytest.mark.parametrize(("labels", "dims"), [(None, 2), (None, 3), (REGIONS, 2)], ids=["label maps", "3D", "regions"])
def test_a_step_is_one_on_the_sum_of_both_losses(
    make: Callable[..., Any], labels: Any, dims: int, by_trust: bool
) -> None:
    """Against the equations written out: nnU-Net's own loss with an ignore label, gradients of the sum."""
    plans = {"dims": dims, "stages": 3, "patch": [32] * dims}
    settings = {"eta": 0.6, "cutmix_probability": 0.0, "weigh_by_trust": by_trust, "unlabelled_weight": 0.7}
    trainer = make("nnUNetTrainer_consistency", labels, plans=plans, **settings)
    other = make("nnUNetTrainer_consistency", labels, plans=plans)
    other.network.load_state_dict(trainer.network.state_dict())
    data = batch(trainer, labels=3 if labels else 2)
    teacher = copy.deepcopy(trainer._aside)
    with torch.no_grad():  # a teacher that is not the student
        for one in teacher.parameters():
            one.add_(0.05 * torch.randn_like(one))
    trainer._aside.load_state_dict(teacher.state_dict())
    trainer._steps_seen = 3
    weight = 0.7 * math.exp(-5 * (1 - 3 / 20) ** 2)
    assert trainer.weight_now == pytest.approx(weight)
    trainer.train_step(data)

    weak, strong = data[consistency.KEY][:, :1], data[consistency.KEY][:, 1:]
    logits = teacher(weak)
    ignored = 3 if labels else 2
    if labels:
        sigmoid = logits.sigmoid()
        sure = ((sigmoid > 0.6) | (sigmoid < 0.4)).all(1)
        found = torch.where(sigmoid[:, 1] > 0.5, 2, torch.where(sigmoid[:, 0] > 0.5, 1, 0))
    else:
        largest, found = logits.softmax(1).max(1)
        sure = largest > 0.6
    assert 0 < sure.float().mean() < 1
    weight *= float(sure.float().mean()) if by_trust else 1
    found = torch.where(sure, found, ignored).short()
    target = consistency.loss_targets(found, trainer.classes.manager, other._get_deep_supervision_scales())
    own, unlabelled = other.loss(other.network(data["data"]), data["target"]), other.unlabelled_loss
    (own + weight * unlabelled(other.network(strong), target)).backward()
    torch.nn.utils.clip_grad_norm_(other.network.parameters(), 12)
    other.optimizer.step()
    for (name, a), b in zip(trainer.network.named_parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    for a, b, student in zip(states(trainer._aside), states(teacher), states(unwrapped(trainer.network)), strict=True):
        torch.testing.assert_close(a, 0.8 * b + 0.2 * student)


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["label maps", "regions"])
def test_the_unlabelled_loss_is_cross_entropy_over_sure_voxels(make: Callable[..., Any], labels: Any) -> None:
    """Against torch's own, a scale after the other with nnU-Net's halving weights."""
    trainer = make("nnUNetTrainer_consistency", labels)
    whole = make("nnUNetTrainer_consistency", labels, unlabelled_overlap=True)
    generator = torch.Generator().manual_seed(1)
    count = 3 if labels else 2
    found = torch.randint(0, count + 1, (2, 64, 64), generator=generator).short()  # the last one: unsure
    target = consistency.loss_targets(found, trainer.classes.manager, trainer.target_scales)
    outputs = [torch.randn(2, 2, *one.shape[2:], generator=generator) for one in target]
    expected, weights = torch.zeros(()), np.array([1 / 2**i for i in range(len(target))])
    weights[-1] = 0  # nnU-Net's lowest scale
    for logits, one, share in zip(outputs, target, weights / weights.sum(), strict=True):
        if labels:
            sure = ~one[:, -1:].bool().expand(-1, 2, -1, -1)
            wanted = one[:, :-1].float()
            all_voxels = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            mean = (all_voxels * sure).sum() / one[:, -1:].logical_not().sum()
        else:
            mean = functional.cross_entropy(logits, one[:, 0].long(), ignore_index=2)
        expected = expected + share * mean
    torch.testing.assert_close(trainer.unlabelled_loss(outputs, target), expected)
    assert abs(whole.unlabelled_loss(outputs, target) - expected) > 0.05, "with Dice it is another"


def test_inf_nets_unlabelled_loss_leaves_out_the_iou_of_every_map(make: Callable[..., Any]) -> None:
    trainer = make("InfNetTrainer_consistency")
    whole = make("InfNetTrainer_consistency", unlabelled_overlap=True)
    generator = torch.Generator().manual_seed(1)
    found = torch.randint(0, 3, (2, 64, 64), generator=generator).short()  # 2: unsure
    target = consistency.loss_targets(found, trainer.classes.manager, trainer.target_scales)
    *maps, edge = trainer.network(torch.randn(2, 1, 64, 64, generator=generator))
    reference, valid = (found == 1).float()[:, None], (found != 2).float()[:, None]
    weight, expected = inf_net.pixel_weight(reference, valid), torch.zeros(())
    for number, logits in enumerate(maps):
        probability = (logits[:, 1:] if number == 0 else logits).sigmoid()
        both, either = (
            (weight * probability * reference).sum((1, 2, 3)),
            (weight * (probability + reference)).sum((1, 2, 3)),
        )
        expected = expected + (1 - (both + 1) / (either - both + 1)).mean()
    difference = whole.unlabelled_loss([*maps, edge], target) - trainer.unlabelled_loss([*maps, edge], target)
    torch.testing.assert_close(difference, expected)
    assert trainer.loss.iou_weight == 1, "of labelled images the loss is the paper's"


def test_a_loss_without_cross_entropy_keeps_its_overlap(make: Callable[..., Any]) -> None:
    trainer = make("InfNetTrainer_consistency", bce_weight=0.0)
    assert (trainer.unlabelled_loss.iou_weight, trainer.unlabelled_loss.bce_weight) == (1, 0)
    own = torch.nn.Module()
    own.weight_dice = 0.5  # a user's loss, whose cross entropy is called otherwise
    consistency.leave_out_overlap(own)
    assert own.weight_dice == 0.5


@pytest.mark.parametrize("labels", [None, REGIONS], ids=["label maps", "regions"])
def test_a_loss_that_cannot_leave_out_unsure_voxels_is_refused(
    labels: Any, make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        make("nnUNetTrainerDiceLoss_consistency", labels)
    assert "loss cannot leave out unsure voxels; take one with cross entropy" in capsys.readouterr().err


def test_a_loss_that_is_a_plain_function_will_do(make: Callable[..., Any]) -> None:
    def cross_entropy(trainer: Any) -> Any:
        return lambda outputs, target: functional.cross_entropy(outputs, target[:, 0].long(), ignore_index=2)

    trainer = make("nnUNetTrainerNoDeepSupervision_consistency", eta=0.0, _build_loss=cross_entropy)
    assert np.isfinite(trainer.train_step(batch(trainer))["loss"])


@pytest.mark.parametrize("base", ["nnUNetTrainer", "nnUNetTrainerCELoss", "SSANetReweightedTrainer"])
def test_a_batch_that_the_teacher_is_nowhere_sure_of_teaches_nothing(base: str, make: Callable[..., Any]) -> None:
    trainer = make(f"{base}_consistency", eta=1.0)
    plain = make(f"{base}_consistency", unlabelled_weight=0.0)
    data = batch(trainer)
    for one in (trainer, plain):
        one._steps_seen = 3
        assert torch.isfinite(torch.as_tensor(one.train_step(copy.deepcopy(data))["loss"]))
    assert np.isfinite(trainer.sums.loss())
    for a, b in zip(trainer.network.parameters(), plain.network.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    "name",
    [
        "InfNetTrainer",
        "InfNetRes2NetScratchTrainer",
        "SSANetReweightedTrainer",
        "CollaborativeTrainerNoGeneralLoss",
        "UNetPretrainedScratchTrainer",
        "nnUNetTrainerNoDeepSupervision",
        "AllInOneNoGeneralTrainer",
    ],
)
def test_trainers_of_every_kind_take_a_step_and_validate(name: str, make: Callable[..., Any]) -> None:
    trainer = make(f"{name}_consistency", eta=0.0, copy_paste=True)
    before = [one.clone() for one in states(trainer._aside)]
    result = trainer.train_step(batch(trainer))
    assert np.isfinite(result["loss"])
    assert trainer.sums.trusted() == 1.0
    assert np.isfinite(trainer.sums.loss())
    assert any(not torch.equal(a, b) for a, b in zip(before, states(trainer._aside), strict=True))
    assert trainer._aside(torch.zeros(1, 1, 64, 64)).shape == (1, 2, 64, 64)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        found = trainer.validation_step(batch(trainer))
    assert found["tp_hard"].shape == found["student_tp_hard"].shape == (1,)


def test_class_weights_are_those_of_running_counts_and_a_class_never_trusted_is_warned_of(
    make: Callable[..., Any],
) -> None:
    trainer = make("nnUNetTrainer_consistency", eta=1.0, reweight_classes=True)
    said: list[str] = []
    trainer.print_to_log_file = lambda *lines, **_: said.extend(map(str, lines))
    data = batch(trainer)
    trainer.on_train_epoch_end([trainer.train_step(data)])
    assert any("WARNING: no voxel of infection was trusted" in line for line in said)
    labels = data["target"][0]
    shares = [float((labels == value).float().mean()) for value in (0, 1)]
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    (module,) = cross_entropies(trainer.unlabelled_loss)
    torch.testing.assert_close(module.weight, torch.tensor([1 / (2 * share) for share in shares]))
    assert cross_entropies(trainer.loss)[0].weight is None, "the labelled loss stays the trainer's own"


def test_a_checkpoint_continues_with_teacher_student_counts_and_ramp(make: Callable[..., Any], tmp_path: Path) -> None:
    trainer = make("nnUNetTrainer_consistency")
    trainer.on_train_epoch_end([trainer.train_step(batch(trainer))])
    teacher = copy.deepcopy(trainer._aside.state_dict())
    student = copy.deepcopy(trainer.network.state_dict())
    for value, other in zip(teacher.values(), student.values(), strict=True):
        assert value.shape == other.shape
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    for key, value in student.items():
        assert torch.equal(trainer.network.state_dict()[key], value), "saving changes nothing"
    kept = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert kept["trainer_name"] == "nnUNetTrainer"

    again = make("nnUNetTrainer_consistency")
    again._aside = None
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    for key, value in teacher.items():
        assert torch.equal(again.network.state_dict()[key], value)
    assert again.running_counts.counts == trainer.running_counts.counts
    again.on_train_epoch_start()
    for key, value in student.items():
        assert torch.equal(again.network.state_dict()[key], value)
        assert torch.equal(again._aside.state_dict()[key], teacher[key])
    assert again.current_epoch == 1
    assert again.weight_now == pytest.approx(math.exp(-5 * (1 - 4 / 20) ** 2)), "four of twenty steps are done"


def test_the_picture_of_a_training_holds_nnunets_curves_and_ours(make: Callable[..., Any], tmp_path: Path) -> None:
    trainer = make("nnUNetTrainer_consistency")
    with torch.no_grad():
        for epoch in range(2):
            trainer.current_epoch = epoch
            trainer.logger.log("mean_fg_dice", 0.5, epoch)
            for key in consistency.LOGGED:
                trainer.logger.log(key, [0.5] if key == "trusted_per_class" else float("nan"), epoch)
    theirs = np.full((50, 660, 3), 9, np.uint8)
    trainer._draw(lambda folder: Image.fromarray(theirs).save(Path(folder) / "progress.png"), str(tmp_path))
    with Image.open(tmp_path / "progress.png") as whole:
        pixels = np.asarray(whole)
    assert np.array_equal(pixels[:50], theirs)
    assert pixels.shape[1] == 660
    assert len(np.unique(pixels[50:].reshape(-1, 3), axis=0)) > 3, "ours are drawn below"
    drawn = (tmp_path / "progress.png").read_bytes()
    trainer._draw(lambda folder: None, str(tmp_path))
    assert (tmp_path / "progress.png").read_bytes() == drawn, "a trainer that draws nothing has nothing to go on with"
    trainer._draw(lambda folder: None, str(tmp_path.parent))
    assert not (tmp_path.parent / "progress.png").exists()


def test_the_suffix_stands_behind_the_name_and_before_lengths() -> None:
    for base in ("nnUNetTrainer", "InfNetTrainer"):
        kind = getattr(trainers, f"{base}_consistency_20epochs_50its_seed1")
        assert issubclass(kind, getattr(trainers, f"{base}_consistency"))
        assert kind.plain_name == base
        for one in (kind, getattr(trainers, f"{base}_consistency")):
            assert pickle.loads(pickle.dumps(one)) is one
        with pytest.raises(AttributeError):
            getattr(trainers, f"{base}_20epochs_consistency")


def test_one_number_is_the_decay_from_beginning_to_end(make: Callable[..., Any]) -> None:
    made = [make("nnUNetTrainer_consistency", teacher_decay=given) for given in (0.7, (0.7, 0.7))]
    for trainer in made:
        for _ in range(2):
            trainer.train_step(batch(trainer))
    for a, b in zip(*(states(trainer._aside) for trainer in made), strict=True):
        assert torch.equal(a, b)


def test_half_precision_steps_stay_finite_and_trust_in_full_precision(make: Callable[..., Any]) -> None:
    trainer = make("nnUNetTrainer_consistency", eta=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = trainer.train_step(batch(trainer))
    assert np.isfinite(result["loss"])
    assert all(torch.isfinite(one).all() for one in states(trainer.network))
    assert all(one.dtype == torch.float32 for one in states(trainer._aside) if one.is_floating_point())
    assert trainer.sums.trusted() > 0.9  # but for voxels whose probabilities are one half each


def test_compiled_teacher_and_student_take_the_same_steps_without_a_graph_break(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = [make("nnUNetTrainer_consistency", eta=0.0)]
    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    torch._dynamo.reset()
    made.append(make("nnUNetTrainer_consistency", eta=0.0))
    assert [isinstance(one, OptimizedModule) for one in (made[1].network, made[1]._teacher)] == [True, True]
    for trainer in made:
        for _ in range(2):
            trainer.train_step(batch(trainer))
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            trainer.validation_step(batch(trainer))
        trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    plain, compiled = ([*states(unwrapped(one.network)), *states(one._aside)] for one in made)
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b)
    kept = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert not any("_orig_mod" in key for key in [*kept["network_weights"], *kept["consistency"]["student"]])


class WithoutDoubles(TorchDispatchMode):
    """A device on which no tensor can have double precision, as Apple's GPUs."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        assert getattr(made, "dtype", None) != torch.float64, func
        return made


def test_an_epoch_needs_no_double_precision(make: Callable[..., Any]) -> None:
    with WithoutDoubles():
        trainer = make("nnUNetTrainer_consistency", eta=0.5, copy_paste=True)
        trainer._steps_seen = 3
        trainer.on_train_epoch_end([trainer.train_step(batch(trainer))])
        trainer.on_validation_epoch_start()
        trainer.on_validation_epoch_end([trainer.validation_step(batch(trainer))])
    assert np.isfinite(trainer.logger.get_value("unlabelled_losses", step=-1))
