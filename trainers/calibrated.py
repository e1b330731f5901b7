"""``TRAINER_calibrated`` and the checkpoints of ``nnunet-covid calibrate`` that name it, for prediction only.

A checkpoint names the trainer whose ``build_network_architecture`` prediction calls. Training goes by ``-tr`` instead,
for ``--c``, ``--val`` and ``-pretrained_weights`` alike, and reads the weights only: it sees no calibration. So a
calibrated checkpoint names ``TRAINER_calibrated``, which builds the same network with a hook that scales and shifts its
result, and its weights stay what they are to the last bit. The numbers travel with the weights as metadata of the state
dict, in which torch keeps versions of layers: they belong to the tensors that prediction loads, add no key to them, and
are dropped by whoever copies the tensors alone. A calibrated network refuses weights that come without them.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.errors import UserError
from nnunet_covid.files import replacing
from nnunet_covid.trainers.base import stop_training
from nnunet_covid.trainers.on_demand import found_by_nnunet

SUFFIX = "_calibrated"
"""Of the trainer that a calibrated checkpoint names."""
KEY = "nnunet_covid_calibration"
"""In the metadata of the whole network."""


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

    Loading weights without a calibration is an error of ``load_state_dict``.
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
    return network.calibration.of_logits(logits)


def read_calibration(path: Path) -> Calibration | None:
    """What a checkpoint holds."""
    weights = _load(path)["network_weights"]
    found = getattr(weights, "_metadata", {}).get("", {}).get(KEY)
    return None if found is None else Calibration.from_json(found)


def write_calibration(checkpoints: Sequence[Path], calibration: Calibration) -> None:
    """Put one calibration into all checkpoints, in place of an earlier one.

    All are written under temporary names before the first is renamed.

    Raises:
        UserError: If one cannot be read or written; then nothing has changed.
    """
    _rewrite(checkpoints, SUFFIX, {KEY: calibration.to_json()})


def remove_calibration(checkpoints: Sequence[Path]) -> list[Path]:
    """Undo :func:`write_calibration`; returns the checkpoints that were calibrated.

    Raises:
        UserError: As :func:`write_calibration`.
    """
    calibrated = [path for path in checkpoints if _load(path)["trainer_name"].endswith(SUFFIX)]
    _rewrite(calibrated, "", {})
    return calibrated


def _rewrite(checkpoints: Sequence[Path], suffix: str, entry: dict[str, Any]) -> None:
    """Change the trainer's name and the metadata of the whole network; the tensors are the same objects."""
    try:
        with ExitStack() as renamed_at_the_end:
            for path in checkpoints:
                checkpoint = _load(path)
                checkpoint["trainer_name"] = checkpoint["trainer_name"].removesuffix(SUFFIX) + suffix
                weights: Any = OrderedDict(checkpoint["network_weights"])
                weights._metadata = OrderedDict(getattr(checkpoint["network_weights"], "_metadata", {}))
                others = {name: value for name, value in weights._metadata.get("", {}).items() if name != KEY}
                weights._metadata[""] = others | entry
                checkpoint["network_weights"] = weights
                with renamed_at_the_end.enter_context(replacing(path)).open("wb") as stream:
                    torch.save(checkpoint, stream)
    except (OSError, RuntimeError) as e:  # a full disk is a RuntimeError of torch
        raise UserError(f"{checkpoints[0].parent.parent}: checkpoints cannot be written ({e})") from e


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as e:  # torch and pickle have many
        raise UserError(f"{path} cannot be read ({e or type(e).__name__})") from e
