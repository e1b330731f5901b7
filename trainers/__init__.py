"""nnU-Net trainers of this project. Each wires a network, a loss and settings together and holds no mathematics.

Names resolve on demand, so that importing this package costs nothing: ``nnunet_covid.trainers.InfNetTrainer``,
and with any length ``nnunet_covid.trainers.InfNetTrainer_30epochs_50its``.
"""

from __future__ import annotations

import importlib

from nnunet_covid.nnunet.trainer_names import TRAINERS


def _find_written(name: str) -> type | None:
    """A trainer that is written down: ours, nnU-Net's, or a user's own that nnU-Net finds."""
    if name in TRAINERS:
        return getattr(importlib.import_module(f"{__name__}.{TRAINERS[name]}"), name)
    if name == "nnUNetTrainer":  # by far the most frequent, and nnU-Net imports many others before it finds this one
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        return nnUNetTrainer
    from nnunet_covid.trainers.on_demand import found_by_nnunet

    return found_by_nnunet(name)


def _find_ours(name: str) -> type | None:
    return getattr(importlib.import_module(__name__), name, None)


def __getattr__(name: str) -> type:
    if name.endswith("_calibrated"):
        from nnunet_covid.trainers.calibrated import calibrated_trainer

        found = calibrated_trainer(name, _find_ours)
        if found is not None:
            return found
    elif not name.startswith("__"):
        from nnunet_covid.trainers.on_demand import trainer_of_length

        found = _find_written(name) if name in TRAINERS else trainer_of_length(name, _find_written)
        if found is not None:
            return found
    msg = f"module {__name__!r} has no trainer {name!r}"
    raise AttributeError(msg)


def __dir__() -> list[str]:
    return sorted([*globals(), *TRAINERS])
