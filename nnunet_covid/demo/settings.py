"""What the person at the terminal may choose about the demo, and where the demo keeps its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError
from nnunet_covid.startup import offer_trainers

DATA_SET = 501
DATA_SET_NAME = "Dataset501_COVIDSemiSeg"
PLANS = "nnUNetPlans"
FOLD = 0
LEAST_TRAINING_SLICES = 5
"""nnU-Net splits into five folds."""


@dataclass(frozen=True)
class Settings:
    """One demo.

    Attributes:
        training, test, unlabelled: How many synthetic slices of each kind.
        pixel: Mean size of a pixel, mm.
        epochs: Epochs of training.
        iterations: Steps per epoch.
        seed: Of the slices and of the training.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    training: int = 24
    test: int = 8
    unlabelled: int = 4
    pixel: float = 1.3
    epochs: int = 9
    iterations: int = 30
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.training < LEAST_TRAINING_SLICES:
            raise UserError(
                f"{self.training} training slices are too few: nnU-Net splits them into five folds; "
                f"ask for at least {LEAST_TRAINING_SLICES}"
            )
        for name in ("test", "epochs", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"the number of {name} must be at least 1, not {getattr(self, name)}")
        if not 0.5 <= self.pixel <= 4.0:
            raise UserError(f"a pixel of {self.pixel} mm does not show a lung well; choose from 0.5 to 4 mm")
        if self.seed < 0:
            raise UserError(f"the seed must not be negative, but is {self.seed}")

    @property
    def trainer(self) -> str:
        """The trainer's name as it stands behind ``-tr``."""
        return f"InfNetTrainer_{self.epochs}epochs_{self.iterations}its_seed{self.seed}"

    @property
    def configuration(self) -> str:
        """nnU-Net's configuration: what it planned, or on a CPU one with half the features."""
        return "2d_light" if self.device == "cpu" else "2d"

    def to_json(self) -> dict[str, Any]:
        """As plain types."""
        return asdict(self)


@dataclass(frozen=True)
class Workspace:
    """The folder of one demo and what lies in it."""

    folder: Path

    @property
    def source(self) -> Path:
        """The synthetic data set as its authors would hand it out."""
        return self.folder / "synthetic_source"

    @property
    def raw(self) -> Path:
        """The data set as nnU-Net wants it."""
        return self.folder / "nnUNet_raw" / DATA_SET_NAME

    @property
    def plans(self) -> Path:
        """nnU-Net's plans."""
        return self.folder / "nnUNet_preprocessed" / DATA_SET_NAME / f"{PLANS}.json"

    def model(self, settings: Settings) -> Path:
        """The trained model."""
        name = f"{settings.trainer}__{PLANS}__{settings.configuration}"
        return self.folder / "nnUNet_results" / DATA_SET_NAME / name

    @property
    def predictions(self) -> Path:
        """Label maps and probabilities of the test slices."""
        return self.folder / "predictions"

    @property
    def evaluation(self) -> Path:
        """Tables."""
        return self.folder / "evaluation"

    @property
    def overlay(self) -> Path:
        """The picture."""
        return self.folder / "overlay.png"

    @property
    def journal(self) -> Path:
        """Settings and finished steps."""
        return self.folder / "demo.json"

    def environment(self, device: str, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The variables under which nnU-Net's commands run: its folders here, our trainers, few processes on a CPU."""
        environment = dict(base)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            environment[name] = str(self.folder / name)
        offer_trainers(environment)
        environment["PYTHONUNBUFFERED"] = "1"
        environment["nnUNet_compile"] = "f"  # compiling takes longer than this training
        if device == "cpu":
            environment["nnUNet_def_n_proc"] = "1"
            environment["OMP_WAIT_POLICY"] = "PASSIVE"  # on a busy machine, waiting threads must not take the cores
        if device == "mps":
            environment["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
        return environment
