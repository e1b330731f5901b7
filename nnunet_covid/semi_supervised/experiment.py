"""Where a run reads and writes: data set, plans, fold, trainer, and the folders that follow from them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_covid.dataset_json import IMAGES, read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of, environment_folder
from nnunet_covid.nnunet.dataset import dataset_name, read_splits
from nnunet_covid.nnunet.models import read_plans
from nnunet_covid.nnunet.trainer_names import no_such_trainer
from nnunet_covid.semi_supervised.options import check_tag

OWN_FOLDS = 5
"""That nnU-Net makes where there is no split file."""


@dataclass(frozen=True)
class Experiment:
    """One trainer on one fold of one configuration.

    Attributes:
        dataset: Full name.
        configuration, fold, plans_name: As behind ``nnUNetv2_train``.
        trainer: Name of the trainer, and ``trainer_class``, the class that nnU-Net finds under it.
        tag: What stands behind ``_pseudo`` in the name of the resulting model.
        device: Where to train and predict.
        plans_manager, configuration_manager: nnU-Net's reading of the plans and of the configuration.
        dataset_json: The data set's description.
    """

    dataset: str
    configuration: str
    fold: int | str
    plans_name: str
    trainer: str
    trainer_class: type
    tag: str
    device: torch.device
    plans_manager: PlansManager
    configuration_manager: ConfigurationManager
    dataset_json: dict[str, Any]

    @property
    def model_name(self) -> str:
        """What to give to ``nnUNetv2_predict -tr``."""
        return f"{self.trainer}_pseudo{self.tag}"

    @property
    def data_folder(self) -> Path:
        """The data set's pre-processed folder."""
        return Path(nnUNet_preprocessed.require()) / self.dataset

    @property
    def raw_folder(self) -> Path | None:
        """The raw data set, where nnU-Net knows of one."""
        raw = environment_folder("nnUNet_raw")
        return raw / self.dataset if raw is not None and (raw / self.dataset).is_dir() else None

    @property
    def model_folder(self) -> Path:
        """The resulting model."""
        name = f"{self.model_name}__{self.plans_name}__{self.configuration}"
        return Path(nnUNet_results.require()) / self.dataset / name

    @property
    def fold_folder(self) -> Path:
        """The resulting model's fold."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def report_folder(self) -> Path:
        """State, manifests, pictures, labels in the images' own geometry, and the models of the rounds."""
        return self.fold_folder / "pseudo_labels"

    def shown_folder(self, round_number: int) -> Path:
        """The pseudo labels of a round in the images' own geometry, and their manifest."""
        return self.report_folder / f"round_{round_number:03d}"

    def checkpoint(self, model: str) -> Path:
        """One of the models of the rounds."""
        return self.report_folder / "models" / f"{model}.pth"

    @property
    def training_folder(self) -> Path:
        """Logs, and the copies of the plans that a trainer makes."""
        return self.report_folder / "training"

    @property
    def log(self) -> Path:
        """What nnU-Net prints."""
        return self.training_folder / "nnunet_output.txt"

    @property
    def label_folder(self) -> Path:
        """Pre-processed pseudo labels."""
        return self.data_folder / "pseudo_labels" / f"{self.model_folder.name}__fold_{self.fold}"

    def labels_of(self, round_number: int) -> Path:
        """Those of a round."""
        return self.label_folder / f"round_{round_number:03d}"

    def plans_digest(self) -> str:
        """Eight digits that change with what the plans say of the configuration."""
        relevant = {
            "configuration": self.configuration_manager.configuration,
            "intensities": self.plans_manager.foreground_intensity_properties_per_channel,
            "transpose": self.plans_manager.transpose_forward,
            "reader": self.plans_manager.plans["image_reader_writer"],
        }
        return digest_of(relevant, 8)


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
    check_tag(tag)
    if fold != "all" and not fold.isdecimal():
        raise UserError(f"fold {fold}: must be a number or 'all'")
    name = dataset_name(dataset)
    folder = Path(nnUNet_preprocessed.require()) / name
    plans = _checked_plans(folder / f"{plans_name}.json", configuration)
    splits = read_splits(name)
    folds = OWN_FOLDS if splits is None else len(splits)
    if fold != "all" and int(fold) >= folds:
        raise UserError(f"{folder / 'splits_final.json'} has no fold {int(fold)}, but {folds} fold(s) from 0 on")
    try:
        with quiet():
            trainer_class = recursive_find_trainer_class_by_name(trainer)
    except RuntimeError as e:
        raise no_such_trainer(trainer) from e
    number: int | str = fold if fold == "all" else int(fold)
    chosen = plans.get_configuration(configuration)
    described = read_dataset_json(folder / "dataset.json", needed=IMAGES)
    return Experiment(
        name, configuration, number, plans_name, trainer, trainer_class, tag, device, plans, chosen, described
    )


def _checked_plans(file: Path, configuration: str) -> PlansManager:
    """The plans, where the configuration can be trained in rounds and is pre-processed."""
    if not file.is_file():
        raise UserError(f"{file} does not exist: run nnUNetv2_plan_and_preprocess first")
    plans = read_plans(file)
    known = list(plans.plans["configurations"])
    if configuration not in known:
        raise UserError(f"{file} has no configuration '{configuration}', but {', '.join(known)}")
    chosen = plans.get_configuration(configuration)
    if chosen.previous_stage_name is not None:
        raise UserError(
            f"'{configuration}' is the second stage of a cascade, which needs first-stage predictions of "
            "every training case; use 3d_fullres or 3d_lowres"
        )
    folder = file.parent / chosen.data_identifier
    if not any(folder.glob("*.pkl")):
        raise UserError(f"{folder} holds no pre-processed cases: run nnUNetv2_preprocess -c {configuration}")
    return plans


@contextlib.contextmanager
def quiet(log: Path | None = None) -> Iterator[None]:
    """Keep what nnU-Net prints away from the terminal; in a log file, if one is given."""
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO() if log is None else log.open("a", encoding="utf-8")
    with stream, contextlib.redirect_stdout(stream):
        yield
