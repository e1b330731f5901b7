"""A trained model's folder as calibration knows it: validation predictions that it reads, checkpoints that it writes.

Everything that can be wrong with the predictions is told here in one sentence; nothing is computed.

A checkpoint names the trainer whose ``build_network_architecture`` prediction calls. Training goes by ``-tr`` instead,
for ``--c``, ``--val`` and ``-pretrained_weights`` alike, and reads the weights only: it sees no calibration. So a
calibrated checkpoint names ``TRAINER_calibrated``, which builds the same network with a hook that scales and shifts its
result, and its weights stay what they are to the last bit. The numbers travel with the weights as metadata of the state
dict, in which torch keeps versions of layers: they belong to the tensors that prediction loads, add no key to them, and
are dropped by whoever copies the tensors alone. A calibrated network refuses weights that come without them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.dataset_json import Split, fold_of, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.labels import LabelScheme, scheme_of_labels
from nnunet_covid.evaluation.probability_maps import require_own
from nnunet_covid.files import environment_folder, files_in, replacing, some_of
from nnunet_covid.header_claims import read_probabilities
from nnunet_covid.nnunet.dataset import read_labels, read_splits
from nnunet_covid.nnunet.models import fold_folders, read_plans, require_trained_model, training_command

SUFFIX = "_calibrated"
"""Of the trainer that a calibrated checkpoint names."""
KEY = "nnunet_covid_calibration"
"""In the metadata of the whole network."""
LARGEST_SPLIT = 5
"""Parts of a single fold's cases, as nnU-Net's cross-validation has."""


@dataclass(frozen=True)
class ValidationCase:
    """One case that some fold has predicted without having been trained on it.

    Attributes:
        name: Of the case.
        part: Fitting leaves out the whole part of a case when it is measured: its fold, or its share of a single fold.
        probabilities: nnU-Net's ``CASE.npz``.
        reference: Its label map.
    """

    name: str
    part: str
    probabilities: Path
    reference: Path


@dataclass(frozen=True)
class Validation:
    """All validation cases of a model and how its files are read.

    Attributes:
        checkpoints: Of the folds that the cases come from.
        scheme: Classes of the data set.
        label_manager, reader: nnU-Net's own.
        unchecked: Whether there was no list of training cases to hold the cases against.
    """

    cases: tuple[ValidationCase, ...]
    checkpoints: tuple[Path, ...]
    scheme: LabelScheme
    label_manager: Any
    reader: Any
    unchecked: bool

    def read(self, case: ValidationCase) -> tuple[NDArray[np.float32], NDArray[Any]]:
        """Probabilities (heads, *spatial) and reference (*spatial) of a case.

        Raises:
            UserError: If a file cannot be read, they do not fit each other or the labels, or the probabilities are not
                those of the label map beside them.
        """
        probabilities = read_probabilities(case.probabilities)
        reference = read_labels(self.reader, case.reference)[0][0]
        expected = (self.scheme.channels, *reference.shape)
        if probabilities.shape != expected:
            raise UserError(
                f"{case.probabilities} has the shape {probabilities.shape}, labels and reference ask for {expected}"
            )
        beside = read_labels(self.reader, case.probabilities.with_name(case.reference.name))[0]
        require_own(case.probabilities, probabilities, beside, regions=self.scheme.has_regions)
        return probabilities, reference


def open_validation(
    model: Path, references: Path | None = None, checkpoint: str = "checkpoint_final.pth"
) -> Validation:
    """The validation cases of every fold of a model folder that has this checkpoint, but of ``fold_all``.

    Args:
        model: ``TRAINER__PLANS__CONFIGURATION`` as ``nnUNetv2_train`` writes it.
        references: Label maps of the cases; nnU-Net's ``gt_segmentations`` if not given.
        checkpoint: File name.

    Raises:
        UserError: If anything is missing, a case occurs twice, or a fold was trained on one of its cases.
    """
    folds = trained_folds(model, checkpoint)
    manager = read_plans(model / "plans.json")
    plans, dataset_json = manager.plans, read_dataset_json(model / "dataset.json")
    preprocessed = environment_folder("nnUNet_preprocessed")
    if references is None:
        if preprocessed is None:
            raise UserError("nnUNet_preprocessed is not set, so name the folder of the reference label maps")
        references = preprocessed / plans["dataset_name"] / "gt_segmentations"
    ending = dataset_json["file_ending"]
    split = read_splits(plans["dataset_name"]) or []
    names = {fold: _predicted_cases(fold, ending, plans) for fold in folds}
    place = _place_of_each(names)
    for fold, cases in names.items():
        _refuse_trained_on(fold, cases, split)
    parts = {fold.name: cases for fold, cases in names.items()} if len(folds) > 1 else _parts_of(*names.values())
    found = tuple(
        ValidationCase(name, part, place[name] / "validation" / f"{name}.npz", references / f"{name}{ending}")
        for part, cases in parts.items()
        for name in cases
    )
    missing = [case.reference.name for case in found if not case.reference.is_file()]
    if missing:
        raise UserError(f"{references} lacks the references {some_of(missing)}")
    return Validation(
        found,
        tuple(fold / checkpoint for fold in folds),
        scheme_of_labels(dataset_json["labels"]),
        manager.get_label_manager(dataset_json),
        manager.image_reader_writer_class(),
        unchecked=not split,
    )


def trained_folds(model: Path, checkpoint: str) -> list[Path]:
    """Folders of the folds with a checkpoint, by number.

    ``fold_all`` is left out: what it is validated on it was trained on.

    Raises:
        UserError: If there are none, or the folder is no model.
    """
    require_trained_model(model)
    found = fold_folders(model, checkpoint)
    folds = [path for path in found if path.name != "fold_all"]
    if not folds:
        reason = "but fold_all, which was trained on all its cases" if found else "in any fold; train it first"
        raise UserError(f"{model} has no {checkpoint} {reason}")
    return folds


def _predicted_cases(fold: Path, ending: str, plans: dict[str, Any]) -> list[str]:
    """Names of the cases that a fold has predicted, all with their probabilities."""
    folder = fold / "validation"
    names = [path.name.removesuffix(ending) for path in files_in(folder, ending)]
    missing = [name for name in names if not (folder / f"{name}.npz").is_file()]
    if missing or not names:
        number = fold.name.removeprefix("fold_")
        command = training_command(plans["dataset_name"], fold.parent.name, number, "--val", "--npz")
        raise UserError(
            f"{folder} has no probabilities{f' of {some_of(missing)}' if missing else ''}; "
            f"they are written by: {command}"
        )
    return names


def _place_of_each(names: dict[Path, list[str]]) -> dict[str, Path]:
    """The one fold of every case."""
    place: dict[str, Path] = {}
    for fold, cases in names.items():
        for name in cases:
            if name in place:
                raise UserError(
                    f"case {name} is in the validation of {place[name].name} and of {fold.name}: "
                    "these folds are not of one cross-validation, or hold files of an earlier one"
                )
            place[name] = fold
    return place


def _refuse_trained_on(fold: Path, names: list[str], splits: list[Split]) -> None:
    listed = fold_of(splits, fold.name.removeprefix("fold_"))
    if listed and (leaked := set(names) & set(listed["train"])):
        raise UserError(
            f"{fold / 'validation'} holds {some_of(leaked)}, training cases of this fold in splits_final.json: "
            "files of another split; delete the folder and validate again"
        )


def _parts_of(names: list[str]) -> dict[str, list[str]]:
    """The cases of a single fold in up to five parts; neighbours by name stay together, as slices of a patient are."""
    if len(names) < 2:
        raise UserError("a single validation case cannot be fitted and measured at once: train another fold")
    parts = np.array_split(np.array(sorted(names)), min(LARGEST_SPLIT, len(names)))
    return {f"part_{i}": part.tolist() for i, part in enumerate(parts)}


def write_calibration(checkpoints: Sequence[Path], calibration: Calibration) -> None:
    """Put one calibration into all checkpoints, in place of an earlier one.

    All are written under temporary names before the first is renamed.

    Raises:
        UserError: If one cannot be read or written; then nothing has changed.
    """
    _rewrite(checkpoints, SUFFIX, {KEY: calibration.to_json()})


def remove_calibration(checkpoints: Sequence[Path]) -> list[Path]:
    """Undo :func:`write_calibration`; returns the checkpoints that were calibrated.

    Raises:
        UserError: As :func:`write_calibration`.
    """
    calibrated = [path for path in checkpoints if _read(path)["trainer_name"].endswith(SUFFIX)]
    _rewrite(calibrated, "", {})
    return calibrated


def _rewrite(checkpoints: Sequence[Path], suffix: str, entry: dict[str, Any]) -> None:
    """Change the trainer's name and the metadata of the whole network; the tensors are the same objects."""
    try:
        with ExitStack() as renamed_at_the_end:
            for path in checkpoints:
                checkpoint = _read(path)
                checkpoint["trainer_name"] = checkpoint["trainer_name"].removesuffix(SUFFIX) + suffix
                weights: Any = OrderedDict(checkpoint["network_weights"])
                weights._metadata = OrderedDict(getattr(checkpoint["network_weights"], "_metadata", {}))
                others = {name: value for name, value in weights._metadata.get("", {}).items() if name != KEY}
                weights._metadata[""] = others | entry
                checkpoint["network_weights"] = weights
                with renamed_at_the_end.enter_context(replacing(path)).open("wb") as stream:
                    torch.save(checkpoint, stream)
    except (OSError, RuntimeError) as e:  # a full disk is a RuntimeError of torch
        raise UserError(f"{checkpoints[0].parent.parent}: checkpoints cannot be written ({e})") from e


def _read(path: Path) -> dict[str, Any]:
    return read_checkpoint(path, needed=("trainer_name",))
