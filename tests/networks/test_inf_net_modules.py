"""Every module of Inf-Net equals its equation, written out in numpy."""

from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from torch import nn

from nnunet_covid.networks.conv import ConvStyle, resize_like
from nnunet_covid.networks.inf_net_modules import (
    DeepestFeatureHead,
    EdgeAttention,
    ParallelPartialDecoder,
    PartialDecoderHead,
    ReceptiveFieldBlock,
    ReverseAttention,
    reverse_attention_weight,
)

STYLES = {
    "2d": ConvStyle(2, nn.BatchNorm2d, nn.ReLU, norm_on_logits=True),
    "3d": ConvStyle(3, lambda c: nn.InstanceNorm3d(c, affine=True), lambda: nn.LeakyReLU(0.01)),
}
SIZES = {"2d": [(9, 7), (5, 4), (3, 2)], "3d": [(5, 7, 6), (3, 4, 3), (3, 2, 2)]}


@pytest.fixture(params=["2d", "3d"])
def dims(request: pytest.FixtureRequest) -> str:
    return request.param


def prepare(module: nn.Module) -> nn.Module:
    """Double precision, evaluation mode, and normalisations that are no identity."""
    generator = torch.Generator().manual_seed(1)
    for m in module.modules():
        for name in ("running_mean", "running_var", "weight", "bias"):
            value = getattr(m, name, None)
            if isinstance(value, torch.Tensor) and value.ndim == 1:
                value.data = torch.rand(value.shape, generator=generator) + 0.5
    return module.double().eval()


def random(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(actual: torch.Tensor, expected: np.ndarray) -> None:
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual.detach().numpy(), expected, atol=1e-9, rtol=1e-9)


def test_resize_is_linear_between_voxel_centres(dims: str) -> None:
    fine, coarse = SIZES[dims][0], SIZES[dims][2]
    for source, target in ((coarse, fine), (fine, coarse)):
        x = random((2, 3, *source))
        same(resize_like(x, torch.zeros(1, 1, *target)), naive.resize(x.numpy(), target))


def test_receptive_field_block_is_four_branches_and_a_residual(dims: str) -> None:
    style = STYLES[dims]
    block = prepare(ReceptiveFieldBlock(6, 4, style=style))
    x = random((2, 6, *SIZES[dims][0]))
    branches = [naive.layers(x.numpy(), block.pointwise)]
    branches += [naive.layers(x.numpy(), branch) for branch in block.branches]
    merged = naive.layers(np.concatenate(branches, axis=1), block.merge)
    same(block(x), naive.layers(merged + naive.layers(x.numpy(), block.residual), block.nonlinearity))


@pytest.mark.parametrize(("branch", "reach"), [(0, 1 + 3), (1, 2 + 5), (2, 3 + 7)])
def test_receptive_field_of_a_branch_is_its_kernel_and_its_dilation(branch: int, reach: int) -> None:
    block = ReceptiveFieldBlock(1, 1, style=ConvStyle(2, lambda c: nn.Identity())).double()
    for p in block.parameters():
        p.data.fill_(1)
    x = torch.zeros(1, 1, 31, 31, dtype=torch.float64, requires_grad=True)
    block.branches[branch](x)[0, 0, 15, 15].backward()
    seen = x.grad[0, 0].nonzero() - 15
    assert seen.min(dim=0).values.tolist() == [-reach, -reach]
    assert seen.max(dim=0).values.tolist() == [reach, reach]


def test_receptive_field_block_leaves_excluded_axes_alone() -> None:
    block = ReceptiveFieldBlock(2, 2, style=ConvStyle(3, lambda c: nn.Identity()), axes=(False, True, True))
    x = torch.randn(1, 2, 3, 8, 8, requires_grad=True)
    block(x)[0, :, 1].sum().backward()
    assert x.grad[0, :, 1].abs().sum() > 0
    assert x.grad[0, :, [0, 2]].abs().sum() == 0


def test_partial_decoder_is_the_dense_aggregation(dims: str) -> None:
    decoder = prepare(ParallelPartialDecoder(4, 2, style=STYLES[dims]))
    f3, f4, f5 = (random((2, 4, *size), seed) for seed, size in enumerate(SIZES[dims]))
    n3, n4, n5 = (f.numpy() for f in (f3, f4, f5))
    up4, up3 = SIZES[dims][1], SIZES[dims][0]
    n5_at_4 = naive.resize(n5, up4)
    n5_at_3 = naive.resize(n5_at_4, up3)
    n4_at_3 = naive.resize(n4, up3)
    p4 = naive.layers(n5_at_4, decoder.f5_to_product4) * n4
    p3 = naive.layers(n5_at_3, decoder.f5_to_product3) * naive.layers(n4_at_3, decoder.f4_to_product3) * n3
    q4 = np.concatenate((p4, naive.layers(n5_at_4, decoder.f5_to_concat4)), axis=1)
    q4 = naive.layers(q4, decoder.concat4)
    q3 = np.concatenate((p3, naive.layers(naive.resize(q4, up3), decoder.concat4_to_concat3)), axis=1)
    expected = naive.layers(naive.layers(naive.layers(q3, decoder.concat3), decoder.last), decoder.seg_layers)
    same(decoder(f3, f4, f5), expected)


def test_partial_decoder_head_puts_a_block_before_each_feature(dims: str) -> None:
    axes = [(True,) * int(dims[0])] * 3
    head = prepare(PartialDecoderHead([3, 5, 7], 4, 1, style=STYLES[dims], axes=axes))
    features = [random((1, c, *size)) for c, size in zip((3, 5, 7), SIZES[dims], strict=True)]
    narrow = [block(f) for block, f in zip(head.receptive_field_blocks, features, strict=True)]
    same(head(*features), head.decoder(*narrow).detach().numpy())


def test_deepest_feature_head_reads_f5_alone(dims: str) -> None:
    head = prepare(DeepestFeatureHead(5, 2, style=STYLES[dims]))
    f5 = random((1, 5, *SIZES[dims][2]))
    same(head(f5 * 0, f5 * 3, f5), naive.layers(f5.numpy(), head.seg_layers))


@pytest.mark.parametrize("classes", [1, 3])
def test_reverse_attention_equals_the_corrected_equation_2(dims: str, classes: int) -> None:
    module = prepare(ReverseAttention(6, 3, 4, classes, style=STYLES[dims], kernel=5, num_convs=3))
    feature = random((2, 6, *SIZES[dims][1]), 1)
    deeper = random((2, classes, *SIZES[dims][2]), 2)
    edge = random((2, 3, *SIZES[dims][0]), 3)
    guide = naive.resize(deeper.numpy(), SIZES[dims][1])
    weight = 1 - naive.sigmoid(guide).max(axis=1, keepdims=True)
    expanded = np.repeat(weight, 6, axis=1)  # the paper repeats the weight over the channels of f_i
    reduced = naive.layers(feature.numpy() * expanded, module.reduce)
    joined = np.concatenate((reduced, naive.resize(edge.numpy(), SIZES[dims][1])), axis=1)
    expected = naive.layers(naive.layers(joined, module.convs), module.seg_layers) + guide
    same(module(feature, deeper, edge), expected)


def test_reverse_attention_looks_away_from_what_is_found() -> None:
    found = torch.tensor([-30.0, 0.0, 30.0]).view(1, 1, 1, 3)
    assert reverse_attention_weight(found).flatten().tolist() == pytest.approx([1, 0.5, 0], abs=1e-6)
    two_classes = torch.tensor([[-30.0, 30.0], [-30.0, -30.0]]).view(1, 2, 1, 2)
    assert reverse_attention_weight(two_classes).flatten().tolist() == pytest.approx([1, 0], abs=1e-6)


def test_reverse_attention_gradients_match_finite_differences(dims: str) -> None:
    module = prepare(ReverseAttention(2, 1, 2, 1, style=STYLES[dims]))
    shapes = [(1, 2, *SIZES[dims][1]), (1, 1, *SIZES[dims][2]), (1, 1, *SIZES[dims][1])]
    inputs = [random(s, i).requires_grad_() for i, s in enumerate(shapes)]
    assert torch.autograd.gradcheck(module, inputs, fast_mode=True)


def test_partial_decoder_gradients_match_finite_differences(dims: str) -> None:
    module = prepare(ParallelPartialDecoder(2, 1, style=STYLES[dims]))
    inputs = [random((1, 2, *s), i).requires_grad_() for i, s in enumerate(SIZES[dims])]
    assert torch.autograd.gradcheck(module, inputs, fast_mode=True)


def test_edge_attention_gives_features_and_their_logits(dims: str) -> None:
    module = prepare(EdgeAttention(6, 4, 2, style=STYLES[dims]))
    f2 = random((2, 6, *SIZES[dims][0]))
    features, logits = module(f2)
    expected = naive.layers(f2.numpy(), module.features)
    same(features, expected)
    same(logits, naive.layers(expected, module.seg_layers))
