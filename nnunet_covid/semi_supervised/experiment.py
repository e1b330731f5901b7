"""Where a run reads and writes: data set, plans, fold, trainer, and the folders that follow from them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_covid.dataset_json import read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of
from nnunet_covid.nnunet.dataset import dataset_name, read_splits

OWN_FOLDS = 5
"""That nnU-Net makes where there is no split file."""
SUFFIX = "_pseudo"
TAG = re.compile(r"^[A-Za-z0-9]+$")


@dataclass(frozen=True)
class Experiment:
    """One trainer on one fold of one configuration.

    Attributes:
        dataset: Full name.
        configuration, fold, plans_name: As behind ``nnUNetv2_train``.
        trainer: Name of the trainer.
        tag: What stands behind ``_pseudo`` in the name of the resulting model.
        device: Where to train and predict.
    """

    dataset: str
    configuration: str
    fold: int | str
    plans_name: str
    trainer: str
    tag: str
    device: torch.device

    @property
    def model_name(self) -> str:
        """What to give to ``nnUNetv2_predict -tr``."""
        return f"{self.trainer}{SUFFIX}{self.tag}"

    @property
    def data_folder(self) -> Path:
        """The data set's pre-processed folder."""
        return Path(nnUNet_preprocessed.require()) / self.dataset

    @property
    def raw_folder(self) -> Path | None:
        """The raw data set, where nnU-Net knows of one."""
        folder = Path(nnUNet_raw.get() or "") / self.dataset
        return folder if nnUNet_raw.is_set() and folder.is_dir() else None

    @property
    def identifier(self) -> str:
        """Name of the model folder."""
        return f"{self.model_name}__{self.plans_name}__{self.configuration}"

    @property
    def model_folder(self) -> Path:
        """The resulting model."""
        return Path(nnUNet_results.require()) / self.dataset / self.identifier

    @property
    def fold_folder(self) -> Path:
        """The resulting model's fold."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def report_folder(self) -> Path:
        """State, manifests, pictures, labels in the images' own geometry, and the models of the rounds."""
        return self.fold_folder / "pseudo_labels"

    @property
    def models_folder(self) -> Path:
        """The models of the rounds."""
        return self.report_folder / "models"

    @property
    def training_folder(self) -> Path:
        """Logs, and the copies of the plans that a trainer makes."""
        return self.report_folder / "training"

    @property
    def log(self) -> Path:
        """What nnU-Net prints."""
        return self.training_folder / "nnunet_output.txt"

    def shown_folder(self, round_number: int) -> Path:
        """The pseudo labels of a round in the images' own geometry, and their manifest."""
        return self.report_folder / f"round_{round_number:03d}"

    @property
    def label_folder(self) -> Path:
        """Pre-processed pseudo labels."""
        return self.data_folder / "pseudo_labels" / f"{self.identifier}__fold_{self.fold}"

    def labels_of(self, round_number: int) -> Path:
        """Those of a round."""
        return self.label_folder / f"round_{round_number:03d}"

    @property
    def plans_file(self) -> Path:
        """The plans."""
        return self.data_folder / f"{self.plans_name}.json"

    @cached_property
    def plans(self) -> dict[str, Any]:
        """Its content."""
        return load_json(str(self.plans_file))

    def plans_digest(self, *left_out: str) -> str:
        """Eight digits that change with what the plans say of the configuration.

        Args:
            left_out: Entries of the configuration that do not matter.
        """
        configuration = self.configuration_manager.configuration
        relevant = {
            "configuration": {k: v for k, v in configuration.items() if k not in left_out},
            "intensities": self.plans_manager.foreground_intensity_properties_per_channel,
            "transpose": self.plans_manager.transpose_forward,
            "reader": self.plans["image_reader_writer"],
        }
        return digest_of(relevant, 8)

    @cached_property
    def plans_manager(self) -> PlansManager:
        """nnU-Net's reading of the plans."""
        return PlansManager(self.plans)

    @cached_property
    def configuration_manager(self) -> ConfigurationManager:
        """nnU-Net's reading of the configuration."""
        return self.plans_manager.get_configuration(self.configuration)

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """The data set's description."""
        return read_dataset_json(self.data_folder / "dataset.json")

    @cached_property
    def trainer_class(self) -> type:
        """The class that nnU-Net finds under the trainer's name."""
        with quiet():
            return recursive_find_trainer_class_by_name(self.trainer)


def find_experiment(
    dataset: str, configuration: str, fold: str, trainer: str, tag: str, plans_name: str, device: torch.device
) -> Experiment:
    """The experiment behind what is given to a command.

    Raises:
        UserError: If nnU-Net would not find one of them, or cannot do with it what rounds need.
    """
    for variable in (nnUNet_preprocessed, nnUNet_results):
        if not variable.is_set():
            raise UserError(f"{variable.env_var_name} is not set: export nnU-Net's three folders first")
    if not TAG.match(tag):
        raise UserError(f"`name` {tag}: letters and digits only, it becomes part of the model's name")
    if fold != "all" and not fold.isdigit():
        raise UserError(f"fold {fold}: must be a number or 'all'")
    number: int | str = fold if fold == "all" else int(fold)
    experiment = Experiment(dataset_name(dataset), configuration, number, plans_name, trainer, tag, device)
    _check_plans(experiment)
    _check_fold(experiment)
    try:
        _ = experiment.trainer_class
    except RuntimeError as e:
        raise UserError(
            f"`trainer` {trainer}: nnU-Net finds no such trainer; see 'nnunet-covid doctor' and nnUNet_extTrainer"
        ) from e
    return experiment


def _check_plans(experiment: Experiment) -> None:
    plans_file = experiment.plans_file
    if not plans_file.is_file():
        raise UserError(f"{plans_file} does not exist: run nnUNetv2_plan_and_preprocess first")
    known = list(experiment.plans["configurations"])
    if experiment.configuration not in known:
        raise UserError(f"{plans_file} has no configuration '{experiment.configuration}', but {', '.join(known)}")
    if experiment.configuration_manager.previous_stage_name is not None:
        raise UserError(
            f"'{experiment.configuration}' is the second stage of a cascade, which needs first-stage predictions of "
            "every training case; use 3d_fullres or 3d_lowres"
        )
    folder = experiment.data_folder / experiment.configuration_manager.data_identifier
    if not folder.is_dir() or not any(folder.glob("*.pkl")):
        raise UserError(f"{folder} holds no pre-processed cases: run nnUNetv2_preprocess -c {experiment.configuration}")


def _check_fold(experiment: Experiment) -> None:
    path = experiment.data_folder / "splits_final.json"
    splits = read_splits(experiment.dataset)
    folds = OWN_FOLDS if splits is None else len(splits)
    if experiment.fold != "all" and int(experiment.fold) >= folds:
        raise UserError(f"{path} has no fold {experiment.fold}, but {folds} fold(s) from 0 on")


@contextlib.contextmanager
def quiet(log: Path | None = None) -> Iterator[None]:
    """Keep what nnU-Net prints away from the terminal; in a log file, if one is given."""
    if log is None:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
        yield
