"""Two encoders and one decoder: shapes for any plan, and a forward pass written out by hand."""

from __future__ import annotations

from typing import Any

import planned
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.networks.collaborative import CollaborativeUNet
from nnunet_covid.nnunet.architecture import build_planned_unet
from nnunet_covid.trainers import CollaborativeTrainer, CollaborativeTrainerNoGeneralLoss

PLANS: dict[str, dict[str, Any]] = {
    "2D": {"stages": 4},
    "2D, residual": {"stages": 4, "residual": True},
    "3D": {"dims": 3, "stages": 3, "patch": [16] * 3},
    "3D, anisotropic": {
        "dims": 3,
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "kernels": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
        "patch": [4, 16, 24],
    },
    "3D, residual": {"dims": 3, "stages": 3, "patch": [16] * 3, "residual": True},
}


def build(kind: type = CollaborativeTrainer, *, channels: int = 1, deep: bool = False, **plans: Any) -> Any:
    manager = PlansManager(planned.plans(**plans))
    name = "3d_fullres" if plans.get("dims") == 3 else "2d"
    torch.manual_seed(0)
    return kind.build_network_architecture(manager, manager.get_configuration(name), channels, 2, deep)


def image(plans: dict[str, Any], batch: int = 2, channels: int = 1) -> torch.Tensor:
    size = plans.get("patch") or [32, 32]
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("plans", PLANS.values(), ids=PLANS)
def test_any_plan_gives_logits_of_the_image_and_features_of_the_deepest_stage(plans: dict[str, Any]) -> None:
    network = build(deep=True, **plans)
    x, other = image(plans), image(plans, 3)
    maps, features = network(x, other, None, True)
    assert maps[0].shape == (2, 2, *x.shape[2:])
    assert len(maps) == len(network.encoder.output_channels) - 1
    deepest = network.encoder(x)[-1].shape
    assert features.target_covid.shape == features.general_covid.shape == deepest
    assert features.general_other.shape == (3, *deepest[1:])
    assert network.decoder.transpconvs[0].in_channels == 2 * deepest[1]


def test_the_forward_pass_is_two_encoders_and_a_decoder_with_the_targets_skips() -> None:
    network = build(stages=3).eval()
    x, other, unlabelled = (image({}, n) for n in (2, 3, 4))
    skips, general = network.encoder(x), network.general_encoder(x)[-1]
    up = network.decoder.transpconvs[0](torch.cat((skips[2], general), 1))
    up = network.decoder.stages[0](torch.cat((up, skips[1]), 1))
    up = network.decoder.transpconvs[1](up)
    up = network.decoder.stages[1](torch.cat((up, skips[0]), 1))
    expected = network.decoder.seg_layers[1](up)
    torch.testing.assert_close(network(x), expected)
    logits, features = network(x, other, unlabelled, True)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(features.general_other, network.general_encoder(other)[-1])
    torch.testing.assert_close(features.general_covid[2:], network.general_encoder(unlabelled)[-1])
    torch.testing.assert_close(features.target_covid[2:], network.encoder(unlabelled)[-1])
    torch.testing.assert_close(features.target_covid[:2], skips[2])


def test_no_image_passes_an_encoder_twice() -> None:
    network = build(stages=3)
    seen: list[tuple[str, int]] = []
    for name in ("encoder", "general_encoder", "decoder"):
        getattr(network, name).register_forward_pre_hook(
            lambda module, args, name=name: seen.append((name, len(args[0][0] if name == "decoder" else args[0])))
        )
    network(image({}, 2), image({}, 3), image({}, 4), True)
    assert seen == [("encoder", 6), ("general_encoder", 9), ("decoder", 2)]
    seen.clear()
    network(image({}, 2))
    assert seen == [("encoder", 2), ("general_encoder", 2), ("decoder", 2)]


def test_every_weight_stands_once_in_the_state_and_the_new_layer_is_initialised() -> None:
    network = build(stages=3)
    assert not any(key.startswith("decoder.encoder") for key in network.state_dict())
    widened = network.decoder.transpconvs[0]
    assert widened.bias.abs().max() == 0
    fan = widened.weight.shape[1] * 4  # as torch counts it for a transposed convolution
    assert widened.weight.std().item() == pytest.approx((2 / (1 + 1e-4) / fan) ** 0.5, rel=0.1)


def test_the_encoders_start_from_different_weights() -> None:
    network = build(stages=3)
    pairs = zip(network.encoder.parameters(), network.general_encoder.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_general_encoder_that_does_not_learn_keeps_no_graph() -> None:
    network = build(CollaborativeTrainerNoGeneralLoss, stages=3)
    _, features = network(image({}), None, None, True)
    assert not any(p.requires_grad for p in network.general_encoder.parameters())
    assert features.general_covid.grad_fn is None
    assert features.target_covid.grad_fn is not None


def test_in_a_cascade_the_general_encoder_sees_the_image_alone() -> None:
    network = build(stages=3, channels=3)  # one image, labels of the previous stage in two further channels
    x = image({}, channels=3)
    changed = x.clone()
    changed[:, 1:] += 1
    features = [network(i, None, None, True)[1] for i in (x, changed)]
    torch.testing.assert_close(features[0].general_covid, features[1].general_covid)
    assert not torch.allclose(features[0].target_covid, features[1].target_covid)


def test_a_decoder_without_transposed_convolutions_is_refused() -> None:
    manager = PlansManager(planned.plans(stages=3))
    unet: Any = build_planned_unet(manager.get_configuration("2d"), 1, 2)
    unet.decoder.transpconvs = None
    with pytest.raises(ValueError, match="no transposed convolutions"):
        CollaborativeUNet(unet, unet.encoder, general_channels=1)
