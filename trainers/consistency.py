"""``TRAINER_consistency``: any trainer, learning from unlabelled images too by consistency with its own moving average.

How it fits together: docs/explanation/consistency.md. What computes stands in :mod:`nnunet_covid.semi_supervised`.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.utilities.collate_outputs import collate_outputs
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import autocast, distributed, nn

from nnunet_covid.auxiliary_data.batches import LinkedDataset, OwnRandomness, TwoViews, loader_of_images, put_beside
from nnunet_covid.auxiliary_data.links import LinkedCases, preprocessed_folder
from nnunet_covid.auxiliary_data.unlabelled import linked_unlabelled, validation_cases
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.errors import UserError
from nnunet_covid.figures.consistency import append_to_progress
from nnunet_covid.figures.progress import FILE
from nnunet_covid.files import replacing
from nnunet_covid.losses.relation import ramp_up
from nnunet_covid.networks.conv import resize_like
from nnunet_covid.nnunet.training import mask_channels, unwrapped
from nnunet_covid.semi_supervised.consistency import (
    ENTRY,
    EpochSums,
    JoinedLoss,
    RunningCounts,
    label_maps,
    loss_targets,
)
from nnunet_covid.semi_supervised.labelling import Classes
from nnunet_covid.semi_supervised.mixing import copy_paste, cut_mix
from nnunet_covid.semi_supervised.moving_average import decay_at, exchange, move_towards
from nnunet_covid.semi_supervised.training import (
    follow,
    knows_ignored_voxels,
    leave_out_overlap,
    make_nothing_of_no_voxel,
)
from nnunet_covid.trainers.base import require_configuration, training_finished
from nnunet_covid.trainers.on_demand import predicted_by
from nnunet_covid.trainers.undisturbed import UndisturbedTrainer, stop_training, unwritable_told

KEY = "views"
"""Of the unlabelled images in a batch: weak and strong view beside each other, (B, 2·C, *spatial)."""
LOGGED = ("unlabelled_weight", "unlabelled_losses", "trusted", "trusted_per_class", "agreement", "student_fg_dice")


class Consistency(UndisturbedTrainer):
    """In front of a trainer class: mean teacher, weak and strong views, CutMix, trust, and re-weighting on request.

    A step is one of the trainer's own, with the loss L(labelled) + w(t)·L(unlabelled, the teacher's labels).

    Attributes:
        unlabelled_weight: w at the end of the ramp-up.
        ramp_share: Of the training, over which w rises from almost nothing: exp(−5 (1 − t)²) (Laine & Aila).
        unlabelled_ratio: Unlabelled images of a step by labelled ones.
        eta: Trust threshold η (SSA-Net, eq. (9)): voxels where the teacher is not surer are left out of the loss.
        class_eta: η of single classes, by name, background among them.
        weigh_by_trust: Multiply the unlabelled loss, a mean over trusted voxels, by their share of all voxels, as where
            it is a mean over all (FixMatch, UniMatch): of a batch that is hardly trusted little is learnt.
        unlabelled_overlap: Whether Dice, or Inf-Net's IoU, takes part in the unlabelled loss where the trainer's is a
            sum of it and cross entropy. Over sure voxels alone it draws lesions too large.
        teacher_decay: α of the moving average, at the start and at most; or one number, which it always has.
        strong_probability: Of each of nnU-Net's changes of intensity, in the strong view.
        cutmix_probability: Of a box of another unlabelled image in the strong view.
        copy_paste: Whether boxes go between labelled and unlabelled images too, either way.
        reweight_classes: Weights of eq. (8) in the cross entropy of the unlabelled loss, where it has one.
        leave_out_known: Go on without unlabelled images that are validation or test images, instead of refusing them.
        plain_name: The trainer's name without the suffix.
    """

    unlabelled_weight: float = 1.0
    ramp_share: float = 1.0
    unlabelled_ratio: float = 1.0
    eta: float = 0.95
    class_eta: ClassVar[Mapping[str, float]] = {}
    weigh_by_trust: bool = True
    unlabelled_overlap: bool = False
    teacher_decay: float | tuple[float, float] = (0.8, 0.999)
    strong_probability: float = 1.0
    cutmix_probability: float = 0.5
    copy_paste: bool = False
    reweight_classes: bool = False
    leave_out_known: bool = False
    plain_name: str

    unlabelled_images: LinkedCases | None = None
    _aside: nn.Module | None = None
    _network_is_teacher = False
    _steps_seen = 0

    @unwritable_told()
    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        require_configuration(plans, configuration)
        manager = PlansManager(plans)
        try:
            self.classes = Classes(dataset_json, manager, ignore=True)
            self.etas = self.classes.thresholds(self.eta, self.class_eta)
            self.check_consistency()
            if not training_finished(type(self).__name__, plans, configuration, fold):
                found = linked_unlabelled(manager, configuration)
                kept_out = validation_cases(manager.dataset_name, fold)
                if kept_out is not None:
                    refuse = not self.leave_out_known
                    self.unlabelled_images = found.unseen(manager, dataset_json, kept_out, refuse=refuse)
        except (ValueError, UserError) as e:
            stop_training(f"{type(self).__name__}: {e}")
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.running_counts = RunningCounts()
        for key in LOGGED:
            self.logger.local_logger.my_fantastic_logging.setdefault(key, [])
        draw = self.logger.plot_progress_png
        self.logger.plot_progress_png = lambda folder: self._draw(draw, folder)  # type: ignore[method-assign]

    def check_consistency(self) -> None:
        """Check the class attributes.

        Raises:
            ValueError: With what is wrong and what to do.
        """
        shares = {"eta": self.eta, **{f"class_eta of {name}": eta for name, eta in self.class_eta.items()}}
        shares |= {name: getattr(self, name) for name in ("ramp_share", "strong_probability", "cutmix_probability")}
        for name, value in shares.items():
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                msg = f"{name} = {value}, but it must lie between 0 and 1"
                raise ValueError(msg)
        first, last = self.decay_limits
        if not 0 <= first <= last < 1:
            msg = f"teacher_decay = {self.teacher_decay}, but 0 ≤ start ≤ end < 1 must hold"
            raise ValueError(msg)
        if not 0 <= self.unlabelled_weight < math.inf or not 0 < self.unlabelled_ratio < math.inf:
            msg = (
                f"unlabelled_weight = {self.unlabelled_weight} and unlabelled_ratio = {self.unlabelled_ratio}, but a "
                "weight must not be negative, a ratio must be positive, and both finite"
            )
            raise ValueError(msg)

    def initialize(self) -> None:
        """nnU-Net's, and a second loss that knows an ignore label whether the data set has one or not."""
        super().initialize()
        noted = dict(vars(self))  # a trainer may note down parts of its loss, and these shall be the labelled loss's
        self.label_manager = self.classes.manager
        with OwnRandomness(0):  # encoders are built to ask for their strides, with random weights
            self.unlabelled_loss = self._build_loss()
            if not knows_ignored_voxels(self.unlabelled_loss):
                other = "take one with cross entropy, or SSANetDiceTrainer for Dice alone"
                stop_training(f"{type(self).__name__}: the trainer's loss cannot leave out unsure voxels; {other}")
            make_nothing_of_no_voxel(self.unlabelled_loss)
            if not self.unlabelled_overlap:
                leave_out_overlap(self.unlabelled_loss)
            scales = self._get_deep_supervision_scales()
        vars(self).update({**noted, "target_scales": scales})

    # --- data

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, after a look at whether a validation or test image is among the unlabelled ones."""
        training, validation = super().get_tr_and_val_datasets()
        if self.unlabelled_images is None:  # nnU-Net has made the folds just now, or the training was over before
            try:
                found, kept_out = linked_unlabelled(self.plans_manager, self.configuration_name), validation.identifiers
                self.unlabelled_images = found.unseen(
                    self.plans_manager, self.dataset_json, kept_out, refuse=not self.leave_out_known
                )
            except UserError as e:
                stop_training(f"{type(self).__name__}: {e}")
        return training, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """The trainer's own; the workers that make labelled batches make unlabelled ones too."""
        training, validation = super().get_dataloaders()
        images = self.unlabelled_images
        assert images is not None
        size = max(1, round(self.unlabelled_ratio * self.batch_size))
        masks = mask_channels(self.configuration_manager, self.dataset_json)
        views = functools.partial(TwoViews, probability=self.strong_probability, spared=masks)
        loader = loader_of_images(self, LinkedDataset(preprocessed_folder(), [images]), views, size)
        put_beside(training, loader, KEY, (torch.initial_seed(), self.local_rank))
        self.print_to_log_file(f"Unlabelled images: {len(images.cases)} of {images.name}, {size} per step")
        if size < 2 and self.cutmix_probability:
            self.print_to_log_file("WARNING: one unlabelled image per step has no partner for CutMix")
        return training, validation

    # --- teacher and student

    def start_teacher(self) -> None:
        """A teacher that is a copy of the network as it is."""
        self.set_deep_supervision_enabled(False)
        self._aside = copy.deepcopy(unwrapped(self.network)).requires_grad_(False).eval()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)
        self._teacher: Any = torch.compile(self._aside) if self._do_i_compile() else self._aside

    def show(self, *, teacher: bool) -> None:
        """Let nnU-Net's network hold the teacher's weights or the student's; the other's are set aside."""
        if self._aside is not None and teacher != self._network_is_teacher:
            exchange(unwrapped(self.network), self._aside)
            self._network_is_teacher = teacher

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self._aside is None:
            self.start_teacher()
        super().on_train_start()

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's checkpoint of the teacher, under the name of what predicts it, with the student beside it."""
        if self.local_rank != 0 or self.disable_checkpointing or self._aside is None:
            super().save_checkpoint(filename)
            return
        shown = self._network_is_teacher
        self.show(teacher=True)
        with replacing(Path(filename)) as unfinished:
            super().save_checkpoint(str(unfinished))
            checkpoint = read_checkpoint(unfinished)
            student, counts = self._aside.state_dict(), self.running_counts.counts
            checkpoint |= {"trainer_name": predicted_by(type(self)), ENTRY: {"student": student, "counts": counts}}
            torch.save(checkpoint, unfinished)
        self.show(teacher=shown)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """Teacher, student and counts of a checkpoint of :meth:`save_checkpoint`."""
        super().load_checkpoint(filename_or_checkpoint)
        self.start_teacher()
        assert self._aside is not None
        self._network_is_teacher = True
        assert isinstance(filename_or_checkpoint, str)
        checkpoint = read_checkpoint(Path(filename_or_checkpoint), self.device)
        if ENTRY in checkpoint:
            self._aside.load_state_dict(checkpoint[ENTRY]["student"])
            self.running_counts = RunningCounts(checkpoint[ENTRY]["counts"])

    # --- steps

    def on_train_epoch_start(self) -> None:
        self.show(teacher=False)
        super().on_train_epoch_start()
        self._steps_seen = 0
        self.draws = np.random.default_rng([torch.initial_seed(), self.local_rank, self.current_epoch])
        self.sums = EpochSums(self.classes, self.device)
        weights = self.running_counts.weights() if self.reweight_classes else None
        follow(self.unlabelled_loss, self.loss, weights and torch.tensor(weights, device=self.device))

    @property
    def decay_limits(self) -> tuple[float, float]:
        """α at the start and at most."""
        given = self.teacher_decay
        return (given, given) if isinstance(given, (int, float)) else given

    @property
    def steps_done(self) -> int:
        """Of the whole training."""
        return self.current_epoch * self.num_iterations_per_epoch + self._steps_seen

    @property
    def weight_now(self) -> float:
        """w(t)."""
        steps = self.ramp_share * self.num_epochs * self.num_iterations_per_epoch
        if not steps or getattr(self, "trained_before", False):
            return self.unlabelled_weight
        return ramp_up(self.steps_done, steps, squared=True, largest=self.unlabelled_weight)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The trainer's own step with the joined loss; then the teacher follows.

        Args:
            batch: Of the trainer's loader, with :data:`KEY`.
        """
        weak, strong = batch[KEY].to(self.device, non_blocking=True).chunk(2, dim=1)
        kept, predicted = self.teacher_labels(weak)
        whole = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
        references = label_maps(whole.to(self.device), self.label_manager)
        images, (kept, predicted) = cut_mix(strong, [kept, predicted], self.cutmix_probability, self.draws)
        if self.copy_paste:
            labelled = batch["data"].to(self.device), references
            labels = [kept, predicted]
            images, (kept, predicted) = copy_paste(images, labels, labelled, self.cutmix_probability, self.draws)
        self.sums.add_targets(references, kept)
        target = loss_targets(kept, self.classes.manager, self.target_scales)
        own = self.loss
        share = (kept != self.classes.manager.ignore_label).float().mean() if self.weigh_by_trust else 1.0
        joined = JoinedLoss(own, self.unlabelled_loss, lambda: self.network(images), target, self.weight_now, share)
        self.loss = joined
        try:
            result = super().train_step(batch)
        finally:
            self.loss = own
        if joined.unlabelled is not None:
            self._note_answer(joined.outputs, predicted, joined.unlabelled)
        assert self._aside is not None
        move_towards(self._aside, unwrapped(self.network), decay_at(self.steps_done, *self.decay_limits))
        self._steps_seen += 1
        return result

    def teacher_labels(self, weak: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the teacher predicts for images (B, C, *spatial), after and before trust; label maps (B, *spatial)."""
        with torch.no_grad(), autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            logits = self._teacher(weak)
        probabilities = self.classes.manager.apply_inference_nonlin(logits.movedim(1, 0))
        kept, predicted = self.classes.heads.trusted(probabilities, self.etas, self.classes.manager.ignore_label)
        self.sums.add_trust(predicted, kept)
        return kept, predicted

    @torch.no_grad()
    def _note_answer(self, outputs: Any, teacher: torch.Tensor, loss: torch.Tensor) -> None:
        """Add to the epoch's sums what the student said to the strong view, and the loss."""
        result = outputs[0] if isinstance(outputs, (list, tuple)) else outputs
        result = resize_like(result.detach().float(), teacher[:, None])
        heads = self.classes.heads
        probabilities = self.classes.manager.apply_inference_nonlin(result.movedim(1, 0))
        self.sums.add_answer(heads.trusted(probabilities, [0.0] * len(heads.values))[1], teacher, loss)

    # --- epochs

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's, the running counts, and what is logged of the unlabelled images."""
        super().on_train_epoch_end(train_outputs)
        sums = self.sums
        if self.is_ddp:
            sums.over_processes()
        self.running_counts.add(sums.counts("seen"))
        shares = sums.trusted_by_class()
        shown = (self.weight_now, sums.loss(), sums.trusted(), list(shares.values()), sums.agreement())
        for key, value in zip(LOGGED, shown, strict=False):
            self.logger.log(key, value, self.current_epoch)
        by_class = ", ".join(f"{name} {share:.3f}" for name, share in shares.items())
        self.print_to_log_file(
            f"unlabelled: w {shown[0]:.4f}, loss {shown[1]:.4f}, trusted {shown[2]:.3f} ({by_class}), "
            f"agreement of student and teacher {shown[4]:.3f}"
        )
        if sums.never_trusted():
            names = ", ".join(sums.never_trusted())
            self.print_to_log_file(
                f"WARNING: no voxel of {names} was trusted in this epoch: lower eta, or class_eta of that class alone"
            )

    def on_validation_epoch_start(self) -> None:
        self.show(teacher=True)
        super().on_validation_epoch_start()

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """nnU-Net's, of the teacher; and the student's counts for its Dice."""
        again = {**batch, "target": copy.deepcopy(batch["target"])}  # nnU-Net writes into it
        result = super().validation_step(batch)
        self.show(teacher=False)
        student = super().validation_step(again)
        self.show(teacher=True)
        return {**result, **{f"student_{key}": student[key] for key in ("tp_hard", "fp_hard", "fn_hard")}}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        super().on_validation_epoch_end(val_outputs)
        outputs = collate_outputs(val_outputs)
        counts = np.stack([outputs[f"student_{key}"].sum(0) for key in ("tp_hard", "fp_hard", "fn_hard")])
        if self.is_ddp:
            everywhere: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(everywhere, counts)
            counts = np.sum(everywhere, axis=0)
        true, false, missed = counts
        with np.errstate(invalid="ignore"):
            dice = float(np.nanmean(2 * true / (2 * true + false + missed)))
        self.logger.log("student_fg_dice", dice, self.current_epoch)
        teacher = self.logger.get_value("mean_fg_dice", step=-1)
        self.print_to_log_file(f"Pseudo dice, mean: teacher {teacher:.4f}, student {dice:.4f}")

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.show(teacher=True)
        super().perform_actual_validation(save_probabilities)

    def _draw(self, draw: Any, folder: str) -> None:
        path = Path(folder) / FILE
        before = path.stat().st_mtime_ns if path.is_file() else None
        draw(folder)
        if path.is_file() and path.stat().st_mtime_ns != before:  # a trainer may draw none
            append_to_progress(Path(folder), self.logger.local_logger.my_fantastic_logging, list(self.classes.names))
