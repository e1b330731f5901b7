"""The classes of a data set as pseudo labels need them: names, values, heads and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.rounds.dataset import Soft
from nnunet_covid.semi_supervised.trust import trusted_labels, trusted_regions, voxels_of

IGNORE = "ignore"


@dataclass(frozen=True)
class Classes:
    """Attributes:
    manager: nnU-Net's reading of the labels.
    names: Name of each foreground class or region to the label values it covers.
    """

    manager: LabelManager
    names: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, dataset_json: Mapping[str, Any], manager: LabelManager) -> Classes:
        """From the description of a data set."""
        names = {}
        for name, value in dataset_json["labels"].items():
            values = tuple(int(v) for v in (value if isinstance(value, list | tuple) else [value]))
            if name != IGNORE and set(values) != {0}:
                names[name] = values
        return cls(manager, names)

    def thresholds(self, eta: float, single: Mapping[str, float]) -> list[float]:
        """η of each head.

        Raises:
            UserError: If a class of that name does not exist.
        """
        known = [*self.names] if self.manager.has_regions else ["background", *self.names]
        for name in single:
            if name not in known:
                raise UserError(f"--threshold {name}=…: the classes are {', '.join(known)}")
        if self.manager.has_regions:
            return [single.get(name, eta) for name in self.names]
        by_value = {values[0]: name for name, values in self.names.items()} | {0: "background"}
        return [single.get(by_value[int(v)], eta) for v in self.manager.all_labels]

    def trusted(
        self,
        probabilities: NDArray[np.floating],
        thresholds: list[float],
        untrusted: int | None,
        certainty: NDArray[np.floating],
    ) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """The pseudo label and the prediction before thresholding, *spatial."""
        if self.manager.has_regions:
            order = list(self.manager.regions_class_order or ())
            return trusted_regions(probabilities, order, thresholds, untrusted, certainty)
        labels = [int(v) for v in self.manager.all_labels]
        return trusted_labels(probabilities, labels, thresholds, untrusted, certainty)

    def voxels(self, label: NDArray[np.integer]) -> dict[str, int]:
        """Voxels of each foreground class or region."""
        return {name: voxels_of(label, values) for name, values in self.names.items()}

    def counts(self, label: NDArray[np.integer]) -> dict[str, int]:
        """Voxels of each label value, background included, ignored voxels left out; what lies outside is background."""
        inside = np.maximum(label, 0)
        return {str(int(v)): int((inside == v).sum()) for v in self.manager.all_labels}

    @property
    def soft(self) -> Soft:
        """How soft labels are drawn for these classes."""
        if self.manager.has_regions:
            return Soft(tuple(int(v) for v in self.manager.regions_class_order or ()), True)
        return Soft(tuple(int(v) for v in self.manager.foreground_labels), False)

    def dice(self, predicted: NDArray[np.integer], reference: NDArray[np.integer]) -> dict[str, float]:
        """Dice of each class; not a number where neither has it, as in nnU-Net's summaries. Ignored voxels are out."""
        counted = reference != self.manager.ignore_label if self.manager.has_ignore_label else np.True_
        result = {}
        for name, values in self.names.items():
            p, r = np.isin(predicted, values) & counted, np.isin(reference, values) & counted
            total = int(p.sum()) + int(r.sum())
            result[name] = 2 * int((p & r).sum()) / total if total else float("nan")
        return result


def with_ignore_label(dataset_json: dict[str, Any]) -> dict[str, Any]:
    """The same description with an ignore label, which must be the highest value."""
    labels = dict(dataset_json["labels"])
    if IGNORE not in labels:
        values = [v for value in labels.values() for v in (value if isinstance(value, list) else [value])]
        labels[IGNORE] = max(int(v) for v in values) + 1
    return {**dataset_json, "labels": labels}
