"""Labelled and pseudo-labelled cases side by side, for nnU-Net's own data loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_covid.semi_supervised.soft_labels import draw_labels

PREFIX = "pseudo/"
"""In front of the name of a pseudo-labelled case, so that it can never be taken for a labelled one of the same name."""


@dataclass(frozen=True)
class PseudoCase:
    """Files of one case, without their endings: the image and its pseudo label."""

    image: Path
    label: Path


@dataclass(frozen=True)
class Soft:
    """How soft labels are drawn: the value of each stored channel, and whether channels are regions."""

    values: tuple[int, ...]
    regions: bool


class LabelledAndPseudo(nnUNetBaseDataset):
    """A data set of both kinds; it holds names and opens files when a case is asked for.

    Args:
        labelled: nnU-Net's data set of the labelled cases; ``None`` leaves them out.
        pseudo: Pseudo-labelled cases by name.
        annotated: Key under which nnU-Net's loader looks for annotated voxels where there is an ignore label. Labelled
            cases of a data set without that label lack it: there every voxel is annotated.
        soft: Draw soft labels instead of loading hard ones.
    """

    def __init__(
        self,
        labelled: nnUNetBaseDataset | None,
        pseudo: Mapping[str, PseudoCase],
        annotated: tuple[int, ...] | None = None,
        soft: Soft | None = None,
    ) -> None:
        self.labelled = labelled
        self.pseudo = {PREFIX + name: case for name, case in pseudo.items()}
        self.annotated = annotated
        self.soft = soft
        names = list(labelled.identifiers) if labelled is not None else []
        self.identifiers = sorted(names) + sorted(self.pseudo)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Image (C, *spatial), label (1, *spatial), nothing (no cascades here) and properties."""
        if identifier in self.pseudo:
            return self._load_pseudo(self.pseudo[identifier])
        assert self.labelled is not None
        data, seg, previous, properties = self.labelled.load_case(identifier)
        if self.annotated is not None and self.annotated not in properties["class_locations"]:
            shape = tuple(data.shape[1:])
            properties["class_locations"][self.annotated] = _anywhere(shape)
        return data, seg, previous, properties

    def _load_pseudo(self, case: PseudoCase) -> tuple[Any, Any, None, dict[str, Any]]:
        data = open_blosc2(case.image.with_name(case.image.name + ".b2nd"))
        properties = load_pickle(str(case.label.with_name(case.label.name + ".pkl")))
        seg = open_blosc2(case.label.with_name(case.label.name + "_seg.b2nd"))
        if self.soft is not None:
            stored = open_blosc2(case.label.with_name(case.label.name + "_soft.b2nd"))[:]
            drawn = draw_labels(stored, self.soft.values, np.random.uniform(), regions=self.soft.regions)
            seg = np.where((seg[:] == -1) & (drawn == 0), np.int16(-1), drawn)
        return data, seg, None, properties

    @staticmethod
    def save_case(data: Any, seg: Any, properties: dict[str, Any], output_filename_truncated: str) -> None:
        """Not here."""
        raise NotImplementedError("pseudo-labelled cases are written by nnunet_covid.nnunet.rounds.label_files")

    @staticmethod
    def get_identifiers(folder: str) -> Sequence[str]:  # type: ignore[override]
        """Not here."""
        raise NotImplementedError("cases come from two folders")


def open_blosc2(path: Path) -> Any:
    """An array on disk, read where it is sliced."""
    return blosc2.open(urlpath=str(path), mode="r", dparams={"nthreads": 1})


def _anywhere(shape: tuple[int, ...]) -> np.ndarray:
    """Voxels drawn from the whole image, as nnU-Net keeps locations: a leading zero, then the coordinates."""
    rng = np.random.RandomState(1234)
    columns = [np.zeros(1000, int), *(rng.randint(0, size, 1000) for size in shape)]
    return np.stack(columns, axis=1)
