"""From nnU-Net's training target to one channel per foreground class."""

from __future__ import annotations

import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager


class SplitTarget:
    """Splits a target into the foreground classes and the voxels that count.

    Label maps (B, 1, *spatial) become one channel per foreground label; region targets (B, regions[+1], *spatial) are
    already channels, the last being the ignored voxels where the data set has an ignore label.

    Args:
        label_manager: Of the plans and dataset.json.
    """

    def __init__(self, label_manager: LabelManager) -> None:
        self.has_regions: bool = label_manager.has_regions
        self.labels: list[int] = list(label_manager.foreground_labels)
        self.ignore_label: int | None = label_manager.ignore_label

    def __call__(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Reference (B, classes, *spatial), float32 of 0 and 1, and valid (B, 1, *spatial) or ``None``."""
        if self.has_regions:
            if self.ignore_label is None:
                return target.float(), None
            return target[:, :-1].float(), 1 - target[:, -1:].float()
        reference = torch.cat([target == label for label in self.labels], dim=1).float()
        if self.ignore_label is None:
            return reference, None
        return reference, (target != self.ignore_label).float()
