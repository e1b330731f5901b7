"""A trained model's folder and the plans that stand in it, as nnU-Net writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.dataset_json import IMAGES, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of
from nnunet_covid.nnunet.plans import fault_of_plans

FOLD = re.compile("fold_(0|[1-9][0-9]*|all)")
"""A folder of nnU-Net's; others are copies that somebody has put aside, such as ``fold_0_old``."""


def fold_folders(model: Path, file: str = "") -> list[Path]:
    """Folders of a model's folds that hold a file (or folder) of this name, by number; ``fold_all`` comes last."""
    found = [path for path in model.glob("fold_*") if FOLD.fullmatch(path.name) and (path / file).exists()]
    return sorted(found, key=lambda path: (path.name == "fold_all", len(path.name), path.name))


def training_command(dataset: str, model: str, fold: str, *flags: str) -> str:
    """The command that trains a fold of a model, given the name of its folder, or with ``--val`` validates it."""
    trainer, plans, configuration = (*model.split("__"), "PLANS", "CONFIGURATION")[:3]
    named = () if plans == "nnUNetPlans" else ("-p", plans)
    return " ".join(["nnUNetv2_train", dataset, configuration, fold, "-tr", trainer, *named, *flags])


def require_trained_model(model: Path) -> None:
    """Is this a folder of a trained model, as nnU-Net writes it?

    Raises:
        UserError: If not.
    """
    if not model.is_dir():
        raise UserError(
            f"{model} is no folder; give a trained model, RESULTS/DATASET/TRAINER__PLANS__CONFIGURATION{_near(model)}"
        )
    for name in ("plans.json", "dataset.json"):
        if not (model / name).is_file():
            raise UserError(
                f"{model} is no trained model: it has no {name}; the folder is RESULTS/DATASET/TRAINER__PLANS__CONFIG"
                f"{_near(model)}"
            )
    read_plans(model / "plans.json")
    read_dataset_json(model / "dataset.json", needed=IMAGES)


def _near(folder: Path) -> str:
    """The trained models above, in and beside a folder that is none, for the end of a message; empty without any."""
    places = {folder.parent.absolute(), *folder.absolute().glob("*__*"), *folder.parent.absolute().glob("*__*")}
    names = {place.name for place in places - {folder.absolute()} if (place / "plans.json").is_file()}
    return f"; near it there are {some_of(names)}" if names else ""


def read_plans(path: Path) -> PlansManager:
    """The plans that ``nnUNetv2_plan_experiment`` has written.

    Raises:
        UserError: If the file is damaged or holds something else.
    """
    try:
        plans = json.loads(path.read_text(encoding="utf-8"))
        fault = fault_of_plans(plans)
    except (OSError, ValueError, RecursionError) as e:
        raise UserError(f"{path} is damaged or holds no plans; copy it again, or plan the data set again") from e
    if fault:
        raise UserError(f"{path} is damaged or holds no plans, {fault}; copy it again, or plan the data set again")
    return PlansManager(plans)
