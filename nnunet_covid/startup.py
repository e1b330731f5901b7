"""What the registered start-up line runs in every Python process: quick, and it touches one variable only."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from pathlib import Path

TRAINERS_FOLDER = Path(__file__).parent / "nnunet" / "external_trainers"
"""The folder for ``nnUNet_extTrainer``: one module that hands out our trainers."""
VARIABLE = "nnUNet_extTrainer"


def offer_trainers(environment: MutableMapping[str, str] = os.environ) -> None:
    """Append the trainers' folder to ``nnUNet_extTrainer``, once, keeping what is there."""
    if not is_offered(environment):
        present = [p for p in environment.get(VARIABLE, "").split(os.pathsep) if p]
        environment[VARIABLE] = os.pathsep.join([*present, str(TRAINERS_FOLDER)])


def is_offered(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the trainers' folder stands in ``nnUNet_extTrainer``."""
    return str(TRAINERS_FOLDER) in environment.get(VARIABLE, "").split(os.pathsep)
