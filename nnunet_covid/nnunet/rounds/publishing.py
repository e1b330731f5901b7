"""The result of a run as an ordinary model folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from matplotlib import rc_context
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_covid.nnunet.rounds.models import load_checkpoint
from nnunet_covid.nnunet.rounds.setting import Setting, quiet


def publish_model(setting: Setting, trainer: nnUNetTrainer, checkpoint: Path) -> dict[str, Any]:
    """Write what ``nnUNetv2_predict``, ``nnUNetv2_find_best_configuration`` and the zip export look for.

    Args:
        setting: Where the model goes.
        trainer: With the weights of the checkpoint; its output folder is the model's.
        checkpoint: The model.

    Returns:
        nnU-Net's mean foreground Dice of the validation cases, at full resolution.
    """
    folder, fold = setting.model_folder, setting.fold_folder
    fold.mkdir(parents=True, exist_ok=True)
    save_json(trainer.plans_manager.plans, str(folder / "plans.json"), sort_keys=False)
    save_json(setting.dataset_json, str(folder / "dataset.json"), sort_keys=False)
    shutil.copyfile(setting.data_folder / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
    temporary = fold / "checkpoint_final.tmp"
    shutil.copyfile(checkpoint, temporary)
    temporary.replace(fold / "checkpoint_final.pth")
    _plot(checkpoint, fold)
    with quiet(setting.report_folder / "training" / "nnunet_output.txt"):
        trainer.perform_actual_validation()
    summary = load_json(str(fold / "validation" / "summary.json"))
    return {"dice": summary["foreground_mean"]["Dice"]}


def _plot(checkpoint: Path, fold: Path) -> None:
    """nnU-Net's own picture of the last training, which its zip export wants."""
    logger = LocalLogger()
    logger.load_checkpoint(load_checkpoint(checkpoint, torch.device("cpu"))["logging"])
    if logger.get_value("train_losses", None):
        with rc_context():  # what it sets would stay set for all pictures after it
            logger.plot_progress_png(str(fold))
