"""What rounds may take beside the papers' settings: stretched maps, pre-trained weights, strong views, a teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from killable_run import SHORT, TRAINER, do_rounds, quick_ending, units
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from skimage import io
from tiny_data_set import TinyDataSet

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised.labelling import Heads
from nnunet_covid.semi_supervised.options import make_options
from nnunet_covid.semi_supervised.training import InAnotherFolder, LabelledAndPseudo, StrongOnPseudo, initialised

CPU = torch.device("cpu")


def test_one_class_is_stretched_as_the_released_code_does() -> None:
    """``(p - p.min()) / (p.max() - p.min() + 1e-8)`` of the probability of infection."""
    infection = np.random.default_rng(0).uniform(0.2, 0.6, (7, 9)).astype(np.float32)
    found = Heads((0, 1)).stretched(np.stack([1 - infection, infection]))
    expected = (infection - infection.min()) / (infection.max() - infection.min() + 1e-8)
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-6)
    regions = Heads((1, 2), regions=True).stretched(np.stack([infection, infection / 2]))
    np.testing.assert_allclose(regions, [expected, expected], atol=1e-6)


def test_several_classes_stay_a_distribution_and_a_flat_map_is_empty() -> None:
    given = np.array([[0.1, 0.5, 0.8, 0.4], [0.8, 0.3, 0.1, 0.5], [0.1, 0.2, 0.1, 0.1]])[:, None]
    found = Heads((0, 1, 2)).stretched(given)
    first, second = (given[i] - given[i].min() for i in (1, 2))
    maps = np.stack([first / first.max(), second / second.max()])
    maps /= np.maximum(maps.sum(0), 1)
    np.testing.assert_allclose(found, [1 - maps.sum(0), *maps])
    flat = np.full((2, 1, 4), 0.5)
    np.testing.assert_array_equal(Heads((0, 1)).stretched(flat)[1], 0)


def test_stretched_maps_are_soft_labels(make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", {**SHORT, "min_max": True})
    for case in ("un_0", "un_1"):
        stored = blosc2.open(str(experiment.labels_of(1) / f"{case}_soft.b2nd"), mode="r")[:]
        assert (stored.min(), stored.max()) == (0, 255)
    with pytest.raises(UserError, match="makes hard labels: leave it out, or leave out `min_max`"):
        make_options("random", {"min_max": True, "threshold": 0.5})


def test_strong_changes_meet_pseudo_labelled_images_alone(
    make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_ending(monkeypatch)
    loaded: list[str] = []
    met: list[tuple[str, bool]] = []
    load, call = LabelledAndPseudo.load_case, StrongOnPseudo.__call__

    def loading(self: LabelledAndPseudo, identifier: str) -> Any:
        loaded.append(identifier)
        return load(self, identifier)

    def changing(self: StrongOnPseudo, **data: Any) -> Any:
        met.append((loaded[-1], self.current.pseudo))
        for chosen, always in ((self.always, True), (self.transform, False)):
            random = chosen if isinstance(chosen, RandomTransform) else None
            assert random is None or (random.apply_probability == 1) == always
        return call(self, **data)

    monkeypatch.setattr(LabelledAndPseudo, "load_case", loading)
    monkeypatch.setattr(StrongOnPseudo, "__call__", changing)
    options = {**SHORT, "round_iterations": 4, "strong": True}
    do_rounds(make().unlabelled, "2d", TRAINER, "random", "Test", options)
    assert {pseudo for _, pseudo in met} == {True, False}
    assert all(pseudo == name.startswith("pseudo/") for name, pseudo in met)


def test_strong_changes_leave_masks_alone(make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    masks: list[torch.Tensor] = []
    step = nnUNetTrainer.train_step

    def noting(self: Any, batch: dict[str, Any]) -> Any:
        if not self.training.labelled:
            masks.append(batch["data"][:, 1])
        return step(self, batch)

    monkeypatch.setattr(nnUNetTrainer, "train_step", noting)
    options = {**SHORT, "two_step": True, "strong": True}
    do_rounds(make(masked=True).unlabelled, "2d", "nnUNetTrainer_1epochs_4its", "random", "Test", options)
    assert len(masks) == 4, "of the training on pseudo-labelled images alone"
    assert torch.stack(masks).max() > 0.5
    assert -1e-5 <= torch.stack(masks).min() <= torch.stack(masks).max() <= 1 + 1e-5


def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The weights that every training begins with."""
    seen: list[dict[str, torch.Tensor]] = []
    plain = nnUNetTrainer.run_training

    def noting(self: Any) -> None:
        seen.append({name: value.clone() for name, value in self.network.state_dict().items()})
        plain(self)

    monkeypatch.setattr(nnUNetTrainer, "run_training", noting)
    return seen


def test_every_new_model_starts_from_pre_trained_weights(
    make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_ending(monkeypatch)
    made = make()
    where = ["-i", str(made.unlabelled), "-p", "testPlans", "-device", "cpu"]
    assert main(["pretrain", "940", "2d", *where, "--steps", "2"]) == 0
    (checkpoint,) = made.root.rglob("pretraining/*/*/checkpoint_final.pth")
    weights = torch.load(checkpoint, weights_only=False)["network_weights"]
    seen = starts(monkeypatch)
    command = ["pseudo-label", "940", "2d", "0", *where, "-tr", TRAINER, "--strategy", "iterative", "--max-rounds", "1"]
    assert main([*command, "--pretrained-weights", str(checkpoint)]) == 0
    assert len(seen) == 2, "the first model, and a new one in round 1"
    for start in seen:
        same = [name for name in start if torch.equal(start[name], weights[name])]
        assert [name for name in start if ".seg_layers." not in name and name not in same] == []
        assert same != list(start), "the layers that segment start afresh"
    capsys.readouterr()
    assert main(command) == 2
    assert "pretrained_weights was" in capsys.readouterr().err
    other = ["-tr", "InfNetTrainer_1epochs_1its", "--pretrained-weights", str(checkpoint)]
    assert main([*command, *other]) == 2
    error = capsys.readouterr().err
    assert "--pretrained-weights" in error
    assert "not of the network of InfNetTrainer_1epochs_1its" in error
    assert error.count("\n") == 1


def test_weights_that_have_seen_validation_images_are_refused(
    make: Callable[..., TinyDataSet], capsys: pytest.CaptureFixture[str]
) -> None:
    made = make()
    splits = made.preprocessed / "splits_final.json"
    splits.write_text(json.dumps([*json.loads(splits.read_text()), {"train": ["case_4"], "val": ["case_0"]}]))
    where = ["-i", str(made.unlabelled), "-p", "testPlans", "-device", "cpu"]
    assert main(["pretrain", "940", "2d", *where, "--steps", "1", "-f", "0"]) == 0
    (checkpoint,) = made.root.rglob("pretraining/*/fold0/checkpoint_final.pth")
    command = ["pseudo-label", "940", "2d", "1", *where, "-tr", TRAINER, "--strategy", "random"]
    capsys.readouterr()
    assert main([*command, "--pretrained-weights", str(checkpoint)]) == 2
    assert "made with the training images of fold 0, validation images of fold 1 among" in capsys.readouterr().err
    assert list((made.root / "nnUNet_results").rglob("*_pseudoRandom*")) == []


@pytest.mark.parametrize("option", ["--start-from", "--pretrained-weights"])
@pytest.mark.parametrize(
    ("seen", "dataset", "refused"),
    [
        (0, "Dataset940_Tiny", True),
        ("all", "Dataset940_Tiny", True),
        (0, "Dataset941_Other", False),
        (1, "Dataset940_Tiny", False),
        (2, "Dataset940_Tiny", False),  # with fewer labelled cases, and the same validation cases
    ],
)
def test_a_model_of_another_fold_is_no_start(
    make: Callable[..., TinyDataSet],
    capsys: pytest.CaptureFixture[str],
    option: str,
    seen: object,
    dataset: str,
    *,
    refused: bool,
) -> None:
    made = make()
    splits = made.preprocessed / "splits_final.json"
    folds = [*json.loads(splits.read_text()), {"train": ["case_4", "case_3"], "val": ["case_0"]}]
    splits.write_text(json.dumps([*folds, {"train": ["case_4"], "val": ["case_0"]}]))
    content = {"network_weights": {}, "init_args": {"fold": seen, "plans": {"dataset_name": dataset}}}
    torch.save(content, made.root / "model.pth")
    command = ["pseudo-label", "940", "2d", "1", "-i", str(made.unlabelled), "-p", "testPlans", "-device", "cpu"]
    assert main([*command, "-tr", TRAINER, "--strategy", "random", option, str(made.root / "model.pth")]) == 2
    told = f"{option} {made.root / 'model.pth'}: made with the training images of fold {seen}, validation images of"
    error = capsys.readouterr().err
    assert (told in error) == refused, "a checkpoint without weights is refused otherwise"
    assert error.count("\n") == 1
    assert not refused or list((made.root / "nnUNet_results").rglob("*_pseudoRandom*")) == []


def test_the_teacher_of_a_consistency_training_labels(
    make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_ending(monkeypatch)
    made = make()
    where = ["-p", "testPlans", "-c", "2d", "-np", "1", "--unlabelled", str(made.unlabelled)]
    assert main(["link", "-d", "940", *where]) == 0
    name = "nnUNetTrainer_consistency_1epochs_1its"
    experiment = do_rounds(made.unlabelled, "2d", name, "random", "Test", SHORT)
    assert units(experiment)["1/round_001"]["steps"] == 1
    model = experiment.report_folder / "training"
    base = experiment.report_folder / "models/base.pth"
    content = torch.load(base, weights_only=False)
    student = content["consistency"]["student"]
    assert any(not torch.equal(student[key], value) for key, value in content["network_weights"].items())
    shutil.copy(base, model / "fold_0" / "checkpoint_final.pth")
    predictor = nnUNetPredictor(device=CPU, allow_tqdm=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    for case in ("un_0", "un_1"):
        files = [str(made.unlabelled / f"{case}_0000.png")]
        image, properties = experiment.plans_manager.image_reader_writer_class().read_images(files)
        expected = predictor.predict_single_npy_array(image, properties)[0]
        np.testing.assert_array_equal(io.imread(experiment.report_folder / "round_001" / f"{case}.png"), expected)
        assert expected.any()


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_gpu_looks_for_its_fastest_convolutions_as_in_nnunets_trainings(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pretended(nnUNetTrainer):
        """Of a GPU that need not be there."""

        def __init__(self, plans: Any, configuration: str, fold: int, dataset_json: Any, device: torch.device) -> None:
            self.fold = fold
            self.log_file = ""
            self.searches: list[bool] = []

        def initialize(self) -> None:
            self.searches.append(torch.backends.cudnn.benchmark)

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    experiment: Any = SimpleNamespace(
        trainer_class=Pretended,
        plans_manager=SimpleNamespace(plans={}),
        configuration="2d",
        fold=0,
        device=torch.device(kind),
    )
    trainer = initialised(experiment, InAnotherFolder, {"folder": tmp_path}, {}, 0)
    assert trainer.searches == [kind == "cuda"]


def test_a_run_that_was_begun_before_an_option_existed_goes_on(
    make: Callable[..., TinyDataSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_ending(monkeypatch)
    made = make()
    experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    path = experiment.report_folder / "state.json"
    content = json.loads(path.read_text())
    for name in ("min_max", "strong"):
        del content["options"][name]
    del content["context"]["pretrained_weights"]
    path.write_text(json.dumps(content))
    do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    with pytest.raises(UserError, match="`strong` was not given and is given"):
        do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", {**SHORT, "strong": True})
