"""Relation matrices kept during a training: mean over the steps of an epoch, one file per chosen epoch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, replacing
from nnunet_covid.nnunet.models import fold_folders

FOLDER = "relations"
KEPT = 6
"""Epochs of a training, at most."""
_FILE = re.compile(r"epoch_(\d+)\.npz")


@dataclass(frozen=True)
class RelationSnapshot:
    """Means over the steps of one epoch, each (C, C).

    Attributes:
        epoch: Counted from 0.
        general_covid, target_covid: Relations of COVID images in the two encoders.
        target_difference: Their absolute difference (Fig. 6).
        general_other: Relations of other diseases in the general encoder; ``None`` if it saw none.
        general_difference: Absolute difference of the general encoder's two (Fig. 5).
    """

    epoch: int
    general_covid: np.ndarray
    target_covid: np.ndarray
    target_difference: np.ndarray
    general_other: np.ndarray | None = None
    general_difference: np.ndarray | None = None


class SnapshotMean:
    """Adds up the matrices of an epoch where they are, so that a step waits for nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor] = {}
        self._steps = 0

    @torch.no_grad()
    def add(self, target_covid: torch.Tensor, general_covid: torch.Tensor, general_other: torch.Tensor | None) -> None:
        """Add the matrices (C, C) of one step."""
        found = {
            "general_covid": general_covid,
            "target_covid": target_covid,
            "target_difference": (general_covid - target_covid).abs(),
        }
        if general_other is not None:
            found |= {"general_other": general_other, "general_difference": (general_other - general_covid).abs()}
        for name, matrix in found.items():
            self._sums[name] = self._sums[name] + matrix if name in self._sums else matrix.detach().clone()
        self._steps += 1

    def snapshot(self, epoch: int) -> RelationSnapshot | None:
        """The means; ``None`` before the first step."""
        if not self._steps:
            return None
        means = {name: (total / self._steps).cpu().numpy() for name, total in self._sums.items()}
        return RelationSnapshot(epoch, **means)


def write_snapshot(fold_folder: Path, snapshot: RelationSnapshot) -> Path:
    """Write one snapshot into the folder of a fold, under a temporary name first."""
    path = fold_folder / FOLDER / f"epoch_{snapshot.epoch:04d}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    matrices = {name: value for name, value in vars(snapshot).items() if name != "epoch" and value is not None}
    with replacing(path) as unfinished:
        np.savez_compressed(unfinished, **matrices)  # type: ignore[arg-type]
    return path


def remove_snapshots(fold_folder: Path) -> None:
    """Delete those that an earlier training left in the folder of a fold: a new one may keep other epochs."""
    for path in files_in(fold_folder / FOLDER, ".npz"):
        path.unlink()


def read_snapshots(fold_folder: Path) -> list[RelationSnapshot]:
    """All snapshots of a fold, in the order of epochs.

    Raises:
        UserError: If there is none, or one cannot be read.
    """
    files = {int(m[1]): path for path in files_in(fold_folder / FOLDER, ".npz") if (m := _FILE.fullmatch(path.name))}
    if not files:
        raise UserError(
            f"{fold_folder / FOLDER} holds no snapshot; trainings with a relation loss write them, such as "
            "nnUNetv2_train … -tr CollaborativeTrainer"
        )
    snapshots = []
    for epoch, path in sorted(files.items()):
        try:
            with np.load(path, allow_pickle=False) as stored:
                known = [f.name for f in fields(RelationSnapshot) if f.name in stored.files]
                snapshots.append(RelationSnapshot(epoch, **{name: stored[name] for name in known}))
        except Exception as e:  # zipfile, zlib and numpy each have their own for damaged bytes
            raise UserError(f"{path} is no snapshot of relation matrices; remove it") from e
    return snapshots


def folds_of(model: Path, wanted: Sequence[str] | None = None) -> list[Path]:
    """Folders of the folds of a model, ``fold_0`` and so on, that hold snapshots or are asked for.

    Raises:
        UserError: If there is none.
    """
    if not model.is_dir():
        raise UserError(f"{model} is no folder; give the folder of a trained model, with fold_0 in it")
    if model.name.startswith("fold_") and wanted is None:
        return [model]
    if wanted:
        folders = [model / f"fold_{fold}" for fold in wanted]
        missing = [folder for folder in folders if not folder.is_dir()]
        if missing:
            raise UserError(f"{missing[0]} does not exist; choose other folds")
        return folders
    folders = fold_folders(model, FOLDER)
    if not folders:
        raise UserError(f"{model} has no fold_N/{FOLDER}; trainings with a relation loss keep matrices there")
    return folders
