"""What a training on unlabelled images needs beside the trainer: targets, the joined loss, an epoch's sums.

Moving averages stand in :mod:`nnunet_covid.semi_supervised.moving_average`, CutMix in
:mod:`nnunet_covid.semi_supervised.mixing`, trust in :class:`nnunet_covid.semi_supervised.labelling.Heads`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import distributed

from nnunet_covid.losses.reweighted_cross_entropy import class_weights
from nnunet_covid.semi_supervised.labelling import Classes

ENTRY = "consistency"
"""Of a checkpoint: the student and the running counts, for continuing."""
FORGETTING = 0.5
"""What earlier epochs count in the running class counts, by epoch."""


def loss_targets(
    labels: torch.Tensor, manager: LabelManager, scales: Sequence[Sequence[float]] | None
) -> torch.Tensor | list[torch.Tensor]:
    """Label maps in the shape in which nnU-Net's loader hands targets to a loss.

    Args:
        labels: (B, *spatial).
        manager: Says what are regions and which value is ignored.
        scales: Of deep supervision; ``None`` for one target that is no list.

    Returns:
        Each (B, 1, *spatial), or one channel per region and one for the ignored voxels.
    """
    if manager.has_regions:
        ignored = [manager.ignore_label] if manager.has_ignore_label else []
        values = [torch.tensor(region, device=labels.device) for region in [*manager.foreground_regions, *ignored]]
        whole = torch.stack([torch.isin(labels, value) for value in values], 1)
    else:
        whole = labels[:, None]
    if scales is None:
        return whole
    maps = DownsampleSegForDSTransform(scales)(segmentation=whole.flatten(0, 1))["segmentation"]
    return [one.unflatten(0, whole.shape[:2]) for one in maps]


def label_maps(target: torch.Tensor, manager: LabelManager) -> torch.Tensor:
    """The label maps (B, *spatial) behind a target at full resolution: the reverse of :func:`loss_targets`."""
    if not manager.has_regions:
        return target[:, 0].short()
    values = [*manager.regions_class_order, *([manager.ignore_label] if manager.has_ignore_label else [])]
    labels = torch.zeros_like(target[:, 0], dtype=torch.int16)
    for channel, value in zip(target.unbind(1), values, strict=True):
        labels[channel > 0] = value
    return labels


def nothing_of(outputs: Any) -> torch.Tensor:
    """0 with the gradient 0 in a tensor, or in each of several, however nested."""
    if isinstance(outputs, torch.Tensor):
        return 0 * outputs.float().sum()
    return torch.stack([nothing_of(one) for one in outputs]).sum()


class JoinedLoss:
    """A trainer's own loss, and beside it the same of a batch of unlabelled images, for one step.

    Args:
        own: Of the labelled batch.
        other: Of the unlabelled one.
        answer: Gives the student's outputs for it.
        target: The teacher's labels.
        weight: Of the second; with 0 the student does not see the unlabelled images at all.
        share: A further factor of the second, a number or a scalar tensor.

    Attributes:
        outputs: The student's last outputs.
        unlabelled: The second loss, without its weight.
    """

    def __init__(
        self,
        own: Any,
        other: Any,
        answer: Callable[[], Any],
        target: Any,
        weight: float,
        share: torch.Tensor | float = 1.0,
    ) -> None:
        self.own = own
        self.other = other
        self.answer = answer
        self.target = target
        self.weight = weight
        self.share = share
        self.outputs: Any = None
        self.unlabelled: torch.Tensor | None = None

    def __call__(self, outputs: Any, target: Any) -> torch.Tensor:
        """The sum, a scalar."""
        labelled = self.own(outputs, target)
        if not self.weight:
            return labelled
        self.outputs = self.answer()
        unlabelled = torch.as_tensor(self.other(self.outputs, self.target), device=labelled.device)  # 0 of no voxel
        self.unlabelled = unlabelled.detach()
        if not unlabelled.requires_grad:  # other processes wait for this one in the backward pass of their batch norm
            unlabelled = unlabelled + nothing_of(self.outputs)
        return labelled + self.weight * self.share * unlabelled


class EpochSums:
    """What the batches of one epoch showed, added up where they are, so that a step waits for nothing.

    Args:
        classes: Of the data set, with an ignore label.
        device: Of the batches.
    """

    def __init__(self, classes: Classes, device: torch.device) -> None:
        self.classes = classes
        self.values = [int(v) for v in classes.manager.all_labels]
        count, names = len(self.values), len(classes.names)
        sizes = {"predicted": count, "kept": count, "seen": count, "both": names, "either": names, "steps": 1}
        self._parts = {name: torch.zeros(size, dtype=torch.int64, device=device) for name, size in sizes.items()}
        self._parts["loss"] = torch.zeros(1, device=device)  # in single precision: Apple's GPUs have no double

    def add_trust(self, predicted: torch.Tensor, kept: torch.Tensor) -> None:
        """Add the teacher's label maps (B, *spatial) before and after trust."""
        self._parts["predicted"] += self._count(predicted)
        self._parts["kept"] += self._count(kept)

    def add_targets(self, *labels: torch.Tensor) -> None:
        """Add label maps that the losses see."""
        for one in labels:
            self._parts["seen"] += self._count(one)

    def add_answer(self, student: torch.Tensor, teacher: torch.Tensor, loss: torch.Tensor) -> None:
        """Add what student and teacher predict for the mixed images, and the loss."""
        for i, values in enumerate(self.classes.names.values()):
            wanted = torch.tensor(values, device=student.device)
            mine, theirs = torch.isin(student, wanted), torch.isin(teacher, wanted)
            self._parts["both"][i] += (mine & theirs).sum()
            self._parts["either"][i] += mine.sum() + theirs.sum()
        self._parts["loss"] += loss
        self._parts["steps"] += 1

    def _count(self, labels: torch.Tensor) -> torch.Tensor:
        return torch.stack([(labels == value).sum() for value in self.values])

    def over_processes(self) -> None:
        """Add up over the processes of a multi-GPU training."""
        for part in self._parts.values():
            distributed.all_reduce(part)

    def counts(self, part: str) -> dict[str, int]:
        """Voxels of each label value, as :meth:`nnunet_covid.semi_supervised.labelling.Classes.voxels` takes them."""
        return {str(value): int(n) for value, n in zip(self.values, self._parts[part].tolist(), strict=True)}

    def trusted(self) -> float:
        """Share of all voxels that the teacher is sure of; not a number without any."""
        return _ratio(self._parts["kept"].sum(), self._parts["predicted"].sum())

    def trusted_by_class(self) -> dict[str, float]:
        """Of the voxels that it predicts for a class, the share that it is sure of; by foreground class."""
        predicted, kept = (self.classes.voxels(self.counts(part)) for part in ("predicted", "kept"))
        return {name: kept[name] / n if n else float("nan") for name, n in predicted.items()}

    def never_trusted(self) -> list[str]:
        """Foreground classes of which not one voxel was trusted."""
        return [name for name, n in self.classes.voxels(self.counts("kept")).items() if not n]

    def agreement(self) -> float:
        """Dice of student and teacher, mean over the classes that either predicts."""
        both, either = self._parts["both"], self._parts["either"]
        found = either > 0
        return float((2 * both[found] / either[found]).mean())

    def loss(self) -> float:
        """Mean of the unlabelled loss."""
        return _ratio(self._parts["loss"].sum(), self._parts["steps"].sum())


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float:
    return float(part) / float(whole) if whole else float("nan")


class RunningCounts:
    """Voxels of each label value that the losses saw, earlier epochs counting less: P_c of SSA-Net's eq. (8).

    Attributes:
        counts: By label value; empty before the first epoch has ended.
    """

    def __init__(self, counts: Mapping[str, float] | None = None) -> None:
        self.counts: dict[str, float] = dict(counts or {})

    def add(self, new: Mapping[str, int]) -> None:
        """Take those of an epoch."""
        self.counts = {value: FORGETTING * self.counts.get(value, 0.0) + n for value, n in new.items()}

    def weights(self) -> list[float] | None:
        """Weights of eq. (8); ``None`` while a class has not been seen: its weight would be infinite."""
        try:
            return class_weights([self.counts[value] for value in self.counts]).tolist()
        except ValueError:
            return None
