"""Model folders as nnU-Net leaves them, with small networks at random weights: no training needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import planned
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid import trainers

RESAMPLING = {
    "resampling_fn_data": (False, 3),
    "resampling_fn_seg": (True, 1),
    "resampling_fn_probabilities": (False, 1),
}


def complete_plans(dataset_json: dict[str, Any], *, spacing: Sequence[float] | None = None, **shape: Any) -> dict:
    """Plans of :func:`planned.plans` with what prediction needs beside the network."""
    channels = len(dataset_json["channel_names"])
    plans = planned.plans(**shape)
    (configuration,) = plans["configurations"].values()
    configuration["spacing"] = list(spacing or configuration["spacing"])
    configuration["normalization_schemes"] = ["ZScoreNormalization"] * channels
    configuration["use_mask_for_norm"] = [False] * channels
    for name, (is_seg, order) in RESAMPLING.items():
        configuration[name] = "resample_data_or_seg_to_shape"
        kwargs = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
        configuration[f"{name}_kwargs"] = kwargs
    plans["foreground_intensity_properties_per_channel"] = {str(c): {} for c in range(channels)}
    return plans


def write_model(
    folder: Path,
    plans: dict[str, Any],
    dataset_json: dict[str, Any],
    *,
    trainer: str = "nnUNetTrainer",
    folds: Sequence[int] = (0,),
) -> Path:
    """Write the model folder of a trainer whose networks have random weights, another set for every fold."""
    (configuration,) = plans["configurations"]
    manager = PlansManager(plans)
    heads = manager.get_label_manager(dataset_json).num_segmentation_heads
    plans = {**plans, "nnunet_covid": {"has_regions": manager.get_label_manager(dataset_json).has_regions}}
    for fold in folds:
        torch.manual_seed(fold)
        network = _trainer_class(trainer).build_network_architecture(
            PlansManager(plans),
            manager.get_configuration(configuration),
            determine_num_input_channels(manager, configuration, dataset_json),
            heads,
            enable_deep_supervision=False,
        )
        dims = len(plans["configurations"][configuration]["patch_size"])
        checkpoint = {
            "network_weights": network.state_dict(),
            "trainer_name": trainer,
            "init_args": {"configuration": configuration},
            "inference_allowed_mirroring_axes": tuple(range(dims)),
        }
        (folder / f"fold_{fold}").mkdir(parents=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    (folder / "plans.json").write_text(json.dumps(plans), encoding="utf-8")
    (folder / "dataset.json").write_text(json.dumps(dataset_json), encoding="utf-8")
    return folder


def _trainer_class(name: str) -> type:
    if name.startswith("nnUNetTrainer"):
        return recursive_find_trainer_class_by_name(name)
    return getattr(trainers, name)
