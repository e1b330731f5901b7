"""A calibration in nnU-Net's checkpoint files, where prediction sees it and training does not.

A checkpoint names the trainer whose ``build_network_architecture`` prediction calls. Training goes by ``-tr`` instead,
for ``--c``, ``--val`` and ``-pretrained_weights`` alike, and reads the weights only. So a calibrated checkpoint names
``TRAINER_calibrated``, which builds the same network with a hook that scales and shifts its result
(``nnunet_covid.trainers.calibrated``), and its weights stay what they were to the last bit. The numbers travel
with the weights as metadata of the state dict, in which torch keeps versions of layers: they belong to the tensors
that prediction loads, add no key to them, and are dropped by whoever copies the tensors alone. A calibrated network
refuses weights that come without them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_covid.calibration.logits import Calibration
from nnunet_covid.errors import UserError
from nnunet_covid.files import replacing

SUFFIX = "_calibrated"
"""Of the trainer that a calibrated checkpoint names."""
KEY = "nnunet_covid_calibration"
"""In the metadata of the whole network."""


def with_calibration(network: nn.Module) -> nn.Module:
    """Let a network calibrate its result with what comes with its weights.

    Loading weights without a calibration is an error of ``load_state_dict``.
    """
    # the public name of this function came with torch 2.5
    network._register_load_state_dict_pre_hook(_take_calibration, with_module=True)
    network.register_forward_hook(_calibrate)
    return network


def _take_calibration(
    network: Any,
    weights: Any,
    prefix: str,
    metadata: dict[str, Any],
    strict: Any,
    missing: Any,
    extra: Any,
    errors: Any,
) -> None:
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

    def write(checkpoint: dict[str, Any]) -> None:
        checkpoint["trainer_name"] = checkpoint["trainer_name"].removesuffix(SUFFIX) + SUFFIX
        _set_metadata(checkpoint, calibration.to_json())

    _rewrite(checkpoints, write)


def remove_calibration(checkpoints: Sequence[Path]) -> list[Path]:
    """Undo :func:`write_calibration`; returns the checkpoints that were calibrated.

    Raises:
        UserError: As :func:`write_calibration`.
    """
    calibrated = [path for path in checkpoints if _load(path)["trainer_name"].endswith(SUFFIX)]

    def remove(checkpoint: dict[str, Any]) -> None:
        checkpoint["trainer_name"] = checkpoint["trainer_name"].removesuffix(SUFFIX)
        _set_metadata(checkpoint, None)

    _rewrite(calibrated, remove)
    return calibrated


def _set_metadata(checkpoint: dict[str, Any], content: dict[str, Any] | None) -> None:
    """Write into the metadata of the whole network; the tensors are the same objects."""
    weights: Any = OrderedDict(checkpoint["network_weights"])
    metadata = OrderedDict(getattr(checkpoint["network_weights"], "_metadata", {}))
    own = {name: value for name, value in metadata.get("", {}).items() if name != KEY}
    metadata[""] = own if content is None else {**own, KEY: content}
    weights._metadata = metadata
    checkpoint["network_weights"] = weights


def _rewrite(checkpoints: Sequence[Path], change: Callable[[dict[str, Any]], None]) -> None:
    try:
        with ExitStack() as renamed_at_the_end:
            for path in checkpoints:
                checkpoint = _load(path)
                change(checkpoint)
                with renamed_at_the_end.enter_context(replacing(path)).open("wb") as stream:
                    torch.save(checkpoint, stream)
    except (OSError, RuntimeError) as e:  # a full disk is a RuntimeError of torch
        raise UserError(f"{checkpoints[0].parent.parent}: checkpoints cannot be written ({e})") from e


def _load(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as e:  # torch and pickle have many
        raise UserError(f"{path} cannot be read ({e or type(e).__name__})") from e
