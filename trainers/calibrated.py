"""``TRAINER_calibrated``: what a checkpoint of ``nnunet-covid calibrate`` names, for prediction only."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import nn

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.calibration.model_folder import KEY, SUFFIX
from nnunet_covid.trainers.on_demand import found_by_nnunet
from nnunet_covid.trainers.undisturbed import stop_training


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

    members = {
        "__init__": __init__,
        "__doc__": base.__doc__,
        "__module__": "nnunet_covid.trainers",
        "build_network_architecture": staticmethod(build_network_architecture),
    }
    return type(name, (base,), members)


def with_calibration(network: nn.Module) -> nn.Module:
    """Let a network calibrate its result with what comes with its weights.

    Loading weights without a calibration is an error of ``load_state_dict``. Where ``network.uncalibrated`` is set, the
    result stays as it was in training and validation.
    """
    # the public name of this function came with torch 2.5
    network._register_load_state_dict_pre_hook(_take_calibration, with_module=True)
    network.register_forward_hook(_calibrate)
    return network


def _take_calibration(network: Any, weights: Any, prefix: str, metadata: dict[str, Any], *more: Any) -> None:
    *_, errors = more
    if KEY in metadata:
        network.calibration = Calibration.from_json(metadata[KEY])
    else:
        errors.append("these weights hold no calibration: calibrate all folds with 'nnunet-covid calibrate'")


def _calibrate(network: Any, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
    return logits if getattr(network, "uncalibrated", False) else network.calibration.of_logits(logits)
