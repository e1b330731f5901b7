"""What ``benchmarks/gpu`` puts in the place of a trainer's forward and backward pass is the same step."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_covid import trainers
from nnunet_covid.auxiliary_data.links import Link, LinkedCases
from nnunet_covid.trainers.collaborative import CollaborativeTrainer

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu" / "graphs.py"
STEPS = 3


def in_place(step: nn.Module, inputs: tuple[torch.Tensor, ...], *, allow_unused_input: bool) -> nn.Module:
    """What torch does on a card without the graph: a few passes, whose running statistics stay behind."""
    assert allow_unused_input
    for _ in range(3):
        step(*inputs)
    return step


def wrong(step: nn.Module, inputs: tuple[torch.Tensor, ...], *, allow_unused_input: bool) -> nn.Module:
    """A graph with the right loss and one gradient in ten too large."""
    forward = step.forward
    step.forward = lambda *arrived: Stretched.apply(forward(*arrived))  # type: ignore[method-assign]
    return step


class Stretched(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient * 1.1


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Any:
    specification = importlib.util.spec_from_file_location("graphs_of_benchmarks", FILE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "graphs_of_benchmarks", module)  # for its dataclasses
    specification.loader.exec_module(module)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return module


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer on the CPU, always with the same weights, that has not looked at any data."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    monkeypatch.setattr(CollaborativeTrainer, "usable_link", lambda *_: None)

    def build(name: str) -> Any:
        torch.manual_seed(0)
        kind = nnUNetTrainer if name == "nnUNetTrainer" else getattr(trainers, name)
        plans = planned.plans(stages=6 if "Pretrained" in name else 4, patch=[64, 64])
        made = type(name, (kind,), {"encoder_weights": None})(
            plans, "2d", 0, planned.dataset_json(), torch.device("cpu")
        )
        made.initialize()
        made.network.train()
        return made

    return build


def batches(trainer: Any) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(STEPS):
        label = torch.randint(0, 2, (2, 1, 64, 64), generator=generator).float()
        sizes = [[round(64 * f) for f in scale] for scale in trainer._get_deep_supervision_scales()]
        one = {"target": [nn.functional.interpolate(label, size=size).short() for size in sizes]}
        one |= {key: torch.randn(2, 1, 64, 64, generator=generator) for key in ("data", "other")}
        found.append(one)
    return found


def losses(trainer: Any) -> list[float]:
    return [float(trainer.train_step(batch)["loss"]) for batch in batches(trainer)]


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainer",
        "InfNetTrainer",
        "UNetPretrainedTrainer",
        "UNetPretrainedEnlargedTrainer",
        "SSANetTrainer",
        "CollaborativeTrainer",
        "AllInOneNoGeneralTrainer",
        "AllInOneTrainer",
    ],
)
def test_steps_are_the_trainers_own(name: str, make: Any, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses(make(name))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", in_place)
    trainer = make(name)
    before = {key: value.clone() for key, value in trainer.network.state_dict().items()}
    assert graphs.take_graph(trainer).startswith("graph: same loss, gradients differ by 0")
    assert all(torch.equal(value, before[key]) for key, value in trainer.network.state_dict().items())
    assert losses(trainer) == pytest.approx(expected, rel=1e-6)
    trainer.network.eval()
    with torch.no_grad():
        assert not isinstance(trainer.network(batches(trainer)[0]["data"]), graphs.Waiting)


@pytest.mark.parametrize(
    ("name", "unlabelled", "why"),
    [
        ("SSANetTrainerSA10", False, "distillation begins later"),
        ("CollaborativeTrainerNoGeneralLoss", False, "its steps see no images of other diseases"),
        ("AllInOneTrainer", True, "its steps see unlabelled images too"),
    ],
)
def test_a_graph_that_would_not_be_the_trainings_step_is_not_taken(
    name: str, why: str, make: Any, graphs: Any, monkeypatch: pytest.MonkeyPatch, *, unlabelled: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", in_place)
    trainer = make(name)
    images = LinkedCases("images", "images", ("a", "b")) if unlabelled else None
    trainer.usable_link = lambda *_: Link("2d", 2, "", (), images)
    forward = trainer.network.forward
    assert graphs.take_graph(trainer) == f"no graph: {why}"
    assert trainer.network.forward == forward


def test_a_graph_with_other_gradients_is_not_taken(make: Any, graphs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses(make("nnUNetTrainer"))
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", wrong)
    trainer = make("nnUNetTrainer")
    message = graphs.take_graph(trainer)
    assert message.startswith("no graph: ValueError: loss")
    assert "gradients differ by 0.1" in message
    assert losses(trainer) == pytest.approx(expected, rel=1e-6)
