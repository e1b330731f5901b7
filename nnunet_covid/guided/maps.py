"""Infection maps: what they hold and how they are stored as an image channel, and where a cross-validation left them.

The data set that is made of them stands in ``dataset``, their prediction for new images in ``prediction``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.dataset_json import Labels, Split, foreground_values, has_regions, lesion_values
from nnunet_covid.endings import PICTURE_ENDINGS
from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, some_of
from nnunet_covid.nnunet.dataset import read_splits
from nnunet_covid.nnunet.models import fold_folders, training_command

Map = tuple[int, Path]
"""The fold that made a case's map, and its file."""
MapKind = Literal["label", "probability"]
MAP_KINDS = ("label", "probability")
NO_NORMALISATION = "nonorm"
DIVIDED_BY_255 = "rgb_to_0_1"


def channel_name(kind: MapKind, ending: str) -> str:
    """The channel's name, by which nnU-Net chooses its normalisation: the network always sees 0 to 1.

    Pictures (3D TIFF among them) hold whole numbers, so probabilities are stored there as 0 to 255.
    """
    return DIVIDED_BY_255 if kind == "probability" and ending in PICTURE_ENDINGS else NO_NORMALISATION


@dataclass(frozen=True)
class Infection:
    """The classes of a data set that are infection: all but lungs and other organs, or all where there are no others.

    Attributes:
        values: Of label maps.
        heads: Of the network: their indices in probabilities.
        has_regions: Whether heads are regions.
    """

    values: tuple[int, ...]
    heads: tuple[int, ...]
    has_regions: bool

    @classmethod
    def among(cls, labels: Labels) -> Infection:
        """Those of the entry ``labels`` of dataset.json."""
        offered, regions = foreground_values(labels), has_regions(labels)
        counted = lesion_values(labels)
        values = sorted({value for each in counted.values() for value in each})
        known = [0, *sorted(value for each in offered.values() for value in each)]
        of_values, of_names = map(known.index, values), (i for i, name in enumerate(offered) if name in counted)
        heads = of_names if regions else of_values
        return cls(tuple(values), tuple(heads), regions)

    def in_labels(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Where there is any of them; ignored voxels count as none."""
        return np.isin(labels, self.values)

    def probability(self, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of any of them: (heads, *axes) to (*axes).

        With a softmax their sum; with regions the largest, since they lie within each other.
        """
        chosen = probabilities[list(self.heads)]
        return chosen.max(axis=0) if self.has_regions else chosen.sum(axis=0)


def as_channel(infection: NDArray[Any], kind: MapKind, ending: str) -> NDArray[Any]:
    """The values that are stored: 0 and 1, probabilities, or probabilities in 255 steps.

    Args:
        infection: Boolean for ``"label"``, probabilities for ``"probability"``.
    """
    if kind == "label":
        return infection.astype(np.uint8)
    if channel_name(kind, ending) == DIVIDED_BY_255:
        return np.round(infection.clip(0, 1) * 255).astype(np.uint8)
    return infection.clip(0, 1).astype(np.float32)


def maps_of_folds(model: Path, kind: MapKind, ending: str, cases: Sequence[str]) -> dict[str, Map]:
    """Fold and file of every case's map: the validation prediction of a model that has not seen the image.

    Where nnU-Net's split file is at hand, a fold's maps are those of its validation cases alone: others, of a training
    with other splits, may lie beside them, and the model has seen their images. The fold ``all`` has seen every case.

    Args:
        model: ``RESULTS/DATASET/TRAINER__PLANS__CONFIGURATION``.
        kind: Label maps or probabilities.
        ending: Of the label maps.
        cases: All that need a map.

    Raises:
        UserError: If cases lack a map, naming the command that makes it.
    """
    suffix = ending if kind == "label" else ".npz"
    splits = read_splits(model.parent.name) or []
    found: dict[str, Map] = {}
    for fold in _folds(model):
        kept_out = splits[fold]["val"] if fold < len(splits) else None
        for path in _maps(model, fold, suffix):
            case = path.name.removesuffix(suffix)
            if kept_out is None or case in kept_out:
                found.setdefault(case, (fold, path))
    if missing := [case for case in cases if case not in found]:
        what = "probabilities" if suffix == ".npz" else "label maps"
        commands = "; ".join(_commands(model, suffix))
        remedy = "train stage 1 on folds whose validation cases cover this data set, under the same case names"
        remedy = f"make them with {commands}" if commands else remedy
        raise UserError(f"{model} has no validation {what} of {len(missing)} cases ({some_of(missing)}); {remedy}")
    return {case: found[case] for case in cases}


def folds_of_maps(maps: dict[str, Map]) -> list[Split]:
    """Splits in which every case is validated in the fold whose model made its map, in the order of folds."""
    validated = {case: fold for case, (fold, _) in sorted(maps.items())}
    return [
        {"train": [c for c in validated if validated[c] != fold], "val": [c for c in validated if validated[c] == fold]}
        for fold in sorted(set(validated.values()))
    ]


def _folds(model: Path) -> list[int]:
    names = (path.name.removeprefix("fold_") for path in fold_folders(model))
    return [int(name) for name in names if name.isdecimal()]


def _maps(model: Path, fold: int, suffix: str) -> list[Path]:
    return files_in(model / f"fold_{fold}" / "validation", suffix)


def _commands(model: Path, suffix: str) -> Iterator[str]:
    """The commands that make the maps of the folds without them: training, or validation of a finished one."""
    present = _folds(model)
    lacking: dict[bool, list[str]] = {}
    for fold in range(max([4, *present]) + 1):  # nnU-Net's own split has five folds
        if not _maps(model, fold, suffix):
            trained = (model / f"fold_{fold}" / "checkpoint_final.pth").is_file()
            lacking.setdefault(trained, []).append(str(fold))
    for trained, folds in lacking.items():
        shown = folds[0] if len(folds) == 1 else "FOLD"
        flags = ["--npz"] * (suffix == ".npz") + ["--val"] * trained
        every = f" for FOLD {', '.join(folds)}" if len(folds) > 1 else ""
        yield training_command(model.parent.name, model.name, shown, *flags) + every
