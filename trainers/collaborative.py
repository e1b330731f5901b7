"""Relation-driven collaborative learning with images of other lung diseases, and the rows it is compared with."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.helpers import dummy_context
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import autocast, nn

from nnunet_covid.auxiliary_data.batches import (
    ImageTransforms,
    JoinedBatches,
    LinkedDataset,
    linked_batches,
    loader_of_images,
)
from nnunet_covid.auxiliary_data.links import Link, LinkedCases, find_link, link_again, preprocessed_folder
from nnunet_covid.auxiliary_data.relation_snapshots import KEPT, SnapshotMean, remove_snapshots, write_snapshot
from nnunet_covid.auxiliary_data.unlabelled import UnlabelledCases, validation_cases
from nnunet_covid.errors import UserError
from nnunet_covid.files import evenly_spread
from nnunet_covid.losses.relation import (
    LARGEST_WEIGHT,
    REDUCTIONS,
    Reduction,
    general_relation_loss,
    mean_feature,
    ramp_up,
    relation_matrix,
    target_relation_loss,
)
from nnunet_covid.networks.collaborative import BottleneckFeatures, CollaborativeUNet
from nnunet_covid.nnunet.architecture import build_planned_unet, load_encoder_checkpoint
from nnunet_covid.nnunet.known_images import require_unseen
from nnunet_covid.nnunet.training import GRADIENT_NORM
from nnunet_covid.trainers.base import LungInfectionTrainer, one_of, training_finished
from nnunet_covid.trainers.undisturbed import stop_training

WEIGHTS_VARIABLE = "NNUNET_COVID_GENERAL_WEIGHTS"


class CollaborativeTrainer(LungInfectionTrainer):
    """Two planned encoders and one decoder, taught by Algorithm 1 (Zhang et al.), in 2D and 3D.

    The segmentation loss, nnU-Net's own, reaches target encoder and decoder; the general relation loss the general
    encoder; the target relation loss the target encoder. Images of other diseases and unlabelled images come from
    ``nnunet-covid link``.

    Attributes:
        general_weight, target_weight: λ of eqs. (4) and (5) at the end of the ramp-up; 0 switches the loss off. Without
            the general loss the general encoder keeps the weights it starts with.
        squared_ramp_up: Square the bracket in the ramp-up's exponent (Laine & Aila) instead of the paper's form.
        relation_reduction: ``"sum"`` over the C² entries of a matrix, as the equations have it; ``"rows"`` divides it
            by C, ``"mean"`` by C². The sum's gradient in the target encoder is some 70 times that of the segmentation.
        use_unlabelled: Whether linked unlabelled images take part in the relation losses.
        leave_out_known: Go on without unlabelled images that are validation or test images, instead of refusing them.
        unlabelled_batch_size: Unlabelled images per step where some are linked; ``None`` takes the planned batch size.
        general_weights: Checkpoint that the general encoder starts from; ``None`` starts it at random. The environment
            variable ``NNUNET_COVID_GENERAL_WEIGHTS`` takes the place of whatever stands here but ``None``.
        snapshot_epochs: Epochs whose relation matrices are kept; ``None`` for six, evenly spread.
    """

    general_weight: float = LARGEST_WEIGHT
    target_weight: float = LARGEST_WEIGHT
    squared_ramp_up: bool = False
    relation_reduction: Reduction = "rows"
    use_unlabelled: bool = True
    leave_out_known: bool = False
    unlabelled_batch_size: int | None = None
    general_weights: str | None = None
    snapshot_epochs: tuple[int, ...] | None = None

    unlabelled_images: LinkedCases | None = None
    _step_in_epoch = 0
    _snapshot: SnapshotMean | None = None

    def _refuse_unsupported(
        self, plans: dict[str, Any], configuration: str, fold: int, dataset_json: dict[str, Any]
    ) -> None:
        if not training_finished(type(self).__name__, plans, configuration, fold):
            manager = PlansManager(plans)
            link = self.usable_link(manager, configuration)
            self._keep_unseen(link, manager, dataset_json, validation_cases(manager.dataset_name, fold))
            start = None if plans["continue_training"] else self.general_checkpoint()
            try:
                if start is not None:
                    require_unseen(start, plans["dataset_name"], fold, "the general encoder's")
            except UserError as e:
                stop_training(f"{type(self).__name__}: {e}")
        super()._refuse_unsupported(plans, configuration, fold, dataset_json)

    def check_settings(self, configuration: ConfigurationManager) -> None:
        super().check_settings(configuration)
        one_of("relation_reduction", self.relation_reduction, REDUCTIONS)
        if self.unlabelled_batch_size is not None and self.unlabelled_batch_size < 1:
            msg = f"unlabelled_batch_size = {self.unlabelled_batch_size}, but at least 1: or set use_unlabelled = False"
            raise ValueError(msg)
        for name in ("general_weight", "target_weight"):
            if getattr(self, name) < 0:
                msg = f"{name} = {getattr(self, name)}, but a weight must not be negative: both signs are in the losses"
                raise ValueError(msg)

    def usable_link(self, plans: PlansManager, configuration: str) -> Link | None:
        """What is linked to this configuration; ends the training with one line where it cannot begin."""
        unlabelled = self.use_unlabelled and self.uses_relations
        if not unlabelled and self.general_weight <= 0:
            return None
        try:
            link = find_link(preprocessed_folder(), plans, configuration, require_others=self.general_weight > 0)
        except UserError as e:
            stop_training(f"{type(self).__name__}: {e}")
        cascaded = plans.get_configuration(configuration).previous_stage_name is not None
        if link is not None and not unlabelled:
            link = replace(link, unlabelled=None)
        if cascaded and link is not None and link.unlabelled is not None:
            stop_training(
                f"{type(self).__name__}: nothing of the previous stage is known of unlabelled images, so a cascade's "
                "second stage cannot use them: link without --unlabelled, or train 3d_fullres"
            )
        return link

    def _keep_unseen(
        self, link: Link | None, plans: PlansManager, dataset_json: dict[str, Any], kept_out: list[str] | None
    ) -> None:
        """Of a link's unlabelled images those that are no validation or test images; ends the training if one is.

        Args:
            kept_out: The validation cases; ``None`` while they are not known.
        """
        if link is None or link.unlabelled is None or kept_out is None or self.unlabelled_images is not None:
            return
        linked = UnlabelledCases(link.unlabelled, link_again(plans, link.configuration, link.unlabelled))
        refuse = not self.leave_out_known
        try:
            self.unlabelled_images = linked.unseen(plans, dataset_json, kept_out, refuse=refuse, fewest=1)
        except UserError as e:
            stop_training(f"{type(self).__name__}: {e}")

    def general_checkpoint(self) -> Path | None:
        """The checkpoint that the general encoder starts from, if any; ends the training if it is not there."""
        if self.general_weights is None or self.trained_before:
            return None
        source = os.environ.get(WEIGHTS_VARIABLE) or self.general_weights
        if not source:
            stop_training(
                f"{type(self).__name__} needs a trained general encoder: export {WEIGHTS_VARIABLE}=/path/to/checkpoint_"
                "final.pth of a training on the other data set with these plans"
            )
        if not Path(source).is_file():
            stop_training(f"{type(self).__name__}: the checkpoint {source} does not exist")
        return Path(source)

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """Both encoders as planned; in a cascade the general one sees the image without the previous stage's labels."""
        images = len(configuration.normalization_schemes)
        unet = build_planned_unet(configuration, channels, heads, deep_supervision=deep_supervision)
        general: Any = build_planned_unet(configuration, images, heads)
        return CollaborativeUNet(unet, general.encoder, general_channels=images, train_general=cls.general_weight > 0)

    def initialize(self) -> None:
        super().initialize()
        checkpoint = self.general_checkpoint()
        if checkpoint is None:
            return
        try:  # once more: --c without a checkpoint begins anew, and so does what is trained over an ended training
            require_unseen(checkpoint, self.plans_manager.dataset_name, self.fold, "the general encoder's")
            load_encoder_checkpoint(self.bare_network.general_encoder, checkpoint)
        except (UserError, ValueError) as e:
            stop_training(f"{type(self).__name__}: {e}")
        self.print_to_log_file(f"The general encoder starts from {checkpoint}")

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """A checkpoint holds the general encoder too, so no other is read."""
        self.general_weights = None
        super().load_checkpoint(filename_or_checkpoint)

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        return nnUNetTrainer._get_deep_supervision_scales(self)  # one target per map, as nnU-Net's loss wants them

    @property
    def uses_relations(self) -> bool:
        """Whether any relation loss is on."""
        return self.general_weight > 0 or self.target_weight > 0

    # --- data

    def get_dataloaders(self) -> tuple[Any, Any]:
        """nnU-Net's own, that for training joined by streams of linked images."""
        training, validation = super().get_dataloaders()
        link = self.usable_link(self.plans_manager, self.configuration_name)
        kept_out = validation_cases(self.plans_manager.dataset_name, self.fold)  # nnU-Net has made the folds by now
        kept_out = self.do_split()[1] if kept_out is None else kept_out
        self._keep_unseen(link, self.plans_manager, self.dataset_json, kept_out)
        sources: dict[str, tuple[LinkedCases, ...]] = {}
        if link is not None and self.general_weight > 0:
            sources["other"] = link.others
        if link is not None and link.unlabelled is not None:
            assert self.unlabelled_images is not None
            sources["unlabelled"] = (self.unlabelled_images,)
        streams = {key: self._linked_batches(key, cases, len(sources)) for key, cases in sources.items()}
        for key, cases in sources.items():
            counts = ", ".join(f"{len(c.cases)} of {c.name}" for c in cases)
            self.print_to_log_file(f"Linked images ({key}): {counts}")
        return JoinedBatches(training, streams), validation

    def _linked_batches(self, key: str, cases: tuple[LinkedCases, ...], loaders: int) -> Any:
        size = self.batch_size
        if key == "unlabelled" and self.unlabelled_batch_size is not None:
            processes = torch.distributed.get_world_size() if self.is_ddp else 1
            size = max(1, self.unlabelled_batch_size // processes)
        share = 0.0 if key == "unlabelled" else self.oversample_foreground_percent
        loader = loader_of_images(self, LinkedDataset(preprocessed_folder(), cases), ImageTransforms, size, share)
        return linked_batches(loader, device=self.device, loaders=loaders)

    def on_train_start(self) -> None:
        super().on_train_start()
        if self.local_rank == 0 and self.current_epoch == 0 and not self.disable_checkpointing:
            remove_snapshots(Path(self.output_folder))

    def on_train_end(self) -> None:
        super().on_train_end()
        if isinstance(self.dataloader_train, JoinedBatches):
            self.dataloader_train.finish()

    # --- steps

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step_in_epoch = 0
        chosen = evenly_spread(self.num_epochs, KEPT) if self.snapshot_epochs is None else self.snapshot_epochs
        self._snapshot = SnapshotMean() if self.current_epoch in chosen else None

    @property
    def ramp(self) -> float:
        """The ramp-up's share of the largest weight at this step; all of it where the ramp lies behind."""
        if self.trained_before:
            return 1.0
        step = self.current_epoch * self.num_iterations_per_epoch + self._step_in_epoch
        steps = self.num_epochs * self.num_iterations_per_epoch
        return ramp_up(step, steps, squared=self.squared_ramp_up, largest=1.0)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One step of Algorithm 1, one backward pass.

        Args:
            batch: nnU-Net's, with images under ``"other"`` and ``"unlabelled"``, each (B, C, *spatial), where linked.
        """
        images = {key: batch[key].to(self.device, non_blocking=True) for key in self._image_keys(batch)}
        target = batch["target"]
        maps = target if isinstance(target, list) else [target]
        maps = [t.to(self.device, non_blocking=True) for t in maps]

        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.device.type) if self.device.type == "cuda" else dummy_context():
            logits, features = self.network(images["data"], images.get("other"), images.get("unlabelled"), True)
            segmentation = self.loss(logits, maps if isinstance(target, list) else maps[0])
            general, apart = self.relation_losses(features)
        weight = self.ramp
        loss = segmentation + weight * (self.general_weight * general + self.target_weight * apart)
        self.descend(loss, self._clip)
        self._step_in_epoch += 1
        values = torch.stack([value.detach() for value in (segmentation, general, apart)]).cpu().numpy()
        return dict(zip(("loss", "general_relation", "target_relation"), values, strict=True))

    def _image_keys(self, batch: dict[str, Any]) -> list[str]:
        return [key for key in ("data", "other", "unlabelled") if key in batch]

    def relation_losses(self, features: BottleneckFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """Eqs. (4) and (5) without their weights; zero where a loss is off."""
        nothing = torch.zeros((), device=self.device)
        if not self.uses_relations:
            return nothing, nothing
        target_covid, general_covid, general_other = (
            None if f is None else relation_matrix(mean_feature(f, over_processes=self.is_ddp)) for f in features
        )
        assert target_covid is not None
        assert general_covid is not None
        if self._snapshot is not None:
            self._snapshot.add(target_covid, general_covid, general_other)
        general = apart = nothing
        if self.general_weight > 0 and general_other is not None:
            general = general_relation_loss(general_other, general_covid, self.relation_reduction)
        if self.target_weight > 0:
            apart = target_relation_loss(general_covid, target_covid, self.relation_reduction)
        return general, apart

    def _clip(self) -> None:
        """Each part by itself: a relation loss may not scale the decoder's step."""
        for part in self.bare_network.children():
            nn.utils.clip_grad_norm_(part.parameters(), GRADIENT_NORM)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """nnU-Net's log of the segmentation loss, a line for the relation losses, and the snapshot."""
        super().on_train_epoch_end(train_outputs)
        general, apart = (
            float(np.mean([o[key] for o in train_outputs])) for key in ("general_relation", "target_relation")
        )
        self.print_to_log_file(
            f"relation losses, unweighted: general {general:.4f}, target {apart:.4f}; ramp-up {self.ramp:.4f}"
        )
        snapshot = self._snapshot.snapshot(self.current_epoch) if self._snapshot else None
        if snapshot is not None and self.local_rank == 0:
            write_snapshot(Path(self.output_folder), snapshot)


class CollaborativeSumTrainer(CollaborativeTrainer):
    """Relation losses as the paper's equations write them, summed over all pairs of channels."""

    relation_reduction = "sum"


class CollaborativeTrainerNoUnlabelled(CollaborativeTrainer):
    """Without the unlabelled images that are linked: "Ours-2D" beside "Ours-2D-UN" (Table V) with one link."""

    use_unlabelled = False


class CollaborativeTrainerNoGeneralLoss(CollaborativeTrainer):
    """Without L_rc^G: the general encoder keeps its random weights (Table III, third method row)."""

    general_weight = 0.0


class CollaborativeTrainerNoTargetLoss(CollaborativeTrainer):
    """Without L_rc^T (Table III)."""

    target_weight = 0.0


class CollaborativeTrainerNoRelationLoss(CollaborativeTrainer):
    """Without both: a random second encoder beside the target encoder (Table III, "baseline")."""

    general_weight = target_weight = 0.0


class CollaborativeTrainerFrozenGeneral(CollaborativeTrainer):
    """A trained and frozen second encoder ("multi-encoder", Wang et al. 2020), from a checkpoint that must be given."""

    general_weight = target_weight = 0.0
    general_weights = ""
