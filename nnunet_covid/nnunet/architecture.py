"""The networks that nnU-Net has planned, as this project's networks use them: built, cut, loaded, and told from plans.

The networks of the papers stand in :mod:`nnunet_covid.networks`; what a training does with them in
:mod:`nnunet_covid.nnunet.training`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.errors import UserError

KEY = "nnunet_covid"
"""Our entry in the copy of the plans that a model folder keeps."""
PREFIXES = ("general_encoder.", "encoder.")
"""Where a checkpoint may hold the encoder that is wanted: our two-encoder network first, then any planned U-Net."""


def build_planned_unet(
    configuration: ConfigurationManager,
    in_channels: int,
    num_heads: int,
    *,
    deep_supervision: bool = False,
    stages: int | None = None,
) -> nn.Module:
    """The U-Net of the plans, initialised as nnU-Net initialises it.

    Args:
        stages: Leave out the planned stages that are deeper than this many.

    Raises:
        ValueError: If the planned network has no encoder with stages, as PlainConvUNet and ResidualEncoderUNet have.
    """
    unet = get_network_from_plans(
        configuration.network_arch_class_name,
        _first_stages(configuration.network_arch_init_kwargs, stages),
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


def _first_stages(arguments: dict[str, Any], stages: int | None) -> dict[str, Any]:
    """Arguments of a planned network for its first stages alone; lists of the decoder run from deep to shallow."""
    planned = arguments.get("n_stages", 0)
    if stages is None or stages >= planned:
        return arguments
    kept = {**arguments, "n_stages": stages}
    for name, value in arguments.items():
        if isinstance(value, (list, tuple)) and len(value) == planned:
            kept[name] = value[:stages]
        elif isinstance(value, (list, tuple)) and len(value) == planned - 1 and "decoder" in name:
            kept[name] = value[planned - stages :]
    return kept


def planned_in_plane_strides(configuration: ConfigurationManager) -> list[int]:
    """Cumulative stride of every planned stage, the larger of the last two axes."""
    strides = configuration.network_arch_init_kwargs.get("strides", ())
    pairs = [[stride] * 2 if isinstance(stride, int) else stride[-2:] for stride in strides]
    return np.cumprod(pairs, axis=0).max(axis=1).tolist() if pairs else []


def planned_edge_axes(configuration: ConfigurationManager) -> tuple[bool, ...]:
    """The axes along which a voxel has neighbours near enough to be an edge: those of the first planned kernel."""
    dims = len(configuration.patch_size)
    kernels = configuration.network_arch_init_kwargs.get("kernel_sizes") or [3]
    first = kernels[0] if isinstance(kernels, (list, tuple)) else kernels
    sizes = [first] * dims if isinstance(first, int) else first
    return tuple(size > 1 for size in sizes)


def truncated_encoder(encoder: Any, num_stages: int) -> nn.Module:
    """The same encoder, ending after ``num_stages`` stages: what is deeper is neither held nor computed."""
    encoder.stages = encoder.stages[:num_stages]
    encoder.output_channels = list(encoder.output_channels)[:num_stages]
    encoder.strides = list(encoder.strides)[:num_stages]
    encoder.kernel_sizes = list(encoder.kernel_sizes)[:num_stages]
    encoder.return_skips = True
    return encoder


def load_encoder_checkpoint(encoder: nn.Module, path: Path) -> None:
    """Load weights into a planned encoder, in place.

    Args:
        path: Checkpoint of an nnU-Net training with the same plans.

    Raises:
        ValueError: If it is no nnU-Net checkpoint or its encoder is another one.
    """
    try:
        weights = read_checkpoint(path)["network_weights"]
    except UserError as e:
        raise ValueError(str(e)) from e
    found = next((p for p in PREFIXES if any(key.startswith(p) for key in weights)), "encoder.")
    taken = {key.removeprefix(found): value for key, value in weights.items() if key.startswith(found)}
    own = encoder.state_dict()
    wrong = [key for key, value in own.items() if key not in taken or taken[key].shape != value.shape]
    if wrong or len(taken) != len(own):
        first = f", first '{wrong[0]}'" if wrong else ""
        msg = (
            f"the encoder in {path} is not the planned one ({len(wrong)} of {len(own)} tensors differ{first}): "
            "train it with these plans, moved to the other data set"
        )
        raise ValueError(msg)
    encoder.load_state_dict(taken)


def record_label_kind(plans: dict[str, Any], label_manager: LabelManager) -> None:
    """Write into the plans whether the model has region heads.

    At prediction nnU-Net builds a network from plans and a number of heads alone, and two heads may be two regions as
    well as background and one class. The plans are saved with the model, so the fact travels with it.
    """
    plans[KEY] = {"has_regions": bool(label_manager.has_regions)}


def has_background_head(plans_manager: PlansManager) -> bool:
    """Whether the first of the heads is the background of a softmax."""
    return not plans_manager.plans.get(KEY, {}).get("has_regions", False)
