"""nnU-Net's side of the rounds: one process, one network at a time, pre-processed data all the way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunet_covid.errors import UserError
from nnunet_covid.files import remove_abandoned
from nnunet_covid.losses.reweighted_cross_entropy import class_weights
from nnunet_covid.semi_supervised.checkpoints import Checkpoints, load_weights, publish_model, weights_checksum
from nnunet_covid.semi_supervised.experiment import Experiment, quiet
from nnunet_covid.semi_supervised.labelling import CasePredictor, Labeller, read_record
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import Learner, Training, seed_for
from nnunet_covid.semi_supervised.state import summarise, write_manifest
from nnunet_covid.semi_supervised.training import (
    PseudoCase,
    can_weight,
    make_trainer,
    open_blosc2,
    seed_everything,
)


class NNUNetLearner(Learner):
    """Trains, predicts and validates for :class:`nnunet_covid.semi_supervised.rounds.Rounds`.

    Args:
        experiment: Where everything is.
        options: What decides the run.
        pool: Pre-processed unlabelled cases, without their endings.
        trainer: From :func:`checked_trainer`; it answers what a trainer knows until there is a model.
        start_from: A checkpoint that takes the place of the first training.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: RoundOptions,
        pool: Mapping[str, Path],
        trainer: Any,
        start_from: Path | None = None,
    ) -> None:
        self.experiment = experiment
        self.options = options
        self.pool = pool
        self.start_from = start_from
        self.models = Checkpoints(experiment.models_folder)
        self.labeller = Labeller(experiment, options)
        self.classes = self.labeller.classes
        self._trainer = trainer
        self._model: str | None = None

    def train(self, training: Training) -> dict[str, Any]:
        """Do one training from its start and keep the model."""
        start = time.perf_counter()
        network = self._trainer.network if self._model is not None and self._model == training.start else None
        self._trainer = self._model = None  # so that no second network waits in memory
        given = self.start_from if training.name == "base" else None
        trainer = self._new_trainer(replace(training, start=str(given)) if given else training)
        if given is not None:
            self._take_over(trainer, given)
        else:
            if training.start is not None:
                self._go_on_from(trainer, training.start, network)
            seed_everything(seed_for(self.options.seed, training.round_number, f"train {training.name}"))
            with quiet(self.experiment.log):
                trainer.run_training()
        trained = time.perf_counter()
        self.models.save(training.name, trainer)
        self._trainer, self._model = trainer, training.name
        return {
            "model": weights_checksum(trainer),
            "steps": trainer.steps,
            "forward_seconds": round(trainer.step_seconds, 3),
            "training_seconds": round(trained - start, 3),
        }

    def _new_trainer(self, training: Training, folder: Path | None = None) -> Any:
        labels = self.experiment.labels_of
        return make_trainer(
            self.experiment,
            self.classes.dataset_json,
            training,
            self.options.seed,
            pseudo={case: PseudoCase(self.pool[case], labels(n) / case) for case, n in training.pseudo.items()},
            soft=self.classes.heads if self.options.soft else None,
            folder=folder,
        )

    def _go_on_from(self, trainer: Any, model: str, network: Any) -> None:
        """Give a trainer the weights of a model: the network itself, compiled as it is, where it is at hand."""
        if network is not None:
            trainer.network = network
        else:
            self.models.load(model, trainer)
        trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()

    def _take_over(self, trainer: Any, path: Path) -> None:
        try:
            load_weights(path, trainer)
        except (RuntimeError, KeyError) as e:
            reason = str(e).strip().splitlines()[0]
            raise UserError(f"`start_from` {path}: not a checkpoint of {self.experiment.trainer} ({reason})") from e
        trainer.current_epoch = 1

    def _trainer_with(self, model: str) -> nnUNetTrainer:
        """A trainer that holds the weights of a model."""
        if self._model != model:
            self._trainer = self._model = None
            trainer = self._new_trainer(Training(model, 0, start=model))
            self.models.load(model, trainer)
            self._trainer, self._model = trainer, model
        return self._trainer

    def _predictor(self, model: str) -> CasePredictor:
        compare = self.options.confidence == "mirroring"
        return CasePredictor(self._trainer_with(model), mirroring=self.options.mirroring, compare=compare)

    def label(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, Any]:
        """Write pseudo labels for the cases that have none of this model yet."""
        predictor, checksum = self._predictor(model), weights_checksum(self._trainer_with(model))
        folder, shown = self.experiment.labels_of(round_number), self.experiment.shown_folder(round_number)
        for place in (folder, shown):
            remove_abandoned(place, age=0.0)  # no other process is at work here
        records, forward = [], 0.0
        for case in tqdm(cases, desc=f"label round {round_number}", unit="image", leave=False):
            record = read_record(folder / case, checksum)
            if record is None:
                head = {"image": case, "round": round_number, "model": checksum}
                record, seconds = self.labeller.label(head, self.pool[case], folder / case, predictor)
                forward += seconds
            records.append(record)
        write_manifest(shown, records)
        return {**summarise(records), "forward_seconds": round(forward, 3)}

    def confidence(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, float]:
        """Mean confidence of each case."""
        predictor = self._predictor(model)
        bar = tqdm(cases, desc=f"confidence round {round_number}", unit="image", leave=False)
        return {case: predictor.predict(open_blosc2(self.pool[case], ".b2nd")[:]).confidence for case in bar}

    def validate(self, model: str) -> dict[str, Any]:
        """Dice of the validation cases in pre-processed space."""
        trainer, predictor = self._trainer_with(model), self._predictor(model)
        data = _labelled_cases(trainer, 1)
        scores, forward = {}, 0.0
        for case in tqdm(data.identifiers, desc=f"validate {model}", unit="case", leave=False):
            image, reference, _, _ = data.load_case(case)
            prediction = predictor.predict(np.asarray(image[:]))
            forward += prediction.seconds
            scores[case] = self.classes.dice(predictor.labels_of(prediction.probabilities), reference[0])
        means = {name: _mean([score[name] for score in scores.values()]) for name in self.classes.names}
        mean = _mean(list(means.values()))
        return {"mean": mean, "classes": means, "cases": scores, "forward_seconds": round(forward, 3)}

    def labelled_counts(self) -> dict[str, int]:
        """Voxels of each label value in the labelled training cases."""
        data = _labelled_cases(self._trainer, 0)
        total: dict[str, int] = {}
        for case in data.identifiers:
            for value, voxels in self.classes.counts(data.load_case(case)[1][:]).items():
                total[value] = total.get(value, 0) + voxels
        return total

    def class_weights(self, counts: Mapping[str, int]) -> list[float] | None:
        """Eq. (8), background among the classes."""
        if not can_weight(self._trainer):
            return None
        try:
            return class_weights([counts[str(int(v))] for v in self.classes.manager.all_labels]).tolist()
        except ValueError as e:
            if self.options.reweight == "on":
                raise UserError(f"`reweight` on: {e}; every class must be in the labelled images") from e
            return None

    def forget_models_but(self, keep: Collection[str]) -> None:
        self.models.forget_but(keep)

    def forget_labels_of(self, round_number: int) -> None:
        shutil.rmtree(self.experiment.labels_of(round_number), ignore_errors=True)

    def publish(self, model: str) -> dict[str, Any]:
        """The resulting model folder, validated as nnU-Net does."""
        experiment = self.experiment
        trainer = self._new_trainer(Training("publish", 0, start=model), experiment.model_folder)
        self.models.load(model, trainer)
        return publish_model(experiment, trainer, self.models.path(model))


def checked_trainer(experiment: Experiment, options: RoundOptions, start_from: Path | None = None) -> Any:
    """A trainer as the run will make them, before any work.

    Args:
        experiment: The trainer and its plans.
        options: Of the run.
        start_from: As in :class:`NNUNetLearner`.

    Raises:
        SystemExit: If one of our trainers refuses these plans.
        UserError: If the trainer has no place for what is asked for, or a threshold belongs to no class.
    """
    dataset_json = Labeller(experiment, options).classes.dataset_json
    trained_before = start_from is not None or Checkpoints(experiment.models_folder).path("base").is_file()
    probe = Training("probe", 0, start="base" if trained_before else None)
    trainer = make_trainer(experiment, dataset_json, probe, options.seed)
    if options.confidence == "mirroring" and not trainer.inference_allowed_mirroring_axes:
        raise UserError(f"`confidence` mirroring: {experiment.trainer} does not mirror; use the probability")
    if options.reweight == "on" and not can_weight(trainer):
        raise UserError(
            f"`reweight` on: the loss of {experiment.trainer} has no cross entropy over classes; use `reweight` off"
        )
    return trainer


def validation_cases(trainer: nnUNetTrainer) -> list[str]:
    """The labelled cases that are kept out of every training; nnU-Net splits them here where there is no split yet."""
    with quiet():
        return sorted(trainer.do_split()[1])


def _labelled_cases(trainer: nnUNetTrainer, side: int) -> Any:
    """The data set of the training (0) or validation (1) cases."""
    with quiet():
        cases = trainer.do_split()[side]
    return trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))


def _mean(values: Sequence[float]) -> float:
    numbers = [v for v in values if not np.isnan(v)]
    return float(np.mean(numbers)) if numbers else float("nan")
