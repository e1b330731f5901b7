"""Any nnU-Net trainer, made to do one training of a run in this process, on labelled and pseudo-labelled cases."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss, SoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn
from tqdm import tqdm

from nnunet_covid.losses.reweighted_cross_entropy import ReweightedCrossEntropy
from nnunet_covid.nnunet.training import (
    ChannelsSpared,
    EpochSchedule,
    changes_intensity,
    mask_channels,
    seed_everything,
    with_probability,
    without_timing,
)
from nnunet_covid.semi_supervised.experiment import Experiment, quiet
from nnunet_covid.semi_supervised.labelling import Classes, Heads, open_blosc2
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import Training, seed_for

PREFIX = "pseudo/"
"""In front of the name of a pseudo-labelled case, so that it can never be taken for a labelled one of the same name."""
OVERLAP_WEIGHTS = {"weight_dice": "weight_ce", "iou_weight": "bce_weight"}
"""Attributes of losses that are a sum, nnU-Net's and Inf-Net's: weight of Dice or IoU, and of cross entropy."""


PseudoCases = Mapping[str, tuple[Path, Path]]
"""Name of a case to its files, without their endings: the image and its pseudo label."""


@dataclass
class CurrentCase:
    """What nnU-Net's loader, which loads a case and changes it before it loads the next one, has in its hands.

    Attributes:
        pseudo: Whether its label is a pseudo label.
    """

    pseudo: bool = False


class StrongOnPseudo(BasicTransform):
    """A change of intensity as it is for labelled cases, and always for pseudo-labelled ones.

    Args:
        transform: The change.
        current: Says which of both the case is.
        spared: Channels that it leaves alone where it is made always.
    """

    def __init__(self, transform: BasicTransform, current: CurrentCase, spared: Sequence[int]) -> None:
        super().__init__()
        self.always = ChannelsSpared(with_probability(copy.deepcopy(transform), 1.0), spared)
        self.transform = transform
        self.current = current

    def __call__(self, **data: Any) -> dict[str, Any]:
        return (self.always if self.current.pseudo else self.transform)(**data)


class LabelledAndPseudo(nnUNetDatasetBlosc2):
    """A data set of both kinds; it holds names and opens files when a case is asked for.

    Args:
        labelled: nnU-Net's data set of the labelled cases; ``None`` leaves them out.
        pseudo: Pseudo-labelled cases by name.
        annotated: Key under which nnU-Net's loader looks for annotated voxels where there is an ignore label. Labelled
            cases of a data set without that label lack it: there every voxel is annotated.
        soft: What the stored probabilities stand for, to draw soft labels instead of loading hard ones.
        current: Is told which kind of case was loaded.
    """

    def __init__(
        self,
        labelled: nnUNetBaseDataset | None,
        pseudo: PseudoCases,
        annotated: tuple[int, ...] | None = None,
        soft: Heads | None = None,
        current: CurrentCase | None = None,
    ) -> None:
        self.current = current or CurrentCase()
        self.labelled = labelled
        self.pseudo = {PREFIX + name: case for name, case in pseudo.items()}
        self.annotated = annotated
        self.soft = soft
        names = list(labelled.identifiers) if labelled is not None else []
        self.identifiers = sorted(names) + sorted(self.pseudo)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, *spatial), label (1, *spatial), nothing (no cascades here) and properties."""
        self.current.pseudo = identifier in self.pseudo
        if self.current.pseudo:
            return self._load_pseudo(*self.pseudo[identifier])
        assert self.labelled is not None
        data, seg, previous, properties = self.labelled.load_case(identifier)
        if self.annotated is not None and self.annotated not in properties["class_locations"]:
            # voxels drawn from the whole image, as nnU-Net keeps locations: a leading zero, then the coordinates
            rng = np.random.RandomState(1234)
            columns = [np.zeros(1000, int), *(rng.randint(0, size, 1000) for size in data.shape[1:])]
            properties["class_locations"][self.annotated] = np.stack(columns, axis=1)
        return data, seg, previous, properties

    def _load_pseudo(self, image: Path, label: Path) -> tuple[Any, Any, None, dict[str, Any]]:
        data, seg = open_blosc2(image, ".b2nd"), open_blosc2(label, "_seg.b2nd")
        properties = load_pickle(f"{label}.pkl")
        if self.soft is not None:
            stored = open_blosc2(label, "_soft.b2nd")[:]
            drawn = self.soft.draw(stored, np.random.uniform())
            seg = np.where((seg[:] == -1) & (drawn == 0), np.int16(-1), drawn)
        return data, seg, None, properties


class InAnotherFolder(nnUNetTrainer):
    """In front of a trainer class: its files go elsewhere, and nothing onto the terminal.

    Attributes:
        folder: Where the trainer keeps its log and its copies of the plans.
    """

    folder: ClassVar[Path]

    # nnU-Net sets these two while it is constructed and writes into them at once
    output_folder_base = property(lambda self: str(self.folder), lambda self, value: None)
    output_folder = property(lambda self: str(self.folder / f"fold_{self.fold}"), lambda self, value: None)

    def print_to_log_file(self, *args: Any, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Into the log, not onto the terminal."""
        super().print_to_log_file(*args, also_print_to_console=False, add_timestamp=add_timestamp)


class TrainingMixin(InAnotherFolder):
    """In front of a trainer class: one training of a run, in another folder. Validation is untouched.

    Attributes:
        training: What to train, on which cases and for how long.
        pseudo: The pseudo-labelled cases that take part.
        soft: What soft labels are drawn from, if they are.
        current: What the loader has in its hands, where pseudo-labelled cases are changed more than others.
        spared: Channels, of masks, that are left alone then.
        step_seconds: Time spent in training and validation steps.
        steps: Number of training steps.
    """

    training: ClassVar[Training]
    pseudo: ClassVar[PseudoCases]
    soft: ClassVar[Heads | None]
    current: ClassVar[CurrentCase | None]
    spared: ClassVar[Sequence[int]]

    step_seconds = 0.0
    steps = 0

    def initialize(self) -> None:
        """nnU-Net's, and the mirroring axes, which nnU-Net finds when a training starts and every prediction needs."""
        self.disable_checkpointing = True
        self.logger.plot_progress_png = lambda folder: None  # more than a second per epoch
        if self.training.epochs is not None:
            self.num_epochs = self.training.epochs
            self.num_val_iterations_per_epoch = 1
        super().initialize()
        self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """Labelled and pseudo-labelled cases to train on; labelled ones alone to validate on."""
        labelled, validation = super().get_tr_and_val_datasets()
        annotated = (-1, *self.label_manager.all_labels) if self.label_manager.has_ignore_label else None
        kept = labelled if self.training.labelled else None
        cases = LabelledAndPseudo(kept, self.pseudo, annotated, self.soft, self.current)
        if self.training.epochs is not None:
            one_pass = math.ceil(len(cases.identifiers) / self.batch_size)
            self.num_iterations_per_epoch = self.training.iterations or one_pass
        return cases, LabelledAndPseudo(validation, {}, annotated)

    @classmethod
    def get_training_transforms(cls, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """The trainer's augmentation, less the one step whose result depends on how fast the machine is just now."""
        made = without_timing(super().get_training_transforms(*args, **kwargs))
        if cls.current is not None:
            strong = functools.partial(StrongOnPseudo, current=cls.current, spared=cls.spared)
            made.transforms = [strong(t) if changes_intensity(t) else t for t in made.transforms]
        return made

    def configure_optimizers(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Adam at a constant rate where the training asks for it, else the trainer's own, which may ask for a stage."""
        rate = self.training.learning_rate
        if rate is None:
            return super().configure_optimizers(*args, **kwargs)
        self.initial_lr = rate
        optimizer = torch.optim.Adam(self.network.parameters(), lr=rate)
        return optimizer, EpochSchedule(optimizer, lambda _: 1.0)

    def on_train_start(self) -> None:
        super().on_train_start()
        weights = self.training.class_weights
        if weights is not None:  # last, so that a trainer's own count of its labels does not matter
            weigh_classes(self.loss, torch.tensor(weights, dtype=torch.float32, device=self.device))
        total = self.num_epochs * self.num_iterations_per_epoch
        self._bar = tqdm(total=total, desc=f"train {self.training.name}", unit="step", leave=False)

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


def make_trainer(
    experiment: Experiment,
    classes: Classes,
    training: Training,
    options: RoundOptions,
    pseudo: PseudoCases | None = None,
    folder: Path | None = None,
) -> Any:
    """A trainer for one training, initialised with a new network.

    Where the training starts from a model, the weights are still to be loaded, and the trainer reads none of its own.

    Args:
        experiment: The trainer's class, and all it is constructed with but the data set's description.
        classes: Have this description; it may have an ignore label more.
        training: What to train.
        options: Of the run: its seed, and whether labels are soft.
        pseudo: The pseudo-labelled cases of the training.
        folder: For its log, if not the run's own.
    """
    settings = {
        "training": training,
        "folder": folder or experiment.training_folder,
        "pseudo": pseudo or {},
        "soft": classes.heads if options.soft else None,
        "current": CurrentCase() if options.strong else None,
        "spared": mask_channels(experiment.configuration_manager, classes.dataset_json),
        "trained_before": training.start is not None,
    }
    seed = seed_for(options.seed, training.round_number, f"initialise {training.name}")
    with quiet(experiment.log):
        return initialised(experiment, TrainingMixin, settings, classes.dataset_json, seed)


def initialised(
    experiment: Experiment,
    mixin: type[InAnotherFolder],
    settings: dict[str, Any],
    dataset_json: dict[str, Any],
    seed: int,
) -> Any:
    """The experiment's trainer with a new network, its class under the ordinary name, which checkpoints shall carry.

    Args:
        mixin: In front of the trainer's class.
        settings: Class attributes, the mixin's ``folder`` among them.
        dataset_json: The data set's description.
        seed: Of the network's weights.
    """
    base = experiment.trainer_class
    if experiment.device.type == "cuda":  # as nnUNetv2_train does
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True
    seed_everything(seed)
    trainer: Any = type(base.__name__, (mixin, base), {**settings, "__doc__": base.__doc__})(
        {**experiment.plans_manager.plans, "continue_training": False},
        experiment.configuration,
        experiment.fold,
        dataset_json,
        experiment.device,
    )
    for old in Path(trainer.output_folder).glob("training_log_*.txt"):
        if str(old) != trainer.log_file:
            old.unlink()
    seed_everything(seed)
    trainer.initialize()
    return trainer


def parts_of(loss: Any) -> list[Any]:
    """A loss and all that it is made of; nothing of a plain function."""
    return list(loss.modules()) if isinstance(loss, nn.Module) else []


def cross_entropies(loss: Any) -> list[Any]:
    """The parts of a loss that class weights have a place in."""
    return [m for m in parts_of(loss) if isinstance(m, nn.CrossEntropyLoss | ReweightedCrossEntropy)]


def knows_ignored_voxels(loss: Any) -> bool:
    """Whether a loss may be given voxels that do not count; nnU-Net's Dice without anything around it may not."""
    inner = loss.loss if isinstance(loss, DeepSupervisionWrapper) else loss
    return not isinstance(inner, SoftDiceLoss | MemoryEfficientSoftDiceLoss)


def follow(loss: Any, own: Any, weights: torch.Tensor | None) -> None:
    """Tell a second loss what a trainer has told its own: the epoch, where a part begins with a later one, and weights.

    Args:
        weights: Of the classes, (C,), in the place of those that the own has.
    """
    for mine, theirs in zip(parts_of(loss), parts_of(own), strict=False):
        if hasattr(theirs, "epoch"):
            mine.epoch = theirs.epoch
    told = [m.weights for m in cross_entropies(own) if isinstance(m, ReweightedCrossEntropy)]
    for one in told if weights is None else [weights]:
        if one is not None:
            weigh_classes(loss, one)


def leave_out_overlap(loss: Any) -> None:
    """Keep of sums of Dice or IoU and cross entropy, nnU-Net's or Inf-Net's, the cross entropy alone.

    A sum whose cross entropy has no weight, or none of this name, is left as it is.
    """
    for module in parts_of(loss):
        for overlap, cross_entropy in OVERLAP_WEIGHTS.items():
            if hasattr(module, overlap) and getattr(module, cross_entropy, False):
                setattr(module, overlap, 0)


def make_nothing_of_no_voxel(loss: Any) -> None:
    """Let torch's cross entropies in a loss be 0 where every voxel is ignored, of which their mean is no number."""
    for module in parts_of(loss):
        if isinstance(module, nn.CrossEntropyLoss) and module.reduction == "mean":
            module.register_forward_hook(_nothing_of_no_voxel, with_kwargs=True)


def _nothing_of_no_voxel(loss: Any, given: tuple[Any, ...], named: dict[str, Any], mean: torch.Tensor) -> torch.Tensor:
    _, target = *given, *named.values()
    return torch.where((target != loss.ignore_index).any(), mean, 0.0)


def weigh_classes(loss: Any, weights: torch.Tensor) -> None:
    """Put class weights (C,) into the cross entropies of a loss."""
    for module in cross_entropies(loss):
        setattr(module, "weights" if isinstance(module, ReweightedCrossEntropy) else "weight", weights)
