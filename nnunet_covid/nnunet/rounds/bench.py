"""nnU-Net's side of the rounds: one process, one network at a time, pre-processed data all the way."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tqdm import tqdm

from nnunet_covid.errors import UserError
from nnunet_covid.losses.reweighted_cross_entropy import class_weights
from nnunet_covid.nnunet.rounds.classes import Classes, with_ignore_label
from nnunet_covid.nnunet.rounds.dataset import PseudoCase
from nnunet_covid.nnunet.rounds.label_files import read_record
from nnunet_covid.nnunet.rounds.labelling import Labeller
from nnunet_covid.nnunet.rounds.models import Models, load_checkpoint, weights_checksum
from nnunet_covid.nnunet.rounds.prediction import CasePredictor
from nnunet_covid.nnunet.rounds.publishing import publish_model
from nnunet_covid.nnunet.rounds.setting import Setting, quiet
from nnunet_covid.nnunet.rounds.trainer import (
    Phase,
    can_weight,
    load_weights,
    phase_trainer,
    seed_everything,
)
from nnunet_covid.semi_supervised.bench import Training
from nnunet_covid.semi_supervised.manifest import summarise, write_manifest
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.seeds import seed_for


class NNUNetBench:
    """Trains, predicts and validates for :class:`nnunet_covid.semi_supervised.rounds.Rounds`.

    Args:
        setting: Where everything is.
        options: What decides the run.
        pool: Pre-processed unlabelled cases, without their endings.
        start_from: A checkpoint that takes the place of the first training.
    """

    def __init__(
        self, setting: Setting, options: RoundOptions, pool: Mapping[str, Path], start_from: Path | None = None
    ) -> None:
        self.setting = setting
        self.options = options
        self.pool = pool
        self.start_from = start_from
        self.models = Models(setting.report_folder / "models")
        ignore = options.untrusted == "ignore"
        self.dataset_json = with_ignore_label(setting.dataset_json) if ignore else setting.dataset_json
        manager = setting.plans_manager.get_label_manager(self.dataset_json)
        self.classes = Classes.of(self.dataset_json, manager)
        self.labeller = Labeller(setting, options, self.classes)
        self._trainer: Any = None
        self._model: str | None = None

    # training

    def train(self, training: Training) -> dict[str, Any]:
        """Train one phase from its start and keep the model."""
        start = time.perf_counter()
        network = self._trainer.network if self._model is not None and self._model == training.start else None
        self._trainer = self._model = None  # so that no second network waits in memory
        trainer = self._new_trainer(self._phase(training), f"{training.round_number}/{training.name}")
        if self.start_from is not None and self._is_given(training.name):
            self._take_over(trainer, self.start_from)
        else:
            if training.start is not None:
                self._go_on_from(trainer, training.start, network)
            seed_everything(seed_for(self.options.seed, training.round_number, f"train {training.name}"))
            with quiet(self._log):
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

    def _phase(self, training: Training) -> Phase:
        o = self.options
        short = training.short
        weights = training.class_weights
        return Phase(
            folder=self.setting.report_folder / "training",
            title=f"train {training.name}",
            labelled=training.labelled,
            pseudo={case: self._pseudo_case(case, number) for case, number in training.pseudo.items()},
            soft=self.classes.soft if o.soft else None,
            epochs=o.round_epochs if short else None,
            iterations=o.round_iterations if short else None,
            learning_rate=o.learning_rate if short else None,
            class_weights=list(weights) if weights is not None else None,
            trained_before=training.start is not None or self._is_given(training.name),
        )

    def _is_given(self, model: str) -> bool:
        return model == "base" and self.start_from is not None

    def _pseudo_case(self, case: str, number: int) -> PseudoCase:
        return PseudoCase(self.pool[case], self._labels_of(number) / case)

    def _labels_of(self, number: int) -> Path:
        return self.setting.label_folder / f"round_{number:03d}"

    @property
    def _log(self) -> Path:
        return self.setting.report_folder / "training" / "nnunet_output.txt"

    def _new_trainer(self, phase: Phase, seeded_by: str) -> Any:
        """A trainer with a new network."""
        number, _, name = seeded_by.partition("/")
        seed_everything(seed_for(self.options.seed, int(number), f"initialise {name}"))
        arguments = {
            "plans": {**self.setting.plans, "continue_training": False},
            "configuration": self.setting.configuration,
            "fold": self.setting.fold,
            "dataset_json": self.dataset_json,
            "device": self.setting.device,
        }
        with quiet(self._log):
            trainer = phase_trainer(self.setting.trainer_class, phase, arguments)
            for old in Path(trainer.output_folder).glob("training_log_*.txt"):
                if str(old) != trainer.log_file:
                    old.unlink()
            seed_everything(seed_for(self.options.seed, int(number), f"initialise {name}"))
            trainer.initialize()
        return trainer

    def _go_on_from(self, trainer: Any, model: str, network: Any) -> None:
        """Give a trainer the weights of a model: the network itself, compiled as it is, where it is at hand."""
        if network is not None:
            trainer.network = network
        else:
            load_weights(trainer, self.models.weights(model, self.setting.device))
        trainer.optimizer, trainer.lr_scheduler = trainer.configure_optimizers()

    def _take_over(self, trainer: Any, path: Path) -> None:
        try:
            load_weights(trainer, load_checkpoint(path, self.setting.device)["network_weights"])
        except (RuntimeError, KeyError) as e:
            reason = str(e).strip().splitlines()[0]
            raise UserError(f"--start-from {path}: not a checkpoint of {self.setting.trainer} ({reason})") from e
        trainer.current_epoch = 1

    def _trainer_with(self, model: str) -> nnUNetTrainer:
        """A trainer that holds the weights of a model."""
        if self._model != model:
            phase = Phase(self.setting.report_folder / "training", trained_before=True)
            trainer = self._new_trainer(phase, f"0/{model}")
            load_weights(trainer, self.models.weights(model, self.setting.device))
            self._trainer, self._model = trainer, model
        return self._trainer

    # prediction

    def _predictor(self, model: str) -> CasePredictor:
        compare = self.options.confidence == "mirroring"
        return CasePredictor(self._trainer_with(model), mirroring=self.options.mirroring, compare=compare)

    def label(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, Any]:
        """Write pseudo labels for the cases that have none of this model yet."""
        predictor, checksum = self._predictor(model), weights_checksum(self._trainer_with(model))
        folder, shown = self._labels_of(round_number), self.setting.report_folder / f"round_{round_number:03d}"
        records, forward = [], 0.0
        for case in tqdm(cases, desc=f"label round {round_number}", unit="image", leave=False):
            record = read_record(folder / case, checksum)
            if record is None:
                head = {"image": case, "round": round_number, "model": checksum}
                record, seconds = self.labeller.label(head, self.pool[case], folder / case, shown, predictor)
                forward += seconds
            records.append(record)
        write_manifest(shown, records)
        return {**summarise(records), "forward_seconds": round(forward, 3)}

    def confidence(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, float]:
        """Mean confidence of each case."""
        predictor = self._predictor(model)
        bar = tqdm(cases, desc=f"confidence round {round_number}", unit="image", leave=False)
        return {case: predictor.predict(self.labeller.image(self.pool[case])).confidence for case in bar}

    def validate(self, model: str) -> dict[str, Any]:
        """Dice of the validation cases in pre-processed space."""
        trainer, predictor = self._trainer_with(model), self._predictor(model)
        with quiet():
            cases = trainer.do_split()[1]
        data = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))
        scores, forward = {}, 0.0
        for case in tqdm(data.identifiers, desc=f"validate {model}", unit="case", leave=False):
            image, reference, _, _ = data.load_case(case)
            prediction = predictor.predict(np.asarray(image[:]))
            forward += prediction.seconds
            scores[case] = self.classes.dice(predictor.labels_of(prediction.probabilities), reference[0])
        means = {name: _mean([score[name] for score in scores.values()]) for name in self.classes.names}
        mean = _mean(list(means.values()))
        return {"mean": mean, "classes": means, "cases": scores, "forward_seconds": round(forward, 3)}

    # class weights

    def labelled_counts(self) -> dict[str, int]:
        """Voxels of each label value in the labelled training cases."""
        trainer = self._any_trainer()
        with quiet():
            cases = trainer.do_split()[0]
        data = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))
        total: dict[str, int] = {}
        for case in data.identifiers:
            for value, voxels in self.classes.counts(data.load_case(case)[1][:]).items():
                total[value] = total.get(value, 0) + voxels
        return total

    def class_weights(self, counts: Mapping[str, int]) -> list[float] | None:
        """Eq. (8), background among the classes."""
        if not can_weight(self._any_trainer()):
            return None
        try:
            return class_weights([counts[str(int(v))] for v in self.classes.manager.all_labels]).tolist()
        except ValueError as e:
            if self.options.reweight == "on":
                raise UserError(f"--reweight on: {e}; every class must be in the labelled images") from e
            return None

    def check_trainer(self) -> None:
        """Stop before any work if the trainer refuses these plans, or has no place for weights that are asked for."""
        trained_before = self._is_given("base") or self.models.path("base").is_file()
        trainer = self._any_trainer(trained_before=trained_before)
        if self.options.confidence == "mirroring" and not trainer.inference_allowed_mirroring_axes:
            raise UserError(f"--confidence mirroring: {self.setting.trainer} does not mirror; use the probability")
        if self.options.reweight == "on" and not can_weight(trainer):
            raise UserError(
                f"--reweight on: the loss of {self.setting.trainer} has no cross entropy over classes; use "
                "--reweight off"
            )

    def validation_cases(self) -> list[str]:
        """The labelled cases that are kept out of every training."""
        with quiet():
            return sorted(self._any_trainer().do_split()[1])

    def _any_trainer(self, *, trained_before: bool = True) -> Any:
        if self._trainer is None:
            phase = Phase(self.setting.report_folder / "training", trained_before=trained_before)
            return self._new_trainer(phase, "0/probe")
        return self._trainer

    # files

    def forget_models_but(self, keep: Collection[str]) -> None:
        """Delete other models."""
        self.models.forget_but(keep)

    def forget_labels_of(self, round_number: int) -> None:
        """Delete the pre-processed pseudo labels of a round."""
        shutil.rmtree(self._labels_of(round_number), ignore_errors=True)

    def publish(self, model: str) -> dict[str, Any]:
        """The resulting model folder, validated as nnU-Net does."""
        setting = self.setting
        trainer = self._new_trainer(Phase(setting.model_folder, trained_before=True), "0/publish")
        load_weights(trainer, self.models.weights(model, setting.device))
        return publish_model(setting, trainer, self.models.path(model))


def _mean(values: Sequence[float]) -> float:
    numbers = [v for v in values if not np.isnan(v)]
    return float(np.mean(numbers)) if numbers else float("nan")
