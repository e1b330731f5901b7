"""Networks that nnU-Net has planned, for use as encoders."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from torch import nn


def build_planned_unet(
    configuration: ConfigurationManager, in_channels: int, num_heads: int, *, deep_supervision: bool = False
) -> nn.Module:
    """The U-Net of the plans, initialised as nnU-Net initialises it.

    Raises:
        ValueError: If the planned network has no encoder with stages, as PlainConvUNet and ResidualEncoderUNet have.
    """
    unet = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        in_channels,
        num_heads,
        allow_init=True,
        deep_supervision=deep_supervision,
    )
    if not (hasattr(unet, "encoder") and hasattr(unet.encoder, "stages")):
        msg = (
            f"the planned network {type(unet).__name__} has no encoder with stages: "
            "plan with nnU-Net's default or residual-encoder planner"
        )
        raise ValueError(msg)
    return unet


def truncated_encoder(encoder: Any, num_stages: int) -> nn.Module:
    """The same encoder, ending after ``num_stages`` stages: what is deeper is neither held nor computed."""
    encoder.stages = encoder.stages[:num_stages]
    encoder.output_channels = list(encoder.output_channels)[:num_stages]
    encoder.strides = list(encoder.strides)[:num_stages]
    encoder.kernel_sizes = list(encoder.kernel_sizes)[:num_stages]
    encoder.return_skips = True
    return encoder
