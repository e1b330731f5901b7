"""Any nnU-Net trainer, made to train one phase of a run in this process."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from torch._dynamo import OptimizedModule
from tqdm import tqdm

from nnunet_covid.losses.reweighted_cross_entropy import ReweightedCrossEntropy
from nnunet_covid.nnunet.rounds.dataset import LabelledAndPseudo, PseudoCase, Soft
from nnunet_covid.nnunet.training import without_timing


@dataclass
class Phase:
    """One training phase.

    Attributes:
        folder: Where the trainer keeps its log and its copies of the plans.
        title: In front of the progress bar.
        labelled: Whether labelled cases take part.
        pseudo: Pseudo-labelled cases that take part.
        soft: How soft labels are drawn, if they are.
        epochs: Length; ``None`` keeps the trainer's own length and iterations.
        iterations: Per epoch; ``None`` with epochs is one pass over the cases.
        learning_rate: Of Adam, constant; ``None`` keeps the trainer's optimiser and schedule.
        class_weights: For the cross entropy.
        trained_before: Whether the network gets the weights of an earlier phase.
    """

    folder: Path
    title: str = ""
    labelled: bool = True
    pseudo: Mapping[str, PseudoCase] = field(default_factory=dict)
    soft: Soft | None = None
    epochs: int | None = None
    iterations: int | None = None
    learning_rate: float | None = None
    class_weights: list[float] | None = None
    trained_before: bool = False


class PhaseMixin(nnUNetTrainer):
    """In front of a trainer class: other folders, other training cases, one phase's length. Validation is untouched.

    Attributes:
        phase: What to train.
        step_seconds: Time spent in training and validation steps.
        steps: Number of training steps.
    """

    phase: ClassVar[Phase]

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.disable_checkpointing = True
        self.step_seconds = 0.0
        self.steps = 0
        self._bar: Any = None
        self.logger.plot_progress_png = lambda folder: None  # more than a second per epoch
        if self.phase.epochs is not None:
            self.num_epochs = self.phase.epochs
            self.num_val_iterations_per_epoch = 1

    # nnU-Net sets these two while it is constructed and writes into them at once

    @property
    def output_folder_base(self) -> str:
        """The phase's folder."""
        return str(self.phase.folder)

    @output_folder_base.setter
    def output_folder_base(self, value: str) -> None:
        pass

    @property
    def output_folder(self) -> str:
        """The phase's folder for the fold."""
        return str(self.phase.folder / f"fold_{self.fold}")

    @output_folder.setter
    def output_folder(self, value: str) -> None:
        pass

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Into the log, not onto the terminal."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)

    def initialize(self) -> None:
        """nnU-Net's, and the mirroring axes, which nnU-Net finds when a training starts and every prediction needs."""
        super().initialize()
        self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Labelled and pseudo-labelled cases to train on; labelled ones alone to validate on."""
        labelled, validation = super().get_tr_and_val_datasets()
        phase = self.phase
        annotated = (-1, *self.label_manager.all_labels) if self.label_manager.has_ignore_label else None
        training = LabelledAndPseudo(labelled if phase.labelled else None, phase.pseudo, annotated, phase.soft)
        checked = LabelledAndPseudo(validation, {}, annotated)
        if phase.epochs is not None:
            one_pass = math.ceil(len(training.identifiers) / self.batch_size)
            self.num_iterations_per_epoch = phase.iterations or one_pass
        return training, checked

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """The trainer's augmentation, less the one step whose result depends on how fast the machine is just now."""
        return without_timing(super().get_training_transforms(*args, **kwargs))

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Adam at a constant rate in a short phase, else the trainer's own."""
        rate = self.phase.learning_rate
        if rate is None:
            return super().configure_optimizers()
        self.initial_lr = rate
        optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
        return optimizer, PolyLRScheduler(optimizer, rate, self.num_epochs, exponent=0)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.phase.class_weights is not None:  # last, so that a trainer's own count of its labels does not matter
            weight_cross_entropy(self.loss, self.phase.class_weights, self.device)
        total = self.num_epochs * self.num_iterations_per_epoch
        self._bar = tqdm(total=total, desc=self.phase.title, unit="step", leave=False)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        result = super().train_step(batch)
        self.step_seconds += time.perf_counter() - start
        self.steps += 1
        self._bar.update()
        return result

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        start = time.perf_counter()
        result = super().validation_step(batch)
        self.step_seconds += time.perf_counter() - start
        return result

    def on_train_end(self) -> None:
        super().on_train_end()
        self._bar.close()


def weight_cross_entropy(loss: Any, weights: list[float], device: torch.device) -> None:
    """Give class weights to every cross entropy in a loss."""
    tensor = torch.tensor(weights, dtype=torch.float32, device=device)
    for module in _cross_entropies(loss):
        if isinstance(module, ReweightedCrossEntropy):
            module.weights = tensor
        else:
            module.weight = tensor


def can_weight(trainer: nnUNetTrainer) -> bool:
    """Whether class weights have a place in a trainer's loss."""
    return bool(_cross_entropies(trainer.loss))


def _cross_entropies(loss: Any) -> list[Any]:
    modules = loss.modules() if isinstance(loss, nn.Module) else []
    return [m for m in modules if isinstance(m, nn.CrossEntropyLoss | ReweightedCrossEntropy)]


def phase_trainer(base: type, phase: Phase, arguments: dict[str, Any]) -> Any:
    """A trainer for one phase, under the ordinary name that checkpoints shall carry."""
    settings = {"phase": phase, "trained_before": phase.trained_before, "__doc__": base.__doc__}
    return type(base.__name__, (PhaseMixin, base), settings)(**arguments)


def load_weights(trainer: nnUNetTrainer, weights: Mapping[str, torch.Tensor]) -> None:
    """Put the weights of a checkpoint into a trainer's network."""
    network = trainer.network
    (network._orig_mod if isinstance(network, OptimizedModule) else network).load_state_dict(weights)


def seed_everything(seed: int) -> None:
    """Seed all the generators that nnU-Net draws from."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
