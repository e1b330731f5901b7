"""Inf-Net as a whole: on planned encoders of every shape, compiled, under autocast, in more than one process."""

from __future__ import annotations

import socket
from typing import Any

import planned
import pytest
import torch
import torch.distributed as dist
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from nnunet_covid.losses.inf_net import InfNetLoss
from nnunet_covid.networks.encoder_description import describe_planned_encoder, select_stages
from nnunet_covid.networks.inf_net import InfNet, InfNetWidths, append_background
from nnunet_covid.networks.timm_encoder import TimmEncoder
from nnunet_covid.nnunet.architecture import build_planned_unet, planned_in_plane_strides
from nnunet_covid.trainers.inf_net import InfNetTrainer

ANISOTROPIC = {
    "dims": 3,
    "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]],
    "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 3]],
    "patch": [8, 64, 64],
}
PLANS = {
    "2d, 4 stages": {"stages": 4},
    "2d, 5 stages": {"stages": 5},
    "2d, 6 stages, residual": {"stages": 6, "residual": True},
    "2d, 7 stages": {"stages": 7, "patch": [128, 128]},
    "2d, 8 stages, residual": {"stages": 8, "residual": True, "patch": [256, 256]},
    "3d, 4 stages": {"dims": 3, "stages": 4, "patch": [16, 16, 16]},
    "3d, anisotropic": ANISOTROPIC,
    "3d, anisotropic, residual": {**ANISOTROPIC, "residual": True},
}


def build(options: dict[str, Any], heads: int = 2, **settings: Any) -> tuple[nn.Module, torch.Tensor]:
    """The network that a trainer with these class attributes builds, and an image for it."""
    trainer = type("Variant", (InfNetTrainer,), settings)
    manager = PlansManager(planned.plans(**options))
    configuration = manager.get_configuration("3d_fullres" if options.get("dims") == 3 else "2d")
    torch.manual_seed(0)
    network = trainer.build_network_architecture(manager, configuration, 1, heads, True)
    return network, torch.randn(2, 1, *configuration.patch_size)


@pytest.mark.parametrize("output", ["stride8", "full"])
@pytest.mark.parametrize("options", PLANS.values(), ids=PLANS.keys())
def test_every_plan_gives_full_size_logits_and_reaches_every_weight(options: dict[str, Any], output: str) -> None:
    network, image = build(options, heads=3, output=output)
    maps = network(image)
    assert all(m.shape[2:] == image.shape[2:] for m in maps)
    assert maps[0].shape[1] == 3
    assert {m.shape[1] for m in maps[1:]} == {2}
    sum((m * torch.randn_like(m)).sum() for m in maps).backward()
    silent = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert silent == []

    network.deep_supervision = False
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(network(image), maps[0].detach())


@pytest.mark.parametrize("size", [(1, 1, 50, 71), (1, 1, 97, 64)])
def test_image_sizes_need_not_be_multiples_of_the_stride(size: tuple[int, ...]) -> None:
    network, _ = build({"stages": 5}, output="full")
    assert network(torch.randn(size))[0].shape == (1, 2, *size[2:])


@pytest.mark.parametrize("stages", [4, 6, 8])
def test_the_number_of_maps_is_the_cascade_the_global_map_and_the_edge(stages: int) -> None:
    options = {"stages": stages, "patch": [4 * 2 ** (stages - 1)] * 2}
    assert len(build(options, output="stride8")[0](build(options)[1])) == 5
    finer = describe(options)
    assert len(build(options, output="full")[0](build(options)[1])) == 5 + finer


def describe(options: dict[str, Any]) -> int:
    """How many stages are finer than f3."""
    manager = PlansManager(planned.plans(**options))
    unet = build_planned_unet(manager.get_configuration("2d"), 1, 2)
    return select_stages(describe_planned_encoder(unet.encoder).in_plane_strides)[1]


@pytest.mark.parametrize(
    ("strides", "expected"),
    [
        ([1, 2, 4, 8, 16, 32], (2, 3, 4, 5)),
        ([1, 2, 4, 8, 16, 32, 64, 128], (2, 3, 4, 5)),
        ([1, 2, 4, 8], (0, 1, 2, 3)),
        ([1, 2, 4, 8, 16], (1, 2, 3, 4)),
        ([2, 4, 8, 16, 32], (1, 2, 3, 4)),
        ([1, 2, 4, 4, 8, 16, 32], (2, 4, 5, 6)),
        ([1, 3, 9, 27, 81], (1, 2, 3, 4)),
    ],
)
def test_stages_are_chosen_by_their_stride(strides: list[int], expected: tuple[int, ...]) -> None:
    assert select_stages(strides) == expected


def test_too_few_stages_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 4 encoder stages.*has 3"):
        select_stages([1, 2, 4])


def test_in_plane_strides_leave_the_coarsest_axis_out() -> None:
    manager = PlansManager(planned.plans(**ANISOTROPIC))
    unet = build_planned_unet(manager.get_configuration("3d_fullres"), 1, 2)
    description = describe_planned_encoder(unet.encoder)
    assert description.in_plane_strides == [1, 2, 4, 8, 16, 32]
    assert description.axes[0] == (False, True, True)


@pytest.mark.parametrize(
    "strides", [ANISOTROPIC["strides"], [[1, 1], [1, 2], [2, 2], [2, 2], [2, 2], [2, 1], [2, 1]]], ids=["3D", "2D"]
)
def test_a_plan_and_its_encoder_have_the_same_in_plane_strides(strides: list[list[int]]) -> None:
    dims = len(strides[0])
    configuration = PlansManager(planned.plans(dims=dims, strides=strides, patch=[64] * dims)).get_configuration(
        "3d_fullres" if dims == 3 else "2d"
    )
    encoder = describe_planned_encoder(build_planned_unet(configuration, 1, 2).encoder)
    assert planned_in_plane_strides(configuration) == encoder.in_plane_strides


def test_deeper_stages_are_dropped_or_merged() -> None:
    options = {"stages": 8, "patch": [256, 256]}
    dropped, image = build(options)
    merged, _ = build(options, deeper_stages="merge")
    assert len(dropped.encoder.stages) == 6
    assert len(merged.encoder.stages) == 8
    merged(image)[0].sum().backward()
    assert merged.encoder.stages[7][0].convs[0].conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("edge", "partial", "reverse", "maps"),
    [
        (False, False, False, 1),
        (True, False, False, 2),
        (False, True, False, 1),
        (False, False, True, 4),
        (True, False, True, 5),
        (False, True, True, 4),
        (True, True, True, 5),
    ],
)
def test_ablation_rows_hold_just_their_parts(edge: bool, partial: bool, reverse: bool, maps: int) -> None:
    network, image = build(
        {"stages": 6}, output="stride8", edge_attention=edge, partial_decoder=partial, reverse_attention=reverse
    )
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert ("edge_attention" in names) == edge
    assert ("cascade" in names) == reverse
    assert any("receptive_field_blocks" in n for n, _ in network.named_parameters()) == partial
    assert len(network(image)) == maps


def test_background_logit_is_zero_and_keeps_the_sigmoid() -> None:
    logits = torch.randn(2, 1, 5, 5)
    both = append_background(logits)
    torch.testing.assert_close(both.softmax(dim=1)[:, 1:], logits.sigmoid())
    several = append_background(torch.tensor([[-1.0, -2.0], [3.0, 1.0], [0.5, 2.0]]).view(3, 2, 1))
    assert several.argmax(dim=1).flatten().tolist() == [0, 1, 2]


def test_without_background_the_heads_are_the_regions() -> None:
    network, image = build({"stages": 5}, heads=3)
    regions = InfNet(network.encoder, describe_planned_encoder(network.encoder), 3, background=False)
    assert {m.shape[1] for m in regions(image)} == {3}


def paper_network(in_channels: int = 3) -> InfNet:
    encoder = TimmEncoder("res2net50d", in_channels)
    return InfNet(encoder, encoder.description, 1, widths=InfNetWidths())


def test_the_papers_network_has_the_published_size() -> None:
    network = paper_network()
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters == 31_072_721
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.eval()(torch.zeros(1, 3, 352, 352))
    assert counter.get_total_flops() / 2 == pytest.approx(13.84e9, rel=0.01)


def test_the_encoder_stands_first_among_the_parameters() -> None:
    """Optimisers in checkpoints know parameters by their order: another one would not go on from older trainings."""
    parts = dict.fromkeys(name.partition(".")[0] for name, _ in paper_network(1).named_parameters())
    assert list(parts) == ["encoder", "edge_attention", "global_map", "cascade"]


def test_a_grey_image_needs_one_channel() -> None:
    first = paper_network(1).encoder.model.conv1[0]
    assert first.in_channels == 1
    assert sum(p.numel() for p in paper_network(1).parameters()) == 31_072_721 - 2 * 32 * 9


@pytest.mark.parametrize("name", ["2d, 6 stages, residual", "3d, anisotropic", "timm"])
def test_networks_compile_without_graph_breaks(name: str) -> None:
    if name == "timm":
        encoder = TimmEncoder("tf_efficientnet_lite0", 1)
        network, image = InfNet(encoder, encoder.description, 1), torch.randn(2, 1, 64, 64)
    else:
        network, image = build(PLANS[name], output="full")
    network.eval()
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend="aot_eager")
    with torch.no_grad():
        for eager, traced in zip(network(image), compiled(image), strict=True):
            torch.testing.assert_close(traced, eager, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["2d, 6 stages, residual", "3d, anisotropic"])
@torch.backends.mkldnn.flags(enabled=False)  # its bfloat16 gradients of 3D convolutions read memory that nobody has set
def test_a_training_step_under_bfloat16_is_finite(name: str) -> None:
    network, image = build(PLANS[name], output="full")
    target = (torch.rand(image.shape) > 0.7).float()
    loss_function = InfNetLoss(lambda t: (t, None), background=True, edge=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_function(network(image), [target])
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad.isfinite().all() for p in network.parameters())
    network.deep_supervision = False
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert network(image).isfinite().all()


def _step_in_process(rank: int, port: int, results: Any) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    network, _ = build({"stages": 5})
    wrapped = DistributedDataParallel(network)
    torch.manual_seed(rank)
    image = torch.randn(1, 1, 64, 64)
    target = (torch.rand(image.shape) > 0.7).float()
    loss = InfNetLoss(lambda t: (t, None), background=True, edge=True)(wrapped(image), [target])
    loss.backward()
    results[rank] = [p.grad.numpy().copy() for p in network.parameters()]
    dist.destroy_process_group()


def test_two_processes_share_their_gradients() -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with multiprocessing.Manager() as manager:
        results = manager.dict()
        multiprocessing.spawn(_step_in_process, (port, results), nprocs=2)
        for a, b in zip(results[0], results[1], strict=True):
            assert (a == b).all()
