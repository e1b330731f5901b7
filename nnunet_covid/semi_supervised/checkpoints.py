"""The models of a run, known by the checksum of their weights, and the one of them that becomes the result."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from matplotlib import rc_context
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule

from nnunet_covid.files import replacing
from nnunet_covid.semi_supervised.experiment import Experiment, quiet


class Checkpoints:
    """A folder of nnU-Net's checkpoints, one per model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a model is."""
        return self.folder / f"{name}.pth"

    def save(self, name: str, trainer: nnUNetTrainer) -> None:
        """Write nnU-Net's own checkpoint of a trainer whose training has ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        trainer.disable_checkpointing = False
        trainer.current_epoch -= 1  # as nnU-Net does for its final checkpoint
        with replacing(self.path(name)) as unfinished:
            trainer.save_checkpoint(str(unfinished))
        trainer.current_epoch += 1
        trainer.disable_checkpointing = True

    def load(self, name: str, trainer: nnUNetTrainer) -> None:
        """Put the weights of a model into a trainer's network."""
        load_weights(self.path(name), trainer)

    def forget_but(self, keep: Iterable[str]) -> None:
        """Delete all others."""
        kept = {self.path(name) for name in keep}
        for path in self.folder.glob("*"):
            if path not in kept:
                path.unlink()


def load_weights(path: Path, trainer: nnUNetTrainer) -> None:
    """Put the weights of any checkpoint of nnU-Net's into a trainer's network."""
    checkpoint = torch.load(path, map_location=trainer.device, weights_only=False)
    _bare(trainer).load_state_dict(checkpoint["network_weights"])


def weights_checksum(trainer: nnUNetTrainer) -> str:
    """SHA-256 of a network's weights by name; a checkpoint file also holds the time of day."""
    weights = _bare(trainer).state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _bare(trainer: nnUNetTrainer) -> nn.Module:
    """The network without the wrapper of compilation."""
    network = trainer.network
    return network._orig_mod if isinstance(network, OptimizedModule) else network


def publish_model(experiment: Experiment, trainer: nnUNetTrainer, checkpoint: Path) -> dict[str, Any]:
    """Write what ``nnUNetv2_predict``, ``nnUNetv2_find_best_configuration`` and the zip export look for.

    Args:
        experiment: Where the model goes.
        trainer: With the weights of the checkpoint; its output folder is the model's.
        checkpoint: The model.

    Returns:
        nnU-Net's mean foreground Dice of the validation cases, at full resolution.
    """
    folder, fold = experiment.model_folder, experiment.fold_folder
    fold.mkdir(parents=True, exist_ok=True)
    save_json(trainer.plans_manager.plans, str(folder / "plans.json"), sort_keys=False)
    save_json(experiment.dataset_json, str(folder / "dataset.json"), sort_keys=False)
    shutil.copyfile(experiment.data_folder / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
    with replacing(fold / "checkpoint_final.pth") as unfinished:
        shutil.copyfile(checkpoint, unfinished)
    _plot(checkpoint, fold)
    with quiet(experiment.log):
        trainer.perform_actual_validation()
    summary = load_json(str(fold / "validation" / "summary.json"))
    return {"dice": summary["foreground_mean"]["Dice"]}


def _plot(checkpoint: Path, fold: Path) -> None:
    """nnU-Net's own picture of the last training, which its zip export wants."""
    logger = LocalLogger()
    logger.load_checkpoint(torch.load(checkpoint, map_location="cpu", weights_only=False)["logging"])
    if logger.get_value("train_losses", None):
        with rc_context():  # what it sets would stay set for all pictures after it
            logger.plot_progress_png(str(fold))
