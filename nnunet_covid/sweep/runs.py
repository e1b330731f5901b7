"""One run of a sweep: what it is, which command does it, where nnU-Net writes it, and whether it is finished.

A run is a process of its own: nnU-Net's training, pseudo-label rounds, a pre-training, or the planning and
pre-processing that others wait for. What is finished is read from the files that these commands write, never from a
record of the sweep, so that runs made without a sweep count too.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nnunet_covid.files import read_json
from nnunet_covid.sweep.preparation import Preparation

Kind = Literal["prepare", "pretrain", "train", "pseudo-label"]
FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"
SUMMARY = "validation/summary.json"


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        kind: What it does.
        dataset: Full name.
        configuration: One of the plans; empty for a preparation, which has several.
        trainer: With its length and seed; empty for a preparation.
        fold: As behind ``nnUNetv2_train``; empty for a preparation and a pre-training.
        plans: Name of the plans.
        device: As nnU-Net's commands call it.
        probabilities: Keep the probability maps of the validation, for the map-based metrics of the table.
        images: Unlabelled images, for rounds and pre-trainings.
        name: Of the result of rounds or a pre-training.
        start: Name of the pre-training, or a checkpoint, that a training starts from.
        options: Further words of the command; of a preparation the JSON text that says what to prepare.
        needs: Keys of runs that must be finished before.
    """

    kind: Kind
    dataset: str
    configuration: str = ""
    trainer: str = ""
    fold: str = ""
    plans: str = "nnUNetPlans"
    device: str = "cuda"
    probabilities: bool = True
    images: str = ""
    name: str = ""
    start: str = ""
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=(), compare=False)

    @property
    def results(self) -> str:
        """Below ``nnUNet_results``, where ``Dataset…`` of this run lies; nnU-Net's names do not tell a start apart."""
        return f"pretrained_{Path(self.start).stem}" if self.start else ""

    @property
    def label(self) -> str:
        """The name of the model: what stands in tables."""
        return f"{self.trainer}_pseudo{self.name}" if self.kind == "pseudo-label" else self.trainer

    @property
    def key(self) -> str:
        """The folder of the result below ``nnUNet_results``, which no two different runs share."""
        if self.kind == "prepare":
            return f"{self.dataset}/prepare__{self.plans}"
        model = f"{self.label}__{self.plans}__{self.configuration}"
        if self.kind == "pretrain":
            return f"{self.dataset}/pretraining/{model}/{self.name}"
        return "/".join(part for part in (self.results, self.dataset, model, f"fold_{self.fold}") if part)

    def checkpoint(self, results: Path) -> Path:
        """What a pre-training ends with."""
        return results / self.key / FINAL

    def finished(self, results: Path, preprocessed: Path) -> bool:
        """Whether nothing is left to do."""
        folder = results / self.key
        if self.kind == "prepare":
            return Preparation(**json.loads(self.options[0])).finished(preprocessed)
        if self.kind == "pretrain":
            return is_whole_checkpoint(self.checkpoint(results))
        return is_whole_checkpoint(folder / FINAL) and read_json(folder / SUMMARY) is not None

    def command(self, results: Path, start: Path | None = None) -> tuple[str, ...]:
        """The console command and its arguments, from where an earlier process of it stopped.

        Args:
            results: ``nnUNet_results``.
            start: The checkpoint behind :attr:`start`.
        """
        where = (self.dataset, self.configuration)
        common = ("-tr", self.trainer, "-p", self.plans, "-device", self.device)
        if self.kind == "prepare":
            return ("python", "-m", "nnunet_covid.sweep.preparation", *self.options)
        if self.kind == "pretrain":
            return ("nnunet-covid", "pretrain", *where, "-i", self.images, "--name", self.name, *common, *self.options)
        if self.kind == "pseudo-label":
            given = ("-i", self.images, "--name", self.name, *common, *self.options)
            return ("nnunet-covid", "pseudo-label", *where, self.fold, *given)
        folder = results / self.key
        words = ["nnUNetv2_train", *where, self.fold, *common, *(["--npz"] if self.probabilities else [])]
        if is_whole_checkpoint(folder / FINAL):
            words.append("--val")
        elif any((folder / name).is_file() for name in (LATEST, BEST)):
            words.append("--c")
        elif start is not None:
            words += ["-pretrained_weights", str(start)]
        return (*words, *self.options)


def is_whole_checkpoint(path: Path) -> bool:
    """Whether torch wrote it to its end, which is where the table of its contents stands; not what it holds."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def put_damaged_aside(folder: Path) -> list[Path]:
    """Rename checkpoints that a killed process left half-written, so that nnU-Net goes on from another; the new names.

    Stock nnU-Net writes over the old one.
    """
    moved = []
    for name in (FINAL, LATEST, BEST):
        path = folder / name
        if path.is_file() and not is_whole_checkpoint(path):
            moved.append(path.rename(path.with_suffix(".damaged")))
    return moved
