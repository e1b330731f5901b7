"""A configuration for training on a CPU, derived from nnU-Net's 2d plan: half the features at every stage.

nnU-Net's way to do so (its page "explanation of plans files"): a further entry in the plans file that inherits from
another and replaces what differs. The pre-processed data are shared.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from nnunet_covid.files import write_text


def add_light_configuration(plans_file: Path, base: str = "2d", name: str = "2d_light") -> None:
    """Add configuration ``name`` to a plans file, or put it right if it is there."""
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    architecture = copy.deepcopy(plans["configurations"][base]["architecture"])
    features = architecture["arch_kwargs"]["features_per_stage"]
    architecture["arch_kwargs"]["features_per_stage"] = [max(n // 2, 8) for n in features]
    plans["configurations"][name] = {"inherits_from": base, "architecture": architecture}
    write_text(plans_file, json.dumps(plans, indent=4) + "\n")
