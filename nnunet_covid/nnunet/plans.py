"""What this project reads from a plans dictionary and writes into the copy that a model folder keeps."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

KEY = "nnunet_covid"


def record_label_kind(plans: dict[str, Any], label_manager: LabelManager) -> None:
    """Write into the plans whether the model has region heads.

    At prediction nnU-Net builds a network from plans and a number of heads alone, and two heads may be two regions as
    well as background and one class. The plans are saved with the model, so the fact travels with it.
    """
    plans[KEY] = {"has_regions": bool(label_manager.has_regions)}


def has_background_head(plans_manager: PlansManager) -> bool:
    """Whether the first of the heads is the background of a softmax."""
    return not plans_manager.plans.get(KEY, {}).get("has_regions", False)
