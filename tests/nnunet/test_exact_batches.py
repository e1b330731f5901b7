"""A batch gets the bits that its patches get alone, or is not made."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nnunet_covid.nnunet.exact_batches import ExactBatches, one_by_one


def network_with_small_maps() -> nn.Module:
    """Its deeper layers are so small that torch takes another kernel for one patch than for four."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, stride=4, padding=1),
        nn.InstanceNorm2d(64, affine=True),
        nn.LeakyReLU(),
        nn.Conv2d(64, 256, 3, stride=4, padding=1),
        nn.LeakyReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ConvTranspose2d(256, 32, 4, stride=4),
        nn.Conv2d(32, 2, 1),
    ).eval()


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (128, 96)])
def test_bits_of_a_batch_are_those_of_its_patches(size: tuple[int, int]) -> None:
    network = network_with_small_maps()
    batches = ExactBatches(network, (4, 1, *size))
    assert batches.exact
    patches = torch.rand(4, 1, *size) * 300 - 100
    with torch.inference_mode():
        assert torch.equal(batches(patches), one_by_one(network, patches))


def test_layers_that_round_otherwise_are_found_and_left_as_they_were() -> None:
    network = network_with_small_maps()
    noise = torch.randn(4, 1, 32, 32)
    with torch.inference_mode():
        if torch.equal(network(noise), one_by_one(network, noise)):
            pytest.skip("this build of torch takes the same kernels for one patch and for four")
    before = copy.deepcopy(network.state_dict())
    batches = ExactBatches(network, noise.shape)
    assert {type(layer) for layer in batches.apart} <= {nn.Conv2d, nn.ConvTranspose2d}
    assert 0 < len(batches.apart) < len(list(network))
    assert not any("forward" in vars(layer) or layer._forward_hooks for layer in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class LooksAtItsBatch(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inside(x) - x.mean()


def test_what_is_no_layer_and_looks_at_the_batch_is_noticed() -> None:
    assert not ExactBatches(LooksAtItsBatch(nn.Conv2d(1, 2, 3)), (4, 1, 16, 16)).exact


def test_a_layer_that_looks_at_the_batch_gets_its_patches_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    batches = ExactBatches(network, (4, 1, 16, 16))
    assert batches.exact
    assert network[1] in batches.apart


class Recurrent(nn.Module):
    """A layer with two outputs, and one whose first axis is not the patches'."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.LSTM(16, 8, batch_first=True)
        self.each = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found, _ = self.rows(x[:, 0])
        return self.each(found.flatten(0, 1)).unflatten(0, (len(x), -1))


def test_layers_of_other_kinds_are_left_to_the_comparison_of_the_whole() -> None:
    network = Recurrent().eval()
    batches = ExactBatches(network, (4, 1, 16, 16))
    assert not batches.apart
    noise = torch.randn(4, 1, 16, 16)
    with torch.inference_mode():
        assert torch.equal(batches(noise), one_by_one(network, noise)) or not batches.exact
