"""What a variant's class attributes say reaches its loss and its network: against the pure functions, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from nnunet_covid import trainers
from nnunet_covid.losses.inf_net import edge_bce, pixel_weight, structure_loss
from nnunet_covid.losses.reweighted_cross_entropy import class_weights
from nnunet_covid.losses.ssa_net import distillation_loss
from nnunet_covid.nnunet.trainer_names import TRAINERS

BALANCED = {"pixel": "label_free", "maps": "halving"}
DICE_CE = {"loss": "dice_ce", "maps": "halving"}
INF_NET: dict[str, dict[str, Any]] = {
    "InfNetLabelFreeTrainer": {"pixel": "label_free"},
    "InfNetPlainBCETrainer": {"plain": True},
    "InfNetMeanMapsTrainer": {"maps": "mean"},
    "InfNetHalvingMapsTrainer": {"maps": "halving"},
    "InfNetBalancedTrainer": BALANCED,
    "InfNetDiceTrainer": {"loss": "dice"},
    "InfNetDiceCETrainer": DICE_CE,
    "InfNetTrainerBackbone": {"edge": False},
    "InfNetTrainerPPD": {"edge": False},
    "InfNetTrainerRA": {"edge": False},
    "InfNetTrainerPPDRA": {"edge": False},
    "InfNetPretrainedBalancedTrainer": BALANCED,
    "InfNetPretrainedDiceCETrainer": DICE_CE,
    "InfNetPretrainedLabelFreeTrainer": {"pixel": "label_free"},
}
"""How the loss of a row differs from the paper's."""
WITHOUT_NORM = (
    "InfNetPretrainedBalancedTrainer",
    "InfNetPretrainedDiceCETrainer",
    "InfNetPretrainedPlainLogitsTrainer",
)
"""Of the rows on timm encoders, those whose logits are not normalised."""
SSA_NET: dict[str, dict[str, Any]] = {
    "SSANetTrainer": {"loss": "dice_ce"},
    "SSANetDiceCETrainer": {"loss": "dice_ce"},
    "SSANetStandardisedTrainer": {"loss": "dice_ce", "standardise": True},
    "SSANetStride32Trainer": {"loss": "dice_ce"},
    "SSANetReweightedTrainer": {"loss": "reweighted_ce"},
    "SSANetTrainerBackbone": {"distils": False},
    "SSANetTrainerSC": {"distils": False},
    "SSANetResNet34Trainer": {"maps": 1},
    "SSANetResNet34PretrainedTrainer": {"maps": 1},
}
"""How the loss of a row differs from Dice on three maps and the distillation."""


def rows(*modules: str) -> list[str]:
    return [name for name, module in TRAINERS.items() if module in modules]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An initialised trainer on the CPU, on a small timm encoder where it has one, that has not looked at any data."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)

    def build(name: str, schemes: tuple[str, ...] = ("ZScoreNormalization",), **settings: Any) -> Any:
        torch.manual_seed(0)
        small = {"encoder_name": "resnet18", "encoder_weights": None, **settings}
        plans = planned.plans(stages=4, patch=[32, 32])
        plans["configurations"]["2d"]["normalization_schemes"] = list(schemes)
        data = planned.dataset_json(channel_names={str(i): f"image {i}" for i in range(len(schemes))})
        made = type(name, (getattr(trainers, name),), small)(plans, "2d", 0, data, torch.device("cpu"))
        made.initialize()
        return made

    return build


def outputs_and_target(made: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Random numbers in the form of the network's outputs, and the targets of the maps among them."""
    with torch.no_grad():
        outputs = [2 * torch.randn_like(output) for output in made.network(torch.randn(2, 1, 32, 32))]
    target = torch.zeros(2, 1, 32, 32)
    target[0, :, 8:20, 4:18] = target[1, :, 16:24, 20:27] = 1
    scales = made._get_deep_supervision_scales()
    return outputs, [functional.interpolate(target, size=[round(32 * f) for f in scale]) for scale in scales]


def dice_loss(foreground: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """One minus the Dice of probabilities, summed over the batch as 2D plans have it."""
    return 1 - 2 * (foreground * reference).sum() / (foreground.sum() + reference.sum())


def halving(number: int) -> list[float]:
    return [0.5**i / sum(0.5**k for k in range(number)) for i in range(number)]


def inf_net_loss(
    outputs: list[torch.Tensor],
    reference: torch.Tensor,
    *,
    edge: bool = True,
    pixel: Any = "paper",
    plain: bool = False,
    maps: str = "sum",
    loss: str = "structure",
) -> torch.Tensor:
    """Eq. (5) and its variants for one class, the first map with background in front."""
    *found, edges = outputs if edge else [*outputs, outputs[-1]]
    found[0] = found[0][:, 1:]
    number = len(found)
    shares = {"sum": [1.0] * number, "mean": [1 / number] * number, "halving": halving(number)}[maps]
    total = sum(shares) / number * edge_bce(edges, reference) if edge else torch.zeros(())
    weight = pixel_weight(reference, kind=pixel)
    for share, logits in zip(shares, found, strict=True):
        if loss == "structure":
            counted = torch.ones_like(weight) if plain else weight
            total = total + share * structure_loss(logits, reference, weight, counted=counted)
        else:
            total = total + share * dice_loss(logits.sigmoid(), reference)
        if loss == "dice_ce":  # nnU-Net's Dice is minus the Dice
            bce = functional.binary_cross_entropy_with_logits(logits, reference)
            total = total + share * (bce - 1)
    return total


@pytest.mark.parametrize("name", rows("inf_net", "inf_net_timm"))
def test_the_loss_of_every_row_of_inf_net(name: str, make: Any) -> None:
    made = make(name)
    outputs, target = outputs_and_target(made)
    expected = inf_net_loss(outputs, target[0], **INF_NET.get(name, {}))
    torch.testing.assert_close(made.loss(outputs, target), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", rows("inf_net_timm"))
def test_norms_in_front_of_logits_are_the_paper_s_or_none(name: str, make: Any) -> None:
    network = make(name).network
    layers = [module for path, module in network.named_modules() if path.endswith("seg_layers")]
    norms = [layer for layer in layers if any(isinstance(m, nn.BatchNorm2d) for m in layer.modules())]
    assert len(layers) >= 5  # the global map, three steps at least of the cascade, the edge
    assert len(norms) == (0 if name in WITHOUT_NORM else len(layers) - 1)  # the paper's global map has none


@pytest.mark.parametrize("name", rows("ssa_net"))
def test_the_loss_of_every_row_of_ssa_net(name: str, make: Any) -> None:
    row = {"loss": "dice", "maps": 3, "distils": True, "standardise": False, **SSA_NET.get(name, {})}
    made = make(name, distillation_weight=100.0)
    if row["loss"] == "reweighted_ce":
        made.reweighted.set_counts([7, 2])
    outputs, target = outputs_and_target(made)
    if row["distils"]:
        made.loss.distillation.epoch = start = int(name.partition("TrainerSA")[2] or 0)
        assert made.loss.distillation.start_epoch == start
    total = torch.zeros(())
    shares = halving(2) if row["maps"] == 3 else [1.0]  # nnU-Net leaves the coarsest of several out
    for share, logits, reference in zip(shares, outputs, target, strict=False):
        entropy = functional.cross_entropy(logits, reference[:, 0].long(), reduction="none")
        if row["loss"] == "reweighted_ce":
            total = total + share * (class_weights([7, 2])[reference[:, 0].long()] * entropy).mean()
            continue
        total = total + share * dice_loss(logits.softmax(1)[:, 1:], reference)
        if row["loss"] == "dice_ce":
            total = total + share * (entropy.mean() - 1)
    stages = outputs[row["maps"] :]
    assert bool(stages) == row["distils"]
    if stages:
        distilled = 100 * distillation_loss(stages, standardise=row["standardise"])
        assert distilled > 1e-2
        total = total + distilled
    torch.testing.assert_close(made.loss(outputs, target), total, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in rows("collaborative") if "Frozen" not in name])
def test_relation_losses_are_a_distance_by_the_number_of_channels_or_its_sum(name: str, make: Any) -> None:
    made = make(name, usable_link=lambda *_: None)
    with torch.no_grad():
        features = made.network(*torch.randn(2, 2, 1, 32, 32), None, True)[1]
        found = [loss.item() for loss in made.relation_losses(features)]
    matrices = []
    for feature in features:
        mean = feature.double().mean(0).flatten(1).numpy()
        gram = mean @ mean.T
        matrices.append(gram / np.linalg.norm(gram, axis=1, keepdims=True))
    target, general, other = matrices
    divisor = 1 if name == "CollaborativeSumTrainer" else len(target)
    expected = [((other - general) ** 2).sum() / divisor, -((general - target) ** 2).sum() / divisor]
    off = {"NoGeneralLoss": [0], "NoTargetLoss": [1], "NoRelationLoss": [0, 1]}
    for i in off.get(name.removeprefix("CollaborativeTrainer"), []):
        expected[i] = 0
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("mask", [False, True])
def test_three_channels_are_colours_unless_one_of_them_is_a_mask(mask: bool, make: Any, tmp_path: Path) -> None:
    colour = timm.create_model("resnet18", pretrained=False)
    torch.save(colour.state_dict(), tmp_path / "weights.pth")
    schemes = ("ZScoreNormalization", "ZScoreNormalization", "NoNormalization" if mask else "ZScoreNormalization")
    made = make("UNetPretrainedTrainer", schemes, encoder_weights=str(tmp_path / "weights.pth"))
    stem = made.network.encoder.model.conv1.weight
    if mask:
        torch.testing.assert_close(stem[:, 0], colour.conv1.weight.sum(dim=1))
        assert not stem[:, 1:].any()
    else:
        torch.testing.assert_close(stem, colour.conv1.weight)
