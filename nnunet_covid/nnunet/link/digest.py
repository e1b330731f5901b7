"""What of a plans file decides how an image is pre-processed, as one short text that can be compared."""

from __future__ import annotations

import hashlib
import json

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

CONFIGURATION_KEYS = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
PLANS_KEYS = ("transpose_forward", "foreground_intensity_properties_per_channel")


def preprocessing_digest(plans: PlansManager, configuration: str) -> str:
    """Equal for two configurations exactly if they pre-process alike.

    Patch and batch size do not count: a configuration that inherits another's data shares its link.
    """
    chosen = plans.get_configuration(configuration)
    decisive = {key: chosen.configuration.get(key) for key in CONFIGURATION_KEYS}
    decisive["dimensions"] = len(chosen.patch_size)
    decisive.update({key: plans.plans.get(key) for key in PLANS_KEYS})
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
