"""Spatial convolution equals eq. (5) of SSA-Net, written out position by position, and really carries messages."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nnunet_covid.networks.spatial_convolution import SpatialConvolution

CASES = {
    "2d, odd": ((5, 7), 3),
    "2d, wide kernel": ((4, 3), 9),
    "2d, one row": ((1, 6), 5),
    "2d, one column": ((4, 1), 3),
    "2d, one position": ((1, 1), 9),
    "3d": ((3, 2, 4), 3),
    "3d, wide kernel": ((2, 3, 2), 5),
    "3d, one plane": ((1, 3, 4), 3),
}


def build(size: tuple[int, ...], kernel: int, channels: int = 3) -> SpatialConvolution:
    torch.manual_seed(0)
    return SpatialConvolution(channels, len(size), kernel).double()


def random(size: tuple[int, ...], channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, channels, *size, generator=generator, dtype=torch.float64)


def naive_direction(x: np.ndarray, weight: np.ndarray, axis: int, reverse: bool) -> np.ndarray:
    """Eq. (5) along one axis of (C, *spatial), one target position at a time; weight (*taps, C_in, C_out)."""
    result = x.copy()
    steps = range(x.shape[1 + axis])[::-1] if reverse else range(x.shape[1 + axis])
    others = [n for a, n in enumerate(x.shape[1:]) if a != axis]
    for before, step in itertools.pairwise(steps):
        for target in np.ndindex(*others):
            message = np.zeros(x.shape[0])
            for tap in np.ndindex(*weight.shape[:-2]):
                source = [t + n - k // 2 for t, n, k in zip(target, tap, weight.shape[:-2], strict=True)]
                if all(0 <= s < n for s, n in zip(source, others, strict=True)):
                    source.insert(axis, before)
                    message += result[(slice(None), *source)] @ weight[tap]
            position = list(target)
            position.insert(axis, step)
            result[(slice(None), *position)] = x[(slice(None), *position)] + np.maximum(message, 0)
    return result


def naive(x: torch.Tensor, module: SpatialConvolution) -> np.ndarray:
    weights = [w.detach().numpy() for w in module.weights]
    result = []
    for sample in x.detach().numpy():
        for axis in range(module.spatial_dims):
            for reverse in (False, True):
                sample = naive_direction(sample, weights[2 * axis + reverse], axis, reverse)
        result.append(sample)
    return np.stack(result)


@pytest.mark.parametrize("name", CASES)
def test_it_equals_equation_5(name: str) -> None:
    size, kernel = CASES[name]
    module = build(size, kernel)
    x = random(size)
    expected = naive(x, module)
    np.testing.assert_allclose(module(x).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(module.float()(x.float()).detach().numpy(), expected, atol=1e-5)
    if max(size) > 1:
        assert np.abs(expected - x.numpy()).max() > 0.01, "messages were passed"


@pytest.mark.parametrize("name", CASES)
def test_gradients_match_finite_differences(name: str) -> None:
    size, kernel = CASES[name]
    module = build(size, kernel, channels=2)
    x = random(size, channels=2).requires_grad_()

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(module, {f"weights.{i}": w for i, w in enumerate(weights)}, (x,))

    weights = [w.detach().clone().requires_grad_() for w in module.weights]
    assert torch.autograd.gradcheck(run, (x, *weights), fast_mode=len(size) == 3 or kernel > 3)


@pytest.mark.parametrize("size", [(7, 6), (4, 5, 3)])
def test_the_receptive_field_of_every_position_is_the_whole_map(size: tuple[int, ...]) -> None:
    module = build(size, 3)
    for weight in module.weights:
        weight.data.abs_()
    x = random(size).abs().requires_grad_()
    for position in itertools.product(*((0, n // 2, n - 1) for n in size)):
        (grad,) = torch.autograd.grad(module(x)[(0, slice(None), *position)].sum(), x)
        assert (grad[0].abs().sum(dim=0) > 0).all(), position
        assert grad[1].abs().sum() == 0, "no message crosses to another sample"


@pytest.mark.parametrize("direction", range(4))
def test_each_direction_carries_its_own_way_only(direction: int) -> None:
    """Downward, upward, rightward, leftward: with the other weights at zero, a kernel of 3 sees a cone."""
    module = build((5, 5), 3)
    for i, weight in enumerate(module.weights):
        weight.data.abs_().mul_(i == direction)
    x = random((5, 5)).abs().requires_grad_()
    module(x)[0, :, 2, 2].sum().backward()
    seen = x.grad[0].abs().sum(dim=0) > 0
    cone = torch.zeros(5, 5, dtype=torch.bool)
    cone[2, 2] = True
    cone[1, 1:4] = True
    cone[0, :] = True
    expected = {0: cone, 1: cone.flip(0), 2: cone.T, 3: cone.T.flip(1)}[direction]
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("size", [(1, 6), (1, 3, 4)])
def test_an_axis_of_size_one_gives_its_weights_a_zero_gradient(size: tuple[int, ...]) -> None:
    module = build(size, 3)
    module(random(size)).sum().backward()
    assert [w.grad.abs().sum().item() > 0 for w in module.weights] == [n > 1 for n in size for _ in range(2)]


@pytest.mark.parametrize("size", [(5, 7), (3, 2, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_compiles_to_one_node_per_direction(size: tuple[int, ...], dtype: torch.dtype) -> None:
    module = build(size, 3).float()
    x = random(size).float()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected = module(x)
        torch.testing.assert_close(torch.compile(module, fullgraph=True, dynamic=False, backend=backend)(x), expected)
    (graph,) = graphs
    calls = [n for n in graph.graph.nodes if "spatial_convolution" in str(n.target) and n.op == "call_function"]
    assert len(calls) == 2 * len(size)
    assert expected.dtype == x.dtype  # messages are summed in float32, whatever autocast computes in


@pytest.mark.parametrize("size", [(5, 7), (3, 2, 4)])
def test_a_compiled_step_has_the_same_gradients(size: tuple[int, ...]) -> None:
    module = build(size, 3)
    x = random(size).requires_grad_()
    inputs = [x, *module.weights]
    expected = torch.autograd.grad(module(x).square().sum(), inputs)
    compiled = torch.compile(module, fullgraph=True, dynamic=False, backend="aot_eager")
    for a, b in zip(torch.autograd.grad(compiled(x).square().sum(), inputs), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_a_step_under_bfloat16_is_finite() -> None:
    module = SpatialConvolution(16, 2, 9)
    x = torch.randn(2, 16, 12, 10, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert x.grad.isfinite().all()
    assert all(w.grad.isfinite().all() for w in module.weights)


def test_messages_do_not_blow_the_map_up() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 32, 32)
    with torch.no_grad():
        assert 1 < SpatialConvolution(64)(x).std() < 3


def test_the_operators_pass_torch_s_own_checks() -> None:
    x = torch.randn(3, 4, 2, 2, requires_grad=True)
    weight = torch.randn(3, 2, 2, requires_grad=True)
    for reverse in (False, True):
        torch.library.opcheck(torch.ops.nnunet_covid.spatial_convolution, (x, weight, reverse))


def test_its_work_is_counted() -> None:
    module = SpatialConvolution(4, 2, 3)
    x = torch.randn(2, 4, 5, 6, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = module(x)
        forward = counter.get_total_flops()
        y.sum().backward()
    steps = 2 * (5 - 1) * 6 + 2 * (6 - 1) * 5  # positions that receive a message
    assert forward == 2 * 2 * steps * 3 * 4 * 4
    assert counter.get_total_flops() == 3 * forward


@pytest.mark.parametrize("kernel", [0, 2, -3])
def test_a_kernel_without_a_middle_is_refused(kernel: int) -> None:
    with pytest.raises(ValueError, match="odd and positive"):
        SpatialConvolution(4, 2, kernel)


def test_messages_beyond_float16_stay_finite() -> None:
    """Messages that add up to more than 65504 are summed in float32, and cut where the map's type holds less."""
    module = SpatialConvolution(4, 2, 3)
    for weight in module.weights:
        torch.nn.init.constant_(weight, 1.0)
    x = torch.full((1, 4, 6, 6), 10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_float32 = module(x)
    torch.testing.assert_close(in_float32, module(x))
    assert module(x).max() > torch.finfo(torch.float16).max
    result = module(x.half())
    assert result.dtype == torch.float16
    assert result.isfinite().all()
