from __future__ import annotations

from typing import Any

import planned
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_covid import trainers
from nnunet_covid.pretraining.autoencoder import Autoencoder

STRIDES_3D = [[1, 1, 1], [1, 2, 2], [2, 2, 2], [2, 2, 2]]
NETWORKS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "plain": ("nnUNetTrainer", {"stages": 4}, (8, 8)),
    "anisotropic": ("nnUNetTrainer", {"dims": 3, "strides": STRIDES_3D, "patch": [8, 16, 16]}, (4, 8, 8)),
    "residual": ("nnUNetTrainer", {"residual": True, "stages": 4}, (8, 8)),
    "inf-net": ("InfNetTrainer", {"stages": 7}, (32, 32)),
    "ssa-net": ("SSANetStride32Trainer", {"stages": 7}, (32, 32)),
    "timm": ("UNetPretrainedTrainer", {}, (32, 32)),
    "timm, enlarged": ("UNetPretrainedEnlargedTrainer", {}, (16, 16)),
    "inf-net on timm": ("InfNetPretrainedTrainer", {}, (32, 32)),
    "the paper's ssa-net": ("SSANetResNet34Trainer", {}, (32, 32)),
    "collaborative": ("CollaborativeTrainerNoRelationLoss", {"stages": 4}, (8, 8)),
    "all in one": ("AllInOneNoGeneralTrainer", {"stages": 5}, (16, 16)),
    "all in one on timm": ("AllInOnePretrainedInfNetTrainer", {}, (32, 32)),
}


def build(kind: str, channels: int = 1, heads: int = 3) -> tuple[nn.Module, Any]:
    name, plan, _ = NETWORKS[kind]
    plans = PlansManager(planned.plans(**plan))
    configuration = plans.get_configuration("3d_fullres" if plan.get("dims") == 3 else "2d")
    configuration.configuration["normalization_schemes"] = ["ZScoreNormalization"] * channels
    trainer = getattr(trainers, f"{name}_1epochs")
    return trainer.build_network_architecture(plans, configuration, channels, heads, True), configuration


@pytest.mark.parametrize(("kind", "channels"), [*((kind, 1) for kind in NETWORKS), ("plain", 2), ("timm", 2)])
def test_every_network_reconstructs_and_gives_back_what_its_trainer_loads(kind: str, channels: int) -> None:
    torch.manual_seed(0)
    network, configuration = build(kind, channels)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    autoencoder = Autoencoder(network, configuration, channels, skips=False)
    assert autoencoder.stride == NETWORKS[kind][2]
    image = torch.randn(2, channels, *(2 * size for size in autoencoder.stride))
    optimizer = torch.optim.SGD(autoencoder.unet.parameters(), 0.01)
    found = autoencoder(image)
    assert found.shape == image.shape
    found.square().mean().backward()
    optimizer.step()
    after = autoencoder.pretrained()
    assert {name: value.shape for name, value in after.items()} == {n: v.shape for n, v in before.items()}
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in changed} <= {"encoder", "decoder", "full_resolution", "spatial_convolution"}
    assert any(name.startswith("encoder.") for name in changed)
    assert not any("seg_layers" in name for name in changed)
    own_decoder = "inf-net" not in kind
    assert any(name.startswith("decoder.") for name in changed) == own_decoder
    fresh, _ = build(kind, channels)
    fresh.load_state_dict(after)


@pytest.mark.parametrize("kind", ["plain", "timm", "inf-net", "the paper's ssa-net"])
def test_without_skips_everything_goes_through_the_deepest_feature(kind: str) -> None:
    """Where the deepest feature is a constant, so is the reconstruction; with skips it is not."""
    varied = {}
    for skips in (True, False):
        torch.manual_seed(0)
        network, configuration = build(kind)
        autoencoder = Autoencoder(network, configuration, 1, skips=skips).eval()

        def flattened(decoder: nn.Module, arguments: Any) -> Any:
            *finer, deepest = arguments[0]
            return ([*finer, torch.ones_like(deepest)],)

        autoencoder.unet.decoder.register_forward_pre_hook(flattened, prepend=True)
        with torch.no_grad():
            images = torch.randn(2, 1, 64, 64)
            first, second = autoencoder(images)
        varied[skips] = not torch.equal(first, second)
    assert varied == {True: True, False: False}


def test_a_network_without_an_encoder_is_refused() -> None:
    _, configuration = build("plain")
    with pytest.raises(ValueError, match="Conv2d has no planned or timm encoder"):
        Autoencoder(nn.Conv2d(1, 1, 1), configuration, 1, skips=True)
