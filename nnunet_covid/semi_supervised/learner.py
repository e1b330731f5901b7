"""nnU-Net's side of the rounds: one process, one network at a time, pre-processed data all the way.

Here a run's trainings, predictions, validations and models come together; how a trainer is made for one of them stands
in :mod:`nnunet_covid.semi_supervised.training`, what becomes of a prediction in
:mod:`nnunet_covid.semi_supervised.labelling`.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json, save_json
from matplotlib import rc_context
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.checkpoint import read_checkpoint, restricted
from nnunet_covid.errors import UserError
from nnunet_covid.files import remove_abandoned, replacing
from nnunet_covid.losses.reweighted_cross_entropy import class_weights
from nnunet_covid.nnunet.known_images import require_unseen
from nnunet_covid.nnunet.pretrained_weights import why_not_taken
from nnunet_covid.nnunet.sliding_window import BatchPredictor, mirrorings
from nnunet_covid.nnunet.training import seed_everything, unwrapped
from nnunet_covid.semi_supervised.experiment import Experiment, quiet
from nnunet_covid.semi_supervised.labelling import (
    Classes,
    Labeller,
    Prediction,
    mean_confidence,
    open_blosc2,
    read_record,
)
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import Training, seed_for
from nnunet_covid.semi_supervised.state import summarise, write_manifest
from nnunet_covid.semi_supervised.training import cross_entropies, make_trainer


class Learner:
    """Trains, predicts and validates for :class:`nnunet_covid.semi_supervised.rounds.Rounds`.

    Every method may be repeated from its start after a crash.

    Args:
        experiment: Where everything is.
        options: What decides the run.
        pool: Pre-processed unlabelled cases, without their endings.
        trainer: From :func:`checked_trainer`; it answers what a trainer knows until there is a model.
        start_from: A checkpoint that takes the place of the first training.
        pretrained: A checkpoint that every new model starts from, as ``nnUNetv2_train -pretrained_weights`` has it.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: RoundOptions,
        pool: Mapping[str, Path],
        trainer: Any,
        start_from: Path | None = None,
        pretrained: Path | None = None,
    ) -> None:
        self.pretrained = pretrained
        self.experiment = experiment
        self.options = options
        self.pool = pool
        self.start_from = start_from
        self.labeller = Labeller(experiment, options)
        self.classes = self.labeller.classes
        self._trainer = trainer
        self._model: str | None = None

    def train(self, training: Training) -> dict[str, Any]:
        """Train and keep the model under the name of the training; returns its checksum and the seconds of steps."""
        start = time.perf_counter()
        self._trainer = self._model = None  # so that no second network waits in memory
        given = self.start_from if training.name == "base" else None
        trainer = self._new_trainer(replace(training, start=str(given)) if given else training)
        if given is not None:
            try:
                load_weights(given, trainer)
            except RuntimeError as e:
                reason = str(e).strip().splitlines()[0]
                name = self.experiment.trainer
                raise UserError(f"`start_from` {given}: not a checkpoint of {name} ({reason})") from e
            trainer.current_epoch = 1
        else:
            if training.start is not None:
                load_weights(self.experiment.checkpoint(training.start), trainer)
            elif self.pretrained is not None:
                load_pretrained(self.pretrained, trainer, self.experiment.trainer)
            seed_everything(seed_for(self.options.seed, training.round_number, f"train {training.name}"))
            with quiet(self.experiment.log):
                trainer.run_training()
        trained = time.perf_counter()
        save_model(self.experiment.checkpoint(training.name), trainer)
        self._trainer, self._model = trainer, training.name
        return {
            "model": weights_checksum(trainer),
            "steps": trainer.steps,
            "forward_seconds": round(trainer.step_seconds, 3),
            "training_seconds": round(trained - start, 3),
        }

    def _new_trainer(self, training: Training, folder: Path | None = None) -> Any:
        labels = self.experiment.labels_of
        pseudo = {case: (self.pool[case], labels(n) / case) for case, n in training.pseudo.items()}
        return make_trainer(self.experiment, self.classes, training, self.options, pseudo, folder)

    def _trainer_with(self, model: str) -> nnUNetTrainer:
        """A trainer that holds the weights of a model."""
        if self._model != model:
            self._trainer = self._model = None
            trainer = self._new_trainer(Training(model, 0, start=model))
            load_weights(self.experiment.checkpoint(model), trainer)
            self._trainer, self._model = trainer, model
        return self._trainer

    def _predictor(self, model: str) -> CasePredictor:
        return CasePredictor(self._trainer_with(model), self.classes, self.options)

    def label(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, Any]:
        """Write pseudo labels for the cases that have none of this model yet.

        Returns:
            Voxel counts, what was kept, and the seconds of forward passes.
        """
        predictor, checksum = self._predictor(model), weights_checksum(self._trainer_with(model))
        folder = self.experiment.labels_of(round_number)
        remove_abandoned(folder, age=0)  # no other process is at work here
        records, forward = [], 0.0
        for case in tqdm(cases, desc=f"label round {round_number}", unit="image", leave=False):
            record = read_record(folder / case, checksum)
            if record is None:
                head = {"image": case, "round": round_number, "model": checksum}
                prediction = predictor.predict(open_blosc2(self.pool[case], ".b2nd")[:])
                record = self.labeller.label(head, self.pool[case], folder / case, prediction)
                forward += prediction.seconds
            records.append(record)
        write_manifest(self.experiment.shown_folder(round_number), records)
        return {**summarise(records), "forward_seconds": round(forward, 3)}

    def confidence(self, round_number: int, cases: Sequence[str], model: str) -> dict[str, float]:
        """Mean confidence of each case, without writing a label."""
        predictor = self._predictor(model)
        bar = tqdm(cases, desc=f"confidence round {round_number}", unit="image", leave=False)
        return {case: predictor.predict(open_blosc2(self.pool[case], ".b2nd")[:]).confidence for case in bar}

    def validate(self, model: str) -> dict[str, Any]:
        """Dice of the validation cases in pre-processed space: of each case, of each class, and their mean."""
        trainer, predictor = self._trainer_with(model), self._predictor(model)
        data = labelled_cases(trainer, 1)
        scores, forward = {}, 0.0
        for case in tqdm(data.identifiers, desc=f"validate {model}", unit="case", leave=False):
            image, reference, _, _ = data.load_case(case)
            prediction = predictor.predict(np.asarray(image[:]))
            forward += prediction.seconds
            scores[case] = self.classes.dice(prediction.label, reference[0])
        means = {name: _mean([score[name] for score in scores.values()]) for name in self.classes.names}
        mean = _mean(list(means.values()))
        return {"mean": mean, "classes": means, "cases": scores, "forward_seconds": round(forward, 3)}

    def labelled_counts(self) -> dict[str, int]:
        """Voxels of each label value in the labelled training cases."""
        data = labelled_cases(self._trainer, 0)
        total = Counter[str]()
        for case in data.identifiers:
            total.update(self.classes.counts(data.load_case(case)[1][:]))
        return total

    def class_weights(self, counts: Mapping[str, int]) -> list[float] | None:
        """Weights of eq. (8) for these counts, background too; ``None`` where the trainer has nothing to weight."""
        if not cross_entropies(self._trainer.loss):
            return None
        try:
            return class_weights([counts[str(int(v))] for v in self.classes.manager.all_labels]).tolist()
        except ValueError as e:
            if self.options.reweight == "on":
                raise UserError(f"`reweight` on: {e}; every class must be in the labelled images") from e
            return None

    def forget_models_but(self, keep: Collection[str]) -> None:
        """Delete other models."""
        kept = [self.experiment.checkpoint(model) for model in keep]
        for path in self.experiment.checkpoint("any").parent.glob("*"):
            if path not in kept:
                path.unlink()

    def forget_labels_of(self, round_number: int) -> None:
        """Delete the pre-processed pseudo labels of a round that a later one has renewed."""
        shutil.rmtree(self.experiment.labels_of(round_number), ignore_errors=True)

    def publish(self, model: str) -> dict[str, Any]:
        """Make the model the result, an ordinary model folder, and validate it as nnU-Net does."""
        self._trainer = self._model = None  # no second network waits in memory
        trainer = self._new_trainer(Training("publish", 0, start=model), self.experiment.model_folder)
        load_weights(self.experiment.checkpoint(model), trainer)
        return publish_model(self.experiment, trainer, self.experiment.checkpoint(model))


def checked_trainer(
    experiment: Experiment, options: RoundOptions, start_from: Path | None = None, pretrained: Path | None = None
) -> Any:
    """A trainer as the run will make them, before any work.

    Args:
        experiment: The trainer and its plans.
        options: Of the run.
        start_from, pretrained: As in :class:`Learner`.

    Raises:
        SystemExit: If one of our trainers refuses these plans.
        UserError: If the trainer has no place for what is asked for, a threshold belongs to no class, or a checkpoint
            cannot be read or has seen another fold's images.
    """
    for name, path in (("start_from", start_from), ("pretrained_weights", pretrained)):
        if path is not None:
            require_unseen(path, experiment.dataset, experiment.fold, f"`{name}`")
    classes = Labeller(experiment, options).classes
    trained_before = start_from is not None or experiment.checkpoint("base").is_file()
    probe = Training("probe", 0, start="base" if trained_before else None)
    trainer = make_trainer(experiment, classes, probe, options)
    if pretrained is not None and not trained_before:
        load_pretrained(pretrained, trainer, experiment.trainer)
    if options.confidence == "mirroring" and not trainer.inference_allowed_mirroring_axes:
        raise UserError(f"`confidence` mirroring: {experiment.trainer} does not mirror; use the probability")
    if options.reweight == "on" and not cross_entropies(trainer.loss):
        raise UserError(
            f"`reweight` on: the loss of {experiment.trainer} has no cross entropy over classes; use `reweight` off"
        )
    return trainer


def labelled_cases(trainer: nnUNetTrainer, side: int) -> Any:
    """The data set of the training (0) or validation (1) cases; nnU-Net splits them here if there is no split yet."""
    with quiet():
        cases = trainer.do_split()[side]
    return trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))


def _mean(values: Sequence[float]) -> float:
    numbers = [v for v in values if not np.isnan(v)]
    return float(np.mean(numbers)) if numbers else float("nan")


class CasePredictor:
    """Predicts pre-processed cases with the network of a trainer.

    Args:
        trainer: Initialised, with the weights to predict with.
        classes: Of its data set.
        options: Whether to average over mirrored inputs, along the axes that the trainer mirrors in training, and
            whether to take the certainty from how far the mirrored predictions agree.
    """

    def __init__(self, trainer: nnUNetTrainer, classes: Classes, options: RoundOptions) -> None:
        self._classes = classes
        self._compare = options.confidence == "mirroring"
        axes = trainer.inference_allowed_mirroring_axes
        with quiet():
            self._predictor = BatchPredictor(
                use_mirroring=options.mirroring and not self._compare,
                perform_everything_on_device=trainer.device.type == "cuda",
                device=trainer.device,
                allow_tqdm=False,
            )
            self._predictor.manual_initialization(
                unwrapped(trainer.network),  # compiled it would be compiled again for every number of patches
                trainer.plans_manager,
                trainer.configuration_manager,
                None,
                trainer.dataset_json,
                type(trainer).__name__,
                axes,
            )
        trainer.set_deep_supervision_enabled(False)
        trainer.network.eval()
        before = 4 - len(trainer.configuration_manager.patch_size)  # the channel axis, and in 2D a slice axis
        self._mirrored = mirrorings((self._compare and axes) or (), before)

    def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Predict an image (C, *spatial) as nnU-Net does."""
        start = time.perf_counter()
        data = torch.from_numpy(np.ascontiguousarray(image))
        predict = self._predictor.predict_sliding_window_return_logits
        all_logits = [predict(torch.flip(data, axes)).float().cpu().flip(axes) for axes in self._mirrored]
        mean = torch.stack(all_logits).mean(0) if len(all_logits) > 1 else all_logits[0]
        seconds = time.perf_counter() - start
        heads, manager = self._classes.heads, self._classes.manager
        probabilities = manager.apply_inference_nonlin(mean).numpy()
        label = np.asarray(manager.convert_probabilities_to_segmentation(probabilities))
        certainty = heads.votes([one.numpy() for one in all_logits]) if self._compare else probabilities
        sure = heads.certainty_of_prediction(probabilities, certainty)
        return Prediction(probabilities, certainty, label, mean_confidence(sure, label), seconds)


def save_model(path: Path, trainer: nnUNetTrainer) -> None:
    """Write nnU-Net's own checkpoint of a trainer whose training has ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer.disable_checkpointing = False
    trainer.current_epoch -= 1  # as nnU-Net does for its final checkpoint
    with replacing(path) as unfinished:
        trainer.save_checkpoint(str(unfinished))
    trainer.current_epoch += 1
    trainer.disable_checkpointing = True


def load_weights(path: Path, trainer: nnUNetTrainer) -> None:
    """Put the weights of any checkpoint of nnU-Net's into a trainer's network."""
    unwrapped(trainer.network).load_state_dict(read_checkpoint(path, trainer.device)["network_weights"])


def load_pretrained(path: Path, trainer: nnUNetTrainer, name: str) -> None:
    """Put the weights of a pre-training into a trainer's network, as nnU-Net does: all but the layers that segment.

    Args:
        name: Of the trainer.

    Raises:
        UserError: If the checkpoint is of another network.
    """
    try:
        with restricted(), quiet():
            load_pretrained_weights(trainer.network, str(path))
    except AssertionError as e:
        why = f"not of the network of {name} ({why_not_taken(e)})"
        raise UserError(f"`pretrained_weights` {path}: {why}; pre-train it") from e


def weights_checksum(trainer: nnUNetTrainer) -> str:
    """SHA-256 of a network's weights by name; a checkpoint file also holds the time of day."""
    weights = unwrapped(trainer.network).state_dict()
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def publish_model(experiment: Experiment, trainer: nnUNetTrainer, checkpoint: Path) -> dict[str, Any]:
    """Write what ``nnUNetv2_predict``, ``nnUNetv2_find_best_configuration`` and the zip export look for.

    Args:
        experiment: Where the model goes.
        trainer: With the weights of the checkpoint; its output folder is the model's.
        checkpoint: The model.

    Returns:
        nnU-Net's mean foreground Dice of the validation cases, at full resolution.
    """
    folder, fold = experiment.model_folder, experiment.fold_folder
    fold.mkdir(parents=True, exist_ok=True)
    save_json(trainer.plans_manager.plans, str(folder / "plans.json"), sort_keys=False)
    save_json(experiment.dataset_json, str(folder / "dataset.json"), sort_keys=False)
    shutil.copyfile(experiment.data_folder / "dataset_fingerprint.json", folder / "dataset_fingerprint.json")
    with replacing(fold / "checkpoint_final.pth") as unfinished:
        shutil.copyfile(checkpoint, unfinished)
    logger = LocalLogger()  # its picture of the last training is wanted by nnU-Net's zip export
    logger.load_checkpoint(read_checkpoint(checkpoint)["logging"])
    if logger.get_value("train_losses", None):
        with rc_context():  # what it sets would stay set for all pictures after it
            logger.plot_progress_png(str(fold))
    with quiet(experiment.log):
        trainer.perform_actual_validation()
    summary = load_json(str(fold / "validation" / "summary.json"))
    return {"dice": summary["foreground_mean"]["Dice"]}
