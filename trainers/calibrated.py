"""``TRAINER_calibrated``: what a checkpoint of ``nnunet-covid calibrate`` names, for prediction only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

from torch import nn

from nnunet_covid.calibration.checkpoints import SUFFIX, with_calibration
from nnunet_covid.trainers.base import stop_training
from nnunet_covid.trainers.on_demand import found_by_nnunet


def calibrated_trainer(name: str, find_ours: Callable[[str], type | None]) -> type | None:
    """The class behind ``TRAINER_calibrated``; ``None`` if there is no such trainer, ours, nnU-Net's or the user's.

    Its networks scale and shift their logits by the calibration that comes with their weights; it cannot be trained.

    Args:
        name: With its suffix.
        find_ours: Gives one of our trainers, or ``None``.
    """
    found = find_ours(name.removesuffix(SUFFIX)) or found_by_nnunet(name.removesuffix(SUFFIX))
    if found is None:
        return None
    base: Any = found

    @functools.wraps(base.build_network_architecture)  # nnU-Net looks at the names of its parameters
    def build_network_architecture(*args: Any, **kwargs: Any) -> nn.Module:
        return with_calibration(base.build_network_architecture(*args, **kwargs))

    def __init__(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        stop_training(f"{name} only predicts: train, continue and validate with -tr {base.__name__}")

    return type(
        name,
        (base,),
        {
            "__init__": __init__,
            "__doc__": base.__doc__,
            "__module__": "nnunet_covid.trainers",
            "build_network_architecture": staticmethod(build_network_architecture),
        },
    )
