"""The matrix: families of trainers by features of nnU-Net, in two sizes, and what is declared to be refused.

By default every feature is tried with one trainer of each family and every trainer with 2D; with the environment
variable ``NNUNET_COVID_MATRIX=all`` every trainer with every feature. Where ``NNUNET_COVID_MATRIX_RESULTS`` names a
file, every cell adds a line to it, from which ``docs/draw_feature_matrix.py`` draws the page.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid import trainers
from nnunet_covid.nnunet.trainer_names import TRAINERS

SIZE_VARIABLE, RESULTS_VARIABLE = "NNUNET_COVID_MATRIX", "NNUNET_COVID_MATRIX_RESULTS"
EVERYTHING = os.environ.get(SIZE_VARIABLE) == "all"

FAMILIES = {
    "nnUNetTrainer": "nnU-Net's network",
    "InfNetTrainer": "Inf-Net, planned encoder",
    "InfNetPretrainedTrainer": "Inf-Net, timm encoder",
    "UNetPretrainedTrainer": "U-Net, timm encoder",
    "SSANetTrainer": "SSA-Net, planned encoder",
    "SSANetResNet34Trainer": "SSA-Net, ResNet34",
    "CollaborativeTrainer": "Collaborative",
    "AllInOneTrainer": "All in one, planned encoder",
    "AllInOnePretrainedTrainer": "All in one, timm encoder",
}
"""Trainer that stands for its family, to the family's name."""
DATA = {
    "2D": "slices",
    "not square": "not square",
    "two channels": "two channels",
    "three channels": "three channels",
    "regions": "regions",
    "ignore label": "ignore label",
    "five classes": "five classes",
    "residual encoder plans": "slices",
    "fold all": "slices",
    "3D full resolution": "volumes",
    "anisotropic voxels": "anisotropic",
    "regions and ignore label in 3D": "regions and ignore in 3D",
    "3D low resolution and cascade": "volumes",
}
"""Features of data and plans, to the data set that they are tried on."""
COMMANDS = (
    "--c after SIGKILL",
    "-pretrained_weights",
    "--val --npz",
    "best configuration, ensemble, post-processing",
    "model as zip, installed elsewhere",
    "model folder without raw data",
    "-num_parts -part_id",
    "-num_gpus 2",
    "torch.compile",
    "bfloat16 autocast",
)
FEATURES = (*DATA, *COMMANDS)
IN_3D = ("3D full resolution", "anisotropic voxels", "regions and ignore label in 3D", "3D low resolution and cascade")


@dataclass(frozen=True)
class Refusal:
    """A declared exception: these trainers refuse this, in one line that holds these words (why, and what instead)."""

    trainers: frozenset[str]
    features: tuple[str, ...]
    words: tuple[str, ...]
    because: str
    instead: str


def family_of(trainer: str) -> str:
    """The family's trainer; by the module that holds it, the paper's own SSA-Net apart, and else nnU-Net's network."""
    if trainer.startswith("SSANetResNet34"):
        return "SSANetResNet34Trainer"
    modules = {TRAINERS[name]: name for name in FAMILIES if name in TRAINERS and name != "SSANetResNet34Trainer"}
    return modules.get(TRAINERS.get(trainer, ""), "nnUNetTrainer")


def needs_link(trainer: str) -> bool:
    """Whether images of another disease must be linked before it is trained."""
    written = getattr(trainers, trainer) if trainer in TRAINERS else None
    return getattr(written, "general_encoder", TRAINERS.get(trainer) == "collaborative") and written.general_weight > 0


ALL_TRAINERS = ("nnUNetTrainer", *TRAINERS)
TIMM = frozenset(name for name in TRAINERS if TRAINERS[name].endswith("_timm") or "ResNet34" in name)
ROWS = frozenset(name for name in TRAINERS if name.startswith("AllInOne")) - frozenset(FAMILIES)
"""Trainers that are another family's with parts switched off: tried where everything is, and by their own tests."""
SELDOM = {
    "SSANetResNet34Trainer": (
        "2D",
        "not square",
        "two channels",
        "regions",
        "--c after SIGKILL",
        "torch.compile",
        "3D full resolution",
    ),
    "AllInOnePretrainedTrainer": (
        "2D",
        "not square",
        "regions",
        "--c after SIGKILL",
        "-num_gpus 2",
        "3D full resolution",
    ),
}
"""Families whose parts are those of others, tried with these alone by default: the paper's own network of SSA-Net, slow
on a CPU, and the one on the same encoder as a second family and of the same ideas as a third."""
LATE = {f"SSANetTrainerSA{epoch}": epoch for epoch in range(10, 70, 10)}
"""Trainers that do something new from an epoch on, and are refused where they end before it; all else is as in SA."""
REFUSALS = (
    Refusal(
        TIMM,
        IN_3D,
        ("its network works in 2D only", "train the 2d configuration, or use "),
        "their encoders are 2D",
        "train 2d, or the trainer of the planned encoder",
    ),
    Refusal(
        frozenset({"SSANetReweightedTrainer"}),
        ("regions", "regions and ignore label in 3D"),
        ("for classes that exclude each other, but this data set has regions", "set segmentation_loss = 'dice'"),
        "its loss weighs classes that exclude each other",
        "use `SSANetTrainer` or `SSANetDiceTrainer`",
    ),
)


@dataclass(frozen=True)
class Cell:
    """A trainer and a feature."""

    trainer: str
    feature: str

    def __str__(self) -> str:
        return f"{self.trainer}-{self.feature}".replace(" ", "_")

    @property
    def family(self) -> str:
        return family_of(self.trainer)

    @property
    def refusal(self) -> Refusal | None:
        """The declared exception, if this is one."""
        return next((r for r in REFUSALS if self.trainer in r.trainers and self.feature in r.features), None)

    def record(self, outcome: str) -> None:
        """Add the outcome to the file of results, if there is one."""
        path = os.environ.get(RESULTS_VARIABLE)
        if not path:
            return
        line = {"trainer": self.trainer, "family": self.family, "feature": self.feature, "outcome": outcome}
        with Path(path).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def cells_of(*features: str) -> list[Cell]:
    """The cells of these features, in the size that is asked for."""
    return [
        Cell(trainer, feature)
        for feature in features
        for trainer in ALL_TRAINERS
        if (trainer in FAMILIES and (EVERYTHING or feature in SELDOM.get(trainer, FEATURES)))
        or (EVERYTHING and trainer not in LATE)
        or (feature == "2D" and trainer not in ROWS)
    ]
