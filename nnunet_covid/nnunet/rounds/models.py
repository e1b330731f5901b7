"""The models of a run: written under a temporary name, known by the checksum of their weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch._dynamo import OptimizedModule


class Models:
    """A folder of checkpoints, one per name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a model is."""
        return self.folder / f"{name}.pth"

    def save(self, name: str, trainer: nnUNetTrainer) -> None:
        """Write nnU-Net's own checkpoint of a trainer whose training has ended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path(name).with_suffix(".tmp")
        trainer.disable_checkpointing = False
        trainer.current_epoch -= 1  # as nnU-Net does for its final checkpoint
        trainer.save_checkpoint(str(temporary))
        trainer.current_epoch += 1
        trainer.disable_checkpointing = True
        temporary.replace(self.path(name))

    def weights(self, name: str, device: torch.device) -> dict[str, torch.Tensor]:
        """The weights of a model."""
        return load_checkpoint(self.path(name), device)["network_weights"]

    def forget_but(self, keep: Iterable[str]) -> None:
        """Delete all others."""
        kept = {self.path(name) for name in keep}
        for path in self.folder.glob("*"):
            if path not in kept:
                path.unlink()


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """nnU-Net's checkpoint file."""
    return torch.load(path, map_location=device, weights_only=False)


def weights_checksum(trainer: nnUNetTrainer) -> str:
    """SHA-256 of a network's weights by name; a checkpoint file also holds the time of day."""
    network = trainer.network
    weights: Mapping[str, torch.Tensor] = (
        network._orig_mod if isinstance(network, OptimizedModule) else network
    ).state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
