"""Trainers that are not written down: ``InfNetTrainer_30epochs``, ``nnUNetTrainerDA5_20epochs_50its_seed1`` and so on.

A length or a seed goes with every trainer that nnU-Net finds: ours, nnU-Net's variants, and users' own.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from nnunet_covid.nnunet.trainer_names import SUFFIXES

RANKS_APART = 10_000
"""Between the seeds of the processes of a multi-GPU training, which must not draw the same batches."""
EPOCHS_APART = 1_000_003
"""Between the seeds of the epochs of one process."""
ITERATIONS_PER_VALIDATION_ITERATION = 5
"""nnU-Net: 250 training and 50 validation iterations per epoch."""


@cache
def found_by_nnunet(name: str) -> type | None:
    """A trainer of nnU-Net, or one in a folder of ``nnUNet_extTrainer``; ``None`` if there is none."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return None


@cache
def trainer_of_length(name: str, find_base: Callable[[str], type | None]) -> type | None:
    """The class behind ``BASE[_consistency][_Nepochs][_Mits][_seedS][_pseudoNAME]``, always the same, or ``None``.

    ``_consistency`` is :class:`nnunet_covid.trainers.consistency.Consistency` in front of the base.
    A number of iterations sets nnU-Net's ``num_iterations_per_epoch`` and a fifth of it for validation. A seed makes
    runs repeatable, continued ones too, where nnU-Net's own augmentation is: on the CPU with ``nnUNet_n_proc_DA=0``.
    ``_pseudoNAME`` names a result of ``nnunet-covid pseudo-label``: it predicts and validates, but training it is that
    command's.

    Args:
        name: The name as it stands behind ``-tr``.
        find_base: Gives the class of a name without suffix, or ``None``.
    """
    match = SUFFIXES.match(name)
    if match is None or match["base"] == name or trainer_of_length(match["base"], find_base):
        return None  # no suffix, or suffixes in another order
    base = find_base(match["base"])
    numbers = {k: int(v) for k in ("epochs", "its", "seed") if (v := match[k]) is not None}
    if base is None or numbers.get("epochs") == 0 or numbers.get("its") == 0:
        return None
    if match["consistency"]:
        without = f"{match['base']}_consistency"
        if name == without:
            return _consistent(name, base)
        base = trainer_of_length(without, find_base)

    def __init__(
        self: Any,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        base.__init__(self, plans, configuration, fold, dataset_json, device)  # type: ignore[misc]
        if "epochs" in numbers:
            self.num_epochs = numbers["epochs"]
        if "its" in numbers:
            self.num_iterations_per_epoch = numbers["its"]
            self.num_val_iterations_per_epoch = max(1, numbers["its"] // ITERATIONS_PER_VALIDATION_ITERATION)
        if "seed" in numbers:
            _seed_everything(numbers["seed"] + RANKS_APART * self.local_rank)

    return type(
        name,
        (base,),
        {
            **({"run_training": _refuse_to_train} if match["tag"] else {}),
            **(_repeatable(base, numbers["seed"]) if "seed" in numbers else {}),
            "__init__": __init__,
            "__module__": "nnunet_covid.trainers",
            "__qualname__": name,
            "__doc__": base.__doc__,
        },
    )


def _consistent(name: str, base: type) -> type:
    """The class behind ``BASE_consistency``."""
    from nnunet_covid.trainers.consistency import Consistency

    members = {
        "plain_name": base.__name__,
        "__module__": "nnunet_covid.trainers",
        "__qualname__": name,
        "__doc__": f"{base.__name__}, learning from unlabelled images too by consistency.",
    }
    return type(name, (Consistency, base), members)


def predicted_by(kind: type) -> str:
    """The name of the trainer that builds the network of a class with ``_consistency``.

    That is the plain trainer, unless a class of the user's own in front changes more than how unlabelled images are
    used, its encoder for one: then that class.
    """
    from nnunet_covid.trainers.consistency import Consistency

    in_front = kind.__mro__[: kind.__mro__.index(Consistency)]
    own = [one for one in in_front if one.__module__.partition(".")[0] != __name__.partition(".")[0]]
    changed = {name for one in own for name in vars(one) if not name.startswith("__")}
    plain: str = kind.plain_name  # type: ignore[attr-defined]
    return own[0].__name__ if changed - set(Consistency.__annotations__) else plain


def _repeatable(base: type, seed: int) -> dict[str, Any]:
    """What a seed changes of a trainer, beside its beginning."""

    def on_epoch_start(self: Any) -> None:
        # the numbers of an epoch are its own, so that a training continued from a checkpoint equals an undisturbed one
        if self.current_epoch:
            _seed_everything(seed + RANKS_APART * self.local_rank + EPOCHS_APART * self.current_epoch)
        base.on_epoch_start(self)  # type: ignore[attr-defined]

    def get_training_transforms(*args: Any, **kwargs: Any) -> Any:
        from nnunet_covid.nnunet.training import without_timing

        return without_timing(base.get_training_transforms(*args, **kwargs))  # type: ignore[attr-defined]

    return {"get_training_transforms": staticmethod(get_training_transforms), "on_epoch_start": on_epoch_start}


def _refuse_to_train(self: Any) -> None:
    """Trained by ``nnUNetv2_train`` it would hold no pseudo label, under a name that says it does."""
    from nnunet_covid.trainers.undisturbed import stop_training

    stop_training(f"{type(self).__name__} is trained by 'nnunet-covid pseudo-label'; with nnUNetv2_train use --val")


def _seed_everything(seed: int) -> None:
    from nnunet_covid.nnunet.training import seed_everything

    seed_everything(seed)
