"""timm's encoders keep what they do through every conversion, and a plain U-Net on them has nnU-Net's maps."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.layers import GELU, BatchNormAct2d
from torch import nn

from nnunet_covid.networks.timm_encoder import TimmEncoder, load_encoder_weights
from nnunet_covid.networks.timm_unet import TimmUNet

FAMILIES = (
    "tf_efficientnet_lite0",
    "res2net50d",
    "resnet34",
    "mobilenetv3_small_100",
    "regnety_002",
    "densenet121",
    "convnext_tiny",
)
"""One of each kind that the documentation names or that puts an activation into its norm."""


def activations(module: nn.Module) -> int:
    """Activations that really run: modules that change a negative number."""
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, GELU)
    return sum(isinstance(m, kinds) for m in module.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_conversion_for_several_gpus_keeps_every_activation(name: str) -> None:
    torch.manual_seed(0)
    encoder = TimmEncoder(name, 1).eval()
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = encoder(x)
        number, norms = activations(encoder), sum(isinstance(m, nn.BatchNorm2d) for m in encoder.modules())
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
        actual = converted(x)  # in evaluation SyncBatchNorm works without a process group
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == norms
    assert (norms == 0) == name.startswith("convnext")  # which has layer norm
    assert activations(converted) == number > 0
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_have_timms_names_and_values(name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name, features_only=True, in_chans=1, pretrained=False).eval()
    ours = TimmEncoder(name, 1).eval()
    assert list(ours.model.state_dict()) == list(theirs.state_dict())
    ours.model.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b)
    assert not any(isinstance(m, BatchNormAct2d) for m in ours.modules())
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.model.load_state_dict(dict(list(theirs.state_dict().items())[:-2]))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_mask_channel_starts_at_zero_and_takes_nothing_from_the_image(channels: int, tmp_path: object) -> None:
    """The features of an image are those of three equal colours, whatever further channels hold at the start."""
    file = f"{tmp_path}/weights.pth"
    name = "resnet34"
    colour = timm.create_model(name, pretrained=False).eval()
    torch.save(colour.state_dict(), file)
    encoder = TimmEncoder(name, channels)
    load_encoder_weights(encoder, file)
    stem = encoder.model.conv1.weight
    if channels == 3:
        torch.testing.assert_close(stem, colour.conv1.weight)
        return
    torch.testing.assert_close(stem[:, 0], colour.conv1.weight.sum(dim=1))
    assert not stem[:, 1:].any()


def test_three_channels_are_colours_only_where_they_are_said_to_be(tmp_path: object) -> None:
    colour = timm.create_model("resnet34", pretrained=False)
    torch.save(colour.state_dict(), file := f"{tmp_path}/weights.pth")
    load_encoder_weights(encoder := TimmEncoder("resnet34", 3), file, colours=False)
    torch.testing.assert_close(encoder.model.conv1.weight[:, 0], colour.conv1.weight.sum(dim=1))
    assert not encoder.model.conv1.weight[:, 1:].any()
    torch.testing.assert_close(encoder.model.layer1[0].conv1.weight, colour.layer1[0].conv1.weight)


@pytest.mark.parametrize("enlargement", [1, 2])
def test_an_enlarged_image_gives_features_of_half_the_stride(enlargement: int) -> None:
    torch.manual_seed(0)
    plain = TimmEncoder("tf_efficientnet_lite0", 1).eval()
    encoder = TimmEncoder("tf_efficientnet_lite0", 1, enlargement).eval()
    encoder.load_state_dict(plain.state_dict())
    x = torch.rand(1, 1, 32, 64)
    rows, columns = (torch.tensor(_bilinear(n, enlargement), dtype=torch.float32) for n in x.shape[2:])
    larger = rows @ x @ columns.T
    with torch.no_grad():
        features, expected = encoder(x), plain(larger)
    strides = [2 // enlargement * 2**i for i in range(5)]
    assert encoder.description.in_plane_strides == strides
    for feature, other, stride in zip(features, expected, strides, strict=True):
        assert feature.shape[2:] == (32 // stride, 64 // stride)
        torch.testing.assert_close(feature, other, rtol=1e-4, atol=1e-4)


def _bilinear(length: int, factor: int) -> list[list[float]]:
    """The matrix of linear interpolation between centres of pixels, the outermost values held beyond them."""
    matrix = [[0.0] * length for _ in range(length * factor)]
    for position, row in enumerate(matrix):
        centre = min(max((position + 0.5) / factor - 0.5, 0.0), length - 1.0)
        before = int(centre)
        row[before] += 1 - (centre - before)
        row[min(before + 1, length - 1)] += centre - before
    return matrix


@pytest.mark.parametrize("enlargement", [0, 3, 4])
def test_another_enlargement_is_refused(enlargement: int) -> None:
    with pytest.raises(ValueError, match="must be 1 or 2"):
        TimmEncoder("resnet18", 1, enlargement)


def test_an_encoder_with_channels_last_is_refused() -> None:
    with pytest.raises(ValueError, match="channels last; choose a convolutional encoder"):
        TimmEncoder("swin_tiny_patch4_window7_224", 1)


@pytest.mark.parametrize("size", [(64, 96), (40, 56)])
@pytest.mark.parametrize("enlargement", [1, 2])
@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet34"])
def test_the_u_net_gives_a_map_per_stage(name: str, enlargement: int, size: tuple[int, int]) -> None:
    encoder = TimmEncoder(name, 2, enlargement)
    network = TimmUNet(encoder, 2, 3).eval()
    x = torch.randn(1, 2, *size)
    with torch.no_grad():
        maps = network(x)
        network.deep_supervision = False
        result = network(x)
    assert [tuple(m.shape[2:]) for m in maps] == [
        tuple(round(s * f) for s, f in zip(size, scale, strict=True)) for scale in TimmUNet.scales(encoder)
    ]
    assert result.shape == (1, 3, *size)
    assert len(maps) == (5 if enlargement == 1 else 4)
    torch.testing.assert_close(result, maps[0])


@pytest.mark.parametrize("enlargement", [1, 2])
def test_every_parameter_of_the_u_net_learns(enlargement: int) -> None:
    network = TimmUNet(TimmEncoder("tf_efficientnet_lite0", 1, enlargement), 1, 2)
    sum(m.square().mean() for m in network(torch.randn(2, 1, 64, 64))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_an_encoder_with_other_strides_is_refused() -> None:
    with pytest.raises(ValueError, match="strides 2, 4, 8"):
        TimmUNet(TimmEncoder("convnext_atto", 1), 1, 2)
