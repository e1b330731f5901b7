"""SSA-Net as a whole: on planned encoders of every shape, the paper's own, compiled, under autocast, under DDP."""

from __future__ import annotations

import socket
from typing import Any

import planned
import pytest
import torch
import torch.distributed as dist
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from nnunet_covid.losses.ssa_net import SelfAttentionDistillation
from nnunet_covid.networks.spatial_convolution import SpatialConvolution
from nnunet_covid.networks.ssa_net import SSANetPaper, distilled_stages
from nnunet_covid.networks.timm_encoder import TimmEncoder
from nnunet_covid.nnunet.architecture import build_planned_unet
from nnunet_covid.trainers.ssa_net import SSANetTrainer

ANISOTROPIC = {
    "dims": 3,
    "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [1, 2, 2]],
    "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "patch": [2, 64, 32],
}
PLANS = {
    "2d, 2 stages": {"stages": 2, "patch": [16, 24]},
    "2d, 6 stages, residual": {"stages": 6, "residual": True, "patch": [64, 96]},
    "2d, 8 stages": {"stages": 8, "patch": [256, 256]},
    "3d, 3 stages": {"dims": 3, "stages": 3, "patch": [16, 12, 8]},
    "3d, anisotropic, one plane deep": ANISOTROPIC,
    "3d, anisotropic, residual": {**ANISOTROPIC, "residual": True},
}


def build(options: dict[str, Any], heads: int = 2, **settings: Any) -> tuple[Any, torch.Tensor]:
    """The network that a trainer with these class attributes builds, and an image with a lung mask for it."""
    trainer = type("Variant", (SSANetTrainer,), settings)
    manager = PlansManager(planned.plans(**options))
    configuration = manager.get_configuration("3d_fullres" if options.get("dims") == 3 else "2d")
    torch.manual_seed(0)
    network = trainer.build_network_architecture(manager, configuration, 2, heads, True)
    return network, torch.randn(2, 2, *configuration.patch_size)


@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS.keys())
def test_every_plan_gives_the_decoder_s_maps_and_then_the_stages(options: dict[str, Any]) -> None:
    network, image = build(options, heads=3)
    outputs = network(image)
    stages = network.stage_features(image)
    maps = outputs[: -len(stages)]
    assert len(maps) == len(network.encoder.stages) - 1
    assert maps[0].shape == (2, 3, *image.shape[2:])
    for stage, returned in zip(stages, outputs[len(maps) :], strict=True):
        torch.testing.assert_close(stage, returned)

    sum((m * torch.randn_like(m)).sum() for m in outputs).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []

    network.deep_supervision = False
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(image), maps[0].detach())


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ([1, 2, 4, 8, 16, 32], (2, 3, 4, 5)),
        ([1, 2, 4, 8, 16, 32, 64, 128], (2, 3, 4, 5)),
        ([1, 2, 4, 8, 16], (1, 2, 3, 4)),
        ([1, 2, 4], (0, 1, 2)),
        ([1, 2], (0, 1)),
    ],
)
def test_the_stages_at_the_paper_s_strides_learn_from_each_other(strides: list[int], expected: tuple[int, ...]) -> None:
    assert distilled_stages(strides) == expected


def test_a_single_stage_is_refused() -> None:
    with pytest.raises(ValueError, match="at least two stages, but this one has 1"):
        distilled_stages([1])


def test_without_its_parts_it_is_the_planned_network() -> None:
    options = PLANS["2d, 6 stages, residual"]
    network, image = build(options, spatial_convolution=False, self_attention=False)
    manager = PlansManager(planned.plans(**options))
    unet = build_planned_unet(manager.get_configuration("2d"), 2, 2, deep_supervision=True)
    unet.load_state_dict(network.state_dict())
    with torch.no_grad():
        for a, b in zip(network.eval()(image), unet.eval()(image), strict=True):
            torch.testing.assert_close(a, b)


def test_messages_reach_from_corner_to_corner_through_the_bottleneck() -> None:
    reached = {}
    for part in (True, False):
        network, _ = build({"stages": 3}, spatial_convolution=part)
        for module in network.modules():  # normalisation would carry information everywhere
            for name, child in module.named_children():
                if isinstance(child, nn.InstanceNorm2d):
                    setattr(module, name, nn.Identity())
        network.deep_supervision = False
        image = torch.randn(1, 2, 96, 96, requires_grad=True)
        network(image)[0, :, 0, 0].sum().backward()
        reached[part] = image.grad[0, :, -1, -1].abs().sum().item() > 0
    assert reached == {True: True, False: False}


@pytest.mark.parametrize(("spatial", "attention"), [(False, False), (False, True), (True, False), (True, True)])
def test_ablation_rows_hold_just_their_parts(spatial: bool, attention: bool) -> None:
    network, image = build({"stages": 5}, spatial_convolution=spatial, self_attention=attention)
    assert any(isinstance(m, SpatialConvolution) for m in network.modules()) == spatial
    assert len(network(image)) == 4 + 4 * attention
    assert len(network.stage_features(image)) == 4, "saliency looks at them with or without distillation"


def paper_network(channels: int = 1, **settings: Any) -> SSANetPaper:
    with torch.device("meta"):
        return SSANetPaper(TimmEncoder("resnet34", channels), 1, **{"kernel": 9, **settings})


def test_the_paper_s_network_has_its_parameters_and_its_work() -> None:
    network = paper_network()
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(31.10e6, rel=0.02)
    two_channels = sum(p.numel() for p in paper_network(2).parameters())
    assert two_channels - sum(p.numel() for p in network.parameters()) == 64 * 7 * 7
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = network.eval()(torch.zeros(1, 1, 512, 512, device="meta"))
    assert maps[0].shape == (1, 1, 512, 512)
    assert counter.get_total_flops() / 2 == pytest.approx(26.08e9, rel=0.02)
    assert [m.shape[1] for m in maps[1:]] == [64, 128, 256, 512]


def test_the_paper_s_decoder_adds_its_skips() -> None:
    network = SSANetPaper(TimmEncoder("resnet18", 2), 2, kernel=None, distillation=False).eval()
    features = network.encoder(torch.randn(1, 2, 64, 64))
    decoder = network.decoder
    x = features[4]
    for block, skip in zip(decoder.blocks, (features[3], features[2], features[1]), strict=False):
        x = block(x) + skip
    expected = decoder.seg_layers[0](decoder.last(decoder.blocks[3](x)))
    torch.testing.assert_close(decoder(features)[0], expected)


def test_other_encoders_are_refused_by_the_paper_s_decoder() -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="strides 2, 4, 8, 16 and 32"):
        SSANetPaper(TimmEncoder("vgg11", 1), 1, kernel=None)


@pytest.mark.parametrize("name", ["2d, 2 stages", "3d, 3 stages", "paper"])
def test_networks_compile_without_graph_breaks(name: str) -> None:
    if name == "paper":  # at an odd size too; the smaller sibling of the paper's encoder has the same kinds of layers
        network, image = SSANetPaper(TimmEncoder("resnet18", 1), 1, kernel=9), torch.randn(1, 1, 70, 65)
    else:
        network, image = build(PLANS[name])
    network.eval()
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
    with torch.no_grad():
        for eager, traced in zip(network(image), compiled(image), strict=True):
            torch.testing.assert_close(traced, eager, atol=1e-5, rtol=1e-5)
    assert network(image)[0].shape[2:] == image.shape[2:]


@pytest.mark.parametrize("name", ["2d, 6 stages, residual", "3d, 3 stages"])
def test_a_training_step_under_bfloat16_is_finite(name: str) -> None:
    network, image = build(PLANS[name])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(image)
        stages = outputs[-len(network.stages) :]
        loss = sum(m.float().square().mean() for m in outputs[: -len(stages)]) + SelfAttentionDistillation()(stages)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad.isfinite().all() for p in network.parameters())


def test_every_parameter_takes_part_under_ddp() -> None:
    """Two steps: DistributedDataParallel complains in the second about what was not used in the first."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    try:
        network, image = build(ANISOTROPIC)
        wrapped = DistributedDataParallel(network)
        for _ in range(2):
            outputs = wrapped(image)
            count = len(network.stages)
            loss = sum(m.mean() for m in outputs[:-count]) + SelfAttentionDistillation()(outputs[-count:])
            loss.backward()
        assert all(p.grad is not None for p in network.parameters())
    finally:
        dist.destroy_process_group()
