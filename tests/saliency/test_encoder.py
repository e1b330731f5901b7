"""Finding an encoder in any network, and recording what it returns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.encoder import feature_shapes, find_encoder, recorded_features


class TwoStages(nn.Module):
    """Features at full and at half size."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 4, 2, stride=2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        shallow = self.first(x)
        return [shallow, self.second(shallow)]


class Network(nn.Module):
    """An encoder under any name and a head that works in place."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            setattr(self, name, TwoStages())
        self.first_name = names[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = getattr(self, self.first_name)(x)
        return features[0].relu_() + nn.functional.interpolate(features[1].mul_(2)[:, :2], scale_factor=2)


def test_an_encoder_is_found_by_its_name() -> None:
    both = Network("encoder", "general_encoder")
    assert find_encoder(both) is both.encoder
    assert find_encoder(both, "general_encoder") is both.general_encoder
    other = Network("backbone_encoder")
    assert find_encoder(other) is other.backbone_encoder


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        (("trunk",), None, "no part named 'encoder'; name one of trunk"),
        (("a_encoder", "b_encoder"), None, "name one of a_encoder, b_encoder"),
        (("encoder",), "decoder", "no module 'decoder'; its parts are encoder"),
    ],
)
def test_a_network_without_it_is_an_error(names: tuple[str, ...], asked: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_encoder(Network(*names), asked)


def test_features_are_recorded_before_anything_changes_them_in_place() -> None:
    network = Network("encoder")
    image = torch.randn(1, 1, 6, 6)
    expected = network.encoder(image)
    with recorded_features(network.encoder) as features:
        network(image)
    assert (expected[0] < 0).any()
    for recorded, feature in zip(features, expected, strict=True):
        torch.testing.assert_close(recorded, feature)
    features.clear()
    network(image)
    assert features == []


def test_shapes_come_from_a_trial() -> None:
    network = Network("encoder", "unused_encoder")
    shapes = feature_shapes(network, network.encoder, (1, 1, 8, 6), torch.device("cpu"))
    assert shapes == [(2, 8, 6), (4, 4, 3)]
    with pytest.raises(UserError, match="returns no list of features"):
        feature_shapes(network, network.unused_encoder, (1, 1, 8, 6), torch.device("cpu"))
