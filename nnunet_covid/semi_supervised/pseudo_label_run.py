"""One whole pseudo-label run: check, pre-process, do the rounds, publish; begun again until it is through."""

from __future__ import annotations

import contextlib
import errno
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_covid.errors import UserError
from nnunet_covid.figures.progress import draw_progress
from nnunet_covid.files import sha256_of, writable_folder
from nnunet_covid.semi_supervised.experiment import Experiment
from nnunet_covid.semi_supervised.learner import NNUNetLearner, checked_trainer, validation_cases
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import KINDS
from nnunet_covid.semi_supervised.state import FILE, RunState, history
from nnunet_covid.semi_supervised.unlabelled import UnlabelledImages

FULL = (errno.ENOSPC, errno.EDQUOT)
LITTLE_SPACE = 32 * 2**20
"""Bytes; below this a failed write is put down to a full disk whatever the library called it."""


def run_pseudo_labels(
    experiment: Experiment,
    options: RoundOptions,
    folder: Path,
    *,
    start_from: Path | None = None,
    leave_out_duplicates: bool = False,
    workers: int = 1,
    tell: Callable[[str], None] = print,
) -> None:
    """Do all rounds, or go on where an interrupted run of the same options stopped.

    Args:
        experiment: Data set, trainer and folders.
        options: What decides the run.
        folder: Unlabelled images, named as nnU-Net wants them.
        start_from: A checkpoint of the trainer instead of a first training.
        leave_out_duplicates: Go on without images that are known already.
        workers: Processes that pre-process.
        tell: Receives each line for the person.

    Raises:
        UserError: If something in the input does not fit, before anything is trained; and if the disk is full.
    """
    images = UnlabelledImages(folder, experiment)
    if start_from is not None and not start_from.is_file():
        raise UserError(f"`start_from` {start_from}: no such file")
    writable_folder(experiment.data_folder)
    context = {
        "dataset": experiment.dataset,
        "configuration": experiment.configuration,
        "fold": experiment.fold,
        "trainer": experiment.trainer,
        "plans": experiment.plans_digest(),
        "images": str(folder.resolve()),
        "start_from": sha256_of(start_from) if start_from is not None else None,
    }
    with _disk_full_is_a_users_matter(experiment), locked(experiment.report_folder):
        state = RunState.open(experiment.report_folder, options, context)
        trainer = checked_trainer(experiment, options, start_from)
        if not state.units and experiment.label_folder.exists():  # of a run whose report folder was deleted
            shutil.rmtree(experiment.label_folder)
        pool = state.once("pool", lambda: images.pool(leave_out_known=leave_out_duplicates))
        images.refuse_other_names(pool)
        _refuse_other_validation_cases(state, experiment, validation_cases(trainer))
        if experiment.raw_folder is None:
            tell("nnUNet_raw does not hold the data set: unlabelled images were not compared with its own")
        if experiment.fold == "all":
            tell("fold all keeps no case out: every validation Dice is that of training cases")
        targets = images.preprocess(pool, workers)
        learner = NNUNetLearner(experiment, options, targets, trainer, start_from)
        del trainer  # or its network would stay beside those of the rounds
        rounds = KINDS[options.strategy](state, learner, targets, tell, lambda: _draw(state))
        model = rounds.run()
    dice = state.units["publish"]["result"]["dice"]
    tell(f"{model} is {experiment.model_folder} (nnU-Net's validation Dice {dice:.4f})")
    tell(
        f"nnUNetv2_predict -d {experiment.dataset} -c {experiment.configuration} -f {experiment.fold} "
        f"-tr {experiment.model_name} -p {experiment.plans_name} -i IMAGES -o PREDICTIONS"
    )


def _draw(state: RunState) -> None:
    title = f"{state.context['trainer']}, {state.options.strategy} rounds, fold {state.context['fold']}"
    draw_progress(state.folder, title, history(state.units))


def _refuse_other_validation_cases(state: RunState, experiment: Experiment, kept_out: list[str]) -> None:
    if state.once("validation cases", lambda: kept_out) != kept_out:
        raise UserError(
            f"{experiment.data_folder / 'splits_final.json'}: fold {experiment.fold} has other validation cases than "
            "when the run began. Put the file back, or start beside it with another `name`"
        )


@contextlib.contextmanager
def _disk_full_is_a_users_matter(experiment: Experiment) -> Iterator[None]:
    """Turn the many errors of a full disk into one line.

    Raises:
        UserError: If it is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        place = _full_place(e, experiment)
        if place is None:
            raise
        raise UserError(
            f"the disk of {place} is full; nothing is lost: make room and give the same command again"
        ) from e


def _full_place(error: Exception, experiment: Experiment) -> Path | None:
    if isinstance(error, OSError) and error.errno in FULL:
        return Path(error.filename) if error.filename else experiment.report_folder
    for place in (experiment.report_folder, experiment.data_folder):
        if place.exists() and shutil.disk_usage(place).free < LITTLE_SPACE:
            return place
    return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process away from a run; the lock ends with the process, however it ends.

    Raises:
        UserError: If another process works on the run.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", blocking=False)
    try:
        try:
            lock.acquire()
        except Timeout as e:
            raise UserError(f"another process is at work on {folder}; wait for it, or use another `name`") from e
        yield
    finally:
        lock.release()
        if made and not (folder / FILE).exists():  # refused before there was a run
            shutil.rmtree(folder)
            for empty in made[1:]:
                with contextlib.suppress(OSError):
                    empty.rmdir()
