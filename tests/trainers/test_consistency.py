"""``TRAINER_consistency``: its step against the equations, the plain trainer bit for bit, checkpoints, refusals."""

from __future__ import annotations

import copy
import math
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid import trainers
from nnunet_covid.auxiliary_data.links import LinkedCases
from nnunet_covid.auxiliary_data.unlabelled import UnlabelledCases
from nnunet_covid.cli import main
from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.semi_supervised.moving_average import decay_at, states
from nnunet_covid.startup import TRAINERS_FOLDER
from nnunet_covid.trainers import consistency

CPU = torch.device("cpu")
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., TinyDataSet]:
    """A tiny data set with its unlabelled images linked."""

    def build(**kwargs: Any) -> TinyDataSet:
        made = make_tiny_data_set(tmp_path, **{"unlabelled": 3, **kwargs})
        variables = {"nnUNet_n_proc_DA": "0", "nnUNet_extTrainer": str(TRAINERS_FOLDER)}
        for name, value in {**made.environment(), **variables}.items():
            monkeypatch.setenv(name, value)
        assert link(made) == 0
        return made

    return build


def link(made: TinyDataSet) -> int:
    where = ["-p", "testPlans", "-c", made.configuration, "-np", "1", "--unlabelled", str(made.unlabelled)]
    return main(["link", "-d", "940", *where])


def new_trainer(made: TinyDataSet, kind: type | str, *, again: bool = False) -> Any:
    """A trainer of the tiny data set that draws no pictures."""
    from batchgenerators.utilities.file_and_folder_operations import load_json

    plans = load_json(str(made.preprocessed / "testPlans.json"))
    description = load_json(str(made.preprocessed / "dataset.json"))
    chosen = getattr(trainers, kind) if isinstance(kind, str) else kind
    trainer = chosen({**plans, "continue_training": again}, made.configuration, 0, description, CPU)
    trainer.logger.plot_progress_png = lambda folder: None
    return trainer


def variant(name: str, **settings: Any) -> type:
    return type(name, (getattr(trainers, name),), settings)


def student_of(trainer: Any) -> dict[str, torch.Tensor]:
    trainer.show(teacher=False)
    weights = copy.deepcopy(unwrapped(trainer.network).state_dict())
    trainer.show(teacher=True)
    return weights


def recorded(trainer: Any) -> tuple[list[torch.Tensor], list[Any]]:
    """Let a trainer write down the labelled images of every step, and the student's weights before and after each."""
    seen: list[torch.Tensor] = []
    students: list[Any] = []
    step = trainer.train_step

    def noted(batch: dict[str, Any]) -> Any:
        seen.append(batch["data"].clone())
        if not students:
            students.append([one.clone() for one in states(unwrapped(trainer.network))])
        result = step(batch)
        students.append([one.clone() for one in states(unwrapped(trainer.network))])
        return result

    trainer.train_step = noted
    return seen, students


# --- the plain trainer, and the moving average, in real trainings


@pytest.mark.parametrize("base", ["nnUNetTrainer", "UNetPretrainedScratchTrainer"])
def test_weight_zero_is_the_plain_trainer_bit_for_bit(base: str, linked: Callable[..., TinyDataSet]) -> None:
    made = linked()
    plain = new_trainer(made, f"{base}_2epochs_3its_seed1")
    batches, _ = recorded(plain)
    plain.run_training()
    trainer = new_trainer(made, variant(f"{base}_consistency_2epochs_3its_seed1", unlabelled_weight=0.0))
    others, _ = recorded(trainer)
    trainer.run_training()
    for a, b in zip(batches, others, strict=True):
        assert torch.equal(a, b)
    for key, value in student_of(trainer).items():
        assert torch.equal(value, plain.network.state_dict()[key]), key
    assert not torch.equal(states(trainer.network)[0], states(plain.network)[0]), "the network is the teacher"


@pytest.mark.parametrize("dims", [2, 3])
def test_the_teacher_is_the_closed_form_of_the_students_steps(dims: int, linked: Callable[..., TinyDataSet]) -> None:
    made = linked(dims=dims)
    kind = variant("nnUNetTrainer_consistency_2epochs_3its_seed1", teacher_decay=(0.5, 0.9), eta=0.52)
    trainer = new_trainer(made, kind)
    _, students = recorded(trainer)
    trainer.run_training()
    decays = [decay_at(step, 0.5, 0.9) for step in range(6)]
    for position, found in enumerate(states(unwrapped(trainer.network))):
        expected = math.prod(decays) * students[0][position].double()
        for step, decay in enumerate(decays):
            expected = expected + (1 - decay) * math.prod(decays[step + 1 :]) * students[step + 1][position].double()
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert {len(logged[key]) for key in consistency.LOGGED} == {2}
    assert all(0 < value < 1 for value in logged["trusted"])
    assert logged["unlabelled_weight"] == [1.0, 1.0]
    assert np.isfinite(logged["agreement"]).all()


def test_labelled_batches_are_the_plain_trainers_whatever_is_done_with_unlabelled_ones(
    linked: Callable[..., TinyDataSet],
) -> None:
    made = linked()
    seen = []
    for name in ("nnUNetTrainer_2epochs_3its_seed1", "nnUNetTrainer_consistency_2epochs_3its_seed1"):
        trainer = new_trainer(made, name)
        batches, _ = recorded(trainer)
        trainer.run_training()
        seen.append(batches)
    for a, b in zip(*seen, strict=True):
        assert torch.equal(a, b)


# --- one step, without data


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A trainer on a plan alone, at the beginning of its first epoch, with a teacher."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    cases = UnlabelledCases(LinkedCases("images", "images", ("a", "b")), "link")
    monkeypatch.setattr(consistency, "linked_unlabelled", lambda *_: cases)
    no_link = {"usable_link": lambda *_: None, "general_checkpoint": lambda *_: None}

    def build(name: str, labels: dict[str, Any] | None = None, *, plans: Any = None, **settings: Any) -> Any:
        torch.manual_seed(0)
        plans = {"stages": 6, "patch": [64, 64], **(plans or {})}
        order = {"regions_class_order": [1, 2]} if labels == REGIONS else {}
        description = planned.dataset_json(labels, **order)
        configuration = "3d_fullres" if plans.get("dims") == 3 else "2d"
        kind = type(name, (getattr(trainers, f"{name}_5epochs_4its"),), {**no_link, **settings})
        trainer = kind(planned.plans(**plans), configuration, 0, description, CPU)
        trainer.encoder_weights = None
        trainer.initialize()
        for loss in (trainer.loss, trainer.unlabelled_loss):
            for module in loss.modules():
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


@pytest.mark.parametrize(("labels", "dims"), [(None, 2), (None, 3), (REGIONS, 2)], ids=["label maps", "3D", "regions"])
def test_a_step_is_one_on_the_sum_of_both_losses(make: Callable[..., Any], labels: Any, dims: int) -> None:
    """Against the equations written out: nnU-Net's own loss with an ignore label, gradients of the sum."""
    plans = {"dims": dims, "stages": 3, "patch": [32] * dims}
    trainer = make("nnUNetTrainer_consistency", labels, plans=plans, eta=0.6, cutmix_probability=0.0)
    other = make("nnUNetTrainer_consistency", labels, plans=plans)
    other.network.load_state_dict(trainer.network.state_dict())
    data = batch(trainer, labels=3 if labels else 2)
    teacher = copy.deepcopy(trainer._aside)
    with torch.no_grad():  # a teacher that is not the student
        for one in teacher.parameters():
            one.add_(0.05 * torch.randn_like(one))
    trainer._aside.load_state_dict(teacher.state_dict())
    trainer._steps_seen = 3
    weight = math.exp(-5 * (1 - 3 / 4) ** 2)  # a fifth of 20 steps is 4
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
    found = torch.where(sure, found, ignored).short()
    target = consistency.loss_targets(found, trainer.classes.manager, other._get_deep_supervision_scales())
    own, unlabelled = other.loss(other.network(data["data"]), data["target"]), other.unlabelled_loss
    (own + weight * unlabelled(other.network(strong), target)).backward()
    torch.nn.utils.clip_grad_norm_(other.network.parameters(), 12)
    other.optimizer.step()
    for (name, a), b in zip(trainer.network.named_parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
    for a, b, student in zip(states(trainer._aside), states(teacher), states(unwrapped(trainer.network)), strict=True):
        torch.testing.assert_close(a, 0.99 * b + 0.01 * student)


@pytest.mark.parametrize(
    "name",
    [
        "InfNetTrainer",
        "InfNetRes2NetScratchTrainer",
        "SSANetReweightedTrainer",
        "CollaborativeTrainerNoGeneralLoss",
        "UNetPretrainedScratchTrainer",
        "nnUNetTrainerNoDeepSupervision",
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
    trainer = make("nnUNetTrainer_consistency", eta=1.0)
    said: list[str] = []
    trainer.print_to_log_file = lambda *lines, **_: said.extend(map(str, lines))
    data = batch(trainer)
    trainer.on_train_epoch_end([trainer.train_step(data)])
    assert any("WARNING: no voxel of infection was trusted" in line for line in said)
    labels = data["target"][0]
    shares = [float((labels == value).float().mean()) for value in (0, 1)]
    trainer.current_epoch = 1
    trainer.on_train_epoch_start()
    (module,) = consistency.cross_entropies(trainer.unlabelled_loss)
    torch.testing.assert_close(module.weight, torch.tensor([1 / (2 * share) for share in shares]))
    assert consistency.cross_entropies(trainer.loss)[0].weight is None, "the labelled loss stays the trainer's own"


# --- checkpoints


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
    assert again.weight_now == pytest.approx(1.0), "four of the four steps of the ramp-up are done"


class Killed(Exception):
    """In the place of a signal."""


def test_a_killed_training_goes_on_from_its_last_epoch_and_predicts_without_this_package(
    linked: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = linked()
    name = "nnUNetTrainer_consistency_3epochs_2its_seed1"
    first = new_trainer(made, name)
    first.save_every = 1
    start = first.on_train_epoch_start

    def killed_in_the_last() -> None:
        if first.current_epoch == 2:
            raise Killed
        start()

    first.on_train_epoch_start = killed_in_the_last
    with pytest.raises(Killed):
        first.run_training()
    teacher, student = copy.deepcopy(first.network.state_dict()), student_of(first)

    again = new_trainer(made, name, again=True)
    again.load_checkpoint(str(Path(first.output_folder) / "checkpoint_latest.pth"))
    for key, value in teacher.items():
        assert torch.equal(again.network.state_dict()[key], value)
    for key, value in student_of(again).items():
        assert torch.equal(student[key], value)
    again.run_training()
    assert len(again.logger.local_logger.my_fantastic_logging["agreement"]) == 3

    monkeypatch.delenv("nnUNet_extTrainer")
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(made.model(name)), (0,), "checkpoint_final.pth")
    image = torch.randn(1, 1, 40, 40)
    again.set_deep_supervision_enabled(False)
    again.network.eval()
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    with torch.inference_mode():
        patch = image[:, :, :32, :32]
        torch.testing.assert_close(predictor.network.eval()(patch), again.network(patch))


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


# --- names and refusals


def test_the_suffix_stands_behind_the_name_and_before_lengths() -> None:
    for base in ("nnUNetTrainer", "InfNetTrainer"):
        kind = getattr(trainers, f"{base}_consistency_20epochs_50its_seed1")
        assert issubclass(kind, getattr(trainers, f"{base}_consistency"))
        assert kind.plain_name == base
        for one in (kind, getattr(trainers, f"{base}_consistency")):
            assert pickle.loads(pickle.dumps(one)) is one
        with pytest.raises(AttributeError):
            getattr(trainers, f"{base}_20epochs_consistency")


def refused(capsys: pytest.CaptureFixture[str], made: TinyDataSet, kind: type | str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        new_trainer(made, kind)
    assert stop.value.code == 2
    assert list((made.root / "nnUNet_results").iterdir()) == []
    error = capsys.readouterr().err
    line = error[error.index("error: ") :]
    assert line.count("\n") == 1
    return line


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"eta": 1.5}, "eta = 1.5, but it must lie between 0 and 1"),
        ({"class_eta": {"infection": -0.1}}, "class_eta of infection = -0.1"),
        ({"class_eta": {"tumour": 0.5}}, "the classes are background, infection"),
        ({"unlabelled_weight": -1.0}, "a weight must not be negative"),
        ({"teacher_decay": (0.99, 1.0)}, "teacher_decay = (0.99, 1.0)"),
    ],
)
def test_settings_out_of_range_are_refused(
    settings: dict[str, Any], expected: str, linked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = variant("nnUNetTrainer_consistency", **settings)
    assert expected in refused(capsys, linked(), kind)


def test_a_validation_or_test_image_among_the_unlabelled_ones_is_refused_or_left_out(
    linked: Callable[..., TinyDataSet], capsys: pytest.CaptureFixture[str]
) -> None:
    made = linked()
    for source, name in (
        ("imagesTr/case_0", "of_training"),
        ("imagesTr/case_4", "of_validation"),
        ("imagesTs/test_0", "of_test"),
    ):
        shutil.copy(made.raw / f"{source}_0000.png", made.unlabelled / f"{name}_0000.png")
    assert link(made) == 0
    error = refused(capsys, made, "nnUNetTrainer_consistency")
    assert "2 unlabelled image(s) are validation or test images" in error
    assert "of_test = imagesTs/test_0, of_validation = imagesTr/case_4" in error
    assert "nnunet-covid link" in error
    trainer = new_trainer(made, variant("nnUNetTrainer_consistency", leave_out_known=True))
    assert trainer.unlabelled_images.cases == ("of_training", "un_0", "un_1", "un_2")
