"""One whole pre-training: check, pre-process, do the steps; begun again until it is through."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_results

from nnunet_covid.disturbances import full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.figures.reconstructions import FILE as PICTURE
from nnunet_covid.files import writable_folder
from nnunet_covid.nnunet.training import unwrapped
from nnunet_covid.pretraining.autoencoder import Autoencoder
from nnunet_covid.pretraining.options import PretrainingOptions
from nnunet_covid.pretraining.processes import Share, in_processes
from nnunet_covid.pretraining.steps import FINAL, LATEST, WHOLE, ZERO_MEAN, Pretraining, StepBatches
from nnunet_covid.semi_supervised.experiment import Experiment, find_experiment, quiet
from nnunet_covid.semi_supervised.learner import labelled_cases
from nnunet_covid.semi_supervised.pseudo_label_run import Pool, UnlabelledImages, locked
from nnunet_covid.semi_supervised.rounds import seed_for
from nnunet_covid.semi_supervised.state import RunState
from nnunet_covid.semi_supervised.training import InAnotherFolder, LabelledAndPseudo, PseudoCases, initialised

FEWEST = 2
"""Images: from one alone a network learns that image."""


def pretraining_folder(experiment: Experiment) -> Path:
    """Checkpoint, picture and state of a pre-training."""
    model = f"{experiment.trainer}__{experiment.plans_name}__{experiment.configuration}"
    return Path(nnUNet_results.require()) / experiment.dataset / "pretraining" / model / experiment.tag


def run_pretraining(
    experiment: Experiment,
    options: PretrainingOptions,
    folder: Path,
    *,
    labelled: bool = False,
    leave_out_duplicates: bool = False,
    workers: int = 1,
    gpus: int = 1,
    tell: Callable[[str], None] = print,
) -> Path:
    """Do all steps, or go on where an interrupted run of the same options stopped.

    Args:
        experiment: Data set, trainer and folders.
        options: What decides the run.
        folder: Unlabelled images, named as nnU-Net wants them.
        labelled: Whether the training images of the experiment's fold join.
        leave_out_duplicates: Go on without images that are known already.
        workers: Processes that pre-process.
        gpus: Processes that learn, a GPU each; they make one step of the whole batch together.
        tell: Receives each line for the person.

    Returns:
        The checkpoint for ``nnUNetv2_train -pretrained_weights``.

    Raises:
        UserError: If something in the input does not fit, before anything is learnt; and if the disk is full.
    """
    images = UnlabelledImages(folder, experiment)
    _check_number(folder, len(images.cases))
    home = pretraining_folder(experiment)
    writable_folder(experiment.data_folder)
    with full_disk_told(home, experiment.data_folder), locked(home):
        state = RunState(home, options, _context(experiment, folder, labelled))
        if line := images.not_compared():
            tell(line)
        state.forget_where_lost("learn", home / FINAL)
        if "learn" not in state.units:
            _learn(experiment, options, state, images, labelled, leave_out_duplicates, workers, gpus)
        (home / LATEST).unlink(missing_ok=True)
    _, loss, of_mean = state.units["learn"]["result"]["losses"][-1]
    tell(f"loss on hidden voxels {loss:.3f}; {of_mean:.3f} were each channel's mean predicted")
    tell(f"{home / FINAL}, and what it can do: {PICTURE} beside it")
    fold = experiment.fold if labelled else "FOLD"
    tell(
        f"nnUNetv2_train {experiment.dataset[7:10]} {experiment.configuration} {fold} -tr {experiment.trainer} "
        f"-p {experiment.plans_name} -pretrained_weights {shlex.quote(str(home / FINAL))}"
    )
    return home / FINAL


def _check_number(folder: Path, number: int) -> None:
    if number < FEWEST:
        raise UserError(f"`images` {folder}: {number} image(s) to learn from; at least {FEWEST} are needed, better 100")


def _context(experiment: Experiment, folder: Path, labelled: bool) -> dict[str, Any]:
    """What must be the same where a run goes on."""
    ct = "CTNormalization" in experiment.configuration_manager.normalization_schemes  # once filled with zero
    return {
        "dataset": experiment.dataset,
        "configuration": experiment.configuration,
        "trainer": experiment.trainer,
        "plans": experiment.plans_digest(),
        "fold": experiment.fold if labelled else None,
        "images": str(folder.resolve()),
        **({"hidden voxels of CT": "the mean of what is visible"} if ct else {}),
    }


class Prepared:
    """The network of an experiment's trainer as it is before the first step, and what it learns from.

    Args:
        experiment, options, labelled: As for :func:`run_pretraining`.
        folder: Of the run.
        share: What of each batch is this process's.

    Raises:
        UserError: If the network or the plan cannot be pre-trained, or there are more processes than images in a batch.
    """

    def __init__(
        self, experiment: Experiment, options: PretrainingOptions, folder: Path, labelled: bool, share: Share = WHOLE
    ) -> None:
        self.options, self.folder, self.share = options, folder, share
        logs = folder / "training" / (f"process_{share.rank}" if share.rank else "")
        with quiet():
            seed = seed_for(options.seed, 0, "initialise")
            trainer = initialised(experiment, InAnotherFolder, {"folder": logs}, experiment.dataset_json, seed)
        configuration = experiment.configuration_manager
        self.schemes = configuration.normalization_schemes
        self.own = labelled_cases(trainer, 0) if labelled else None
        self.trainer = trainer
        try:
            torch.manual_seed(seed)
            network = unwrapped(trainer.network)
            autoencoder = Autoencoder(network, configuration, len(self.schemes), skips=options.skips)
            self.autoencoder = autoencoder.to(trainer.device)
            images = self.batches({}).images
        except ValueError as e:
            raise UserError(f"{experiment.trainer} with configuration '{experiment.configuration}': {e}") from e
        if images < share.processes:
            raise UserError(f"`gpus` {share.processes}: a batch of these plans has {images} image(s); take fewer")

    def batches(self, unlabelled: PseudoCases) -> StepBatches:
        """Of these images, and of the labelled ones where they join."""
        cases = LabelledAndPseudo(self.own, unlabelled)
        return StepBatches(self.trainer, cases, self.autoencoder.stride, self.options, self.share)

    def learn(self, unlabelled: PseudoCases, described: dict[str, Any]) -> dict[str, Any]:
        """Do all steps that are left, and write the checkpoint with ``described`` beside the weights."""
        return Pretraining(
            self.autoencoder,
            self.batches(unlabelled),
            [scheme in ZERO_MEAN for scheme in self.schemes],
            self.folder,
            self.trainer.device,
            compiled=self.trainer._do_i_compile(),
        ).run(described)


def _learn(
    experiment: Experiment,
    options: PretrainingOptions,
    state: RunState,
    images: UnlabelledImages,
    labelled: bool,
    leave_out_duplicates: bool,
    workers: int,
    gpus: int,
) -> None:
    """From the first look at the images to the checkpoint, whatever of it is not done yet."""
    prepared = Prepared(experiment, options, state.folder, labelled, Share(0, gpus))

    def pool() -> Pool:
        found = images.pool(leave_out_known=leave_out_duplicates)
        _check_number(images.folder, len(found["cases"]))
        return found

    known = state.once("pool", pool)
    names = sorted(prepared.own.identifiers) if prepared.own is not None else []
    state.require_same("labelled cases", names, experiment.data_folder, experiment.fold, "training")
    unlabelled = {case: (path, path) for case, path in images.preprocess(known, workers).items()}
    described = {
        "trainer_name": experiment.trainer,
        "init_args": prepared.trainer.my_init_kwargs,
        "pretraining": {**state.context, **asdict(options)},
    }
    learn = partial(prepared.learn, unlabelled, described)
    if gpus > 1:
        del prepared  # its network would stay on the first GPU
        work = partial(_share_of_the_steps, _given(experiment), options, state.folder, labelled, unlabelled, described)
        learn = partial(in_processes, gpus, experiment.device, work)
    state.once("learn", learn)


def _given(experiment: Experiment) -> tuple[Any, ...]:
    """What another process finds the experiment by; a trainer of a person's own file cannot be sent to it."""
    where = (experiment.dataset, experiment.configuration, str(experiment.fold), experiment.trainer, experiment.tag)
    return *where, experiment.plans_name, experiment.device


def _share_of_the_steps(
    given: tuple[Any, ...],
    options: PretrainingOptions,
    folder: Path,
    labelled: bool,
    unlabelled: PseudoCases,
    described: dict[str, Any],
    share: Share,
    meet: Callable[[], None],
) -> dict[str, Any]:
    """What one of several processes does."""
    prepared = Prepared(find_experiment(*given), options, folder, labelled, share)
    meet()  # only now: nnU-Net's trainer would divide the batch itself
    return prepared.learn(unlabelled, described)
