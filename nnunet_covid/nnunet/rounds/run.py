"""One whole run: check, pre-process, do the rounds, publish; again and again until it is through."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.figures.progress import draw_progress
from nnunet_covid.files import sha256_of, some_of, writable_folder
from nnunet_covid.nnunet.rounds.bench import NNUNetBench
from nnunet_covid.nnunet.rounds.images import Images, checksums, known_images, refuse_known, unlabelled_images
from nnunet_covid.nnunet.rounds.pool import preprocess_pool, unprocessed
from nnunet_covid.nnunet.rounds.setting import Setting
from nnunet_covid.semi_supervised.history import history
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import KINDS
from nnunet_covid.semi_supervised.state import FILE, RunState

FULL = (errno.ENOSPC, errno.EDQUOT)
LITTLE_SPACE = 32 * 2**20
"""Bytes; below this a failed write is put down to a full disk whatever the library called it."""


def run_pseudo_labels(
    setting: Setting,
    options: RoundOptions,
    folder: Path,
    *,
    start_from: Path | None = None,
    leave_out_duplicates: bool = False,
    workers: int = 1,
    tell: Callable[[str], None] = print,
) -> None:
    """Do all rounds, or go on where an interrupted run of the same settings stopped.

    Args:
        setting: Data set, trainer and folders.
        options: What decides the run.
        folder: Unlabelled images, named as nnU-Net wants them.
        start_from: A checkpoint of the trainer instead of a first training.
        leave_out_duplicates: Go on without images that are known already.
        workers: Processes that pre-process.
        tell: Receives each line for the person.

    Raises:
        UserError: If something in the input does not fit, before anything is trained; and if the disk is full.
    """
    images = unlabelled_images(folder, setting)
    if start_from is not None and not start_from.is_file():
        raise UserError(f"--start-from {start_from}: no such file")
    writable_folder(setting.data_folder)
    context = {
        "dataset": setting.dataset,
        "configuration": setting.configuration,
        "fold": setting.fold,
        "trainer": setting.trainer,
        "plans": setting.plans_digest(),
        "images": str(folder.resolve()),
        "start_from": sha256_of(start_from) if start_from is not None else None,
    }
    bench = NNUNetBench(setting, options, {}, start_from)
    with disk_full_is_a_users_matter(setting), locked(setting.report_folder):
        state = RunState.open(setting.report_folder, options, context)
        bench.check_trainer()
        if not state.units and setting.label_folder.exists():  # of a run whose report folder was deleted
            shutil.rmtree(setting.label_folder)
        resumed = state.done("pool")
        pool = state.once("pool", lambda: _pool(images, setting, folder, leave_out_duplicates))
        if resumed:
            _refuse_other_images(pool, images, setting, folder)
        kept_out = bench.validation_cases()
        if state.once("validation cases", lambda: kept_out) != kept_out:
            raise UserError(
                f"{setting.data_folder / 'splits_final.json'}: fold {setting.fold} has other validation cases than "
                "when the run began. Put the file back, or start beside it with another --name"
            )
        if setting.raw_folder is None:
            tell("nnUNet_raw does not hold the data set: unlabelled images were not compared with its own")
        if setting.fold == "all":
            tell("fold all keeps no case out: every validation Dice is that of training cases")
        targets = preprocess_pool({case: images[case] for case in pool["cases"]}, pool["cases"], setting, workers)
        bench.pool = targets
        rounds = KINDS[options.strategy](state, bench, list(targets), tell, lambda: _draw(setting.report_folder, state))
        model = rounds.run()
    dice = state.units["publish"]["result"]["dice"]
    tell(f"{model} is {setting.model_folder} (nnU-Net's validation Dice {dice:.4f})")
    tell(
        f"nnUNetv2_predict -d {setting.dataset} -c {setting.configuration} -f {setting.fold} "
        f"-tr {setting.model_name} -p {setting.plans_name} -i IMAGES -o PREDICTIONS"
    )


def _draw(folder: Path, state: RunState) -> None:
    title = f"{state.context['trainer']}, {state.options.strategy} rounds, fold {state.context['fold']}"
    draw_progress(folder, title, history({"units": state.units}))


def _pool(images: Images, setting: Setting, folder: Path, leave_out: bool) -> dict[str, dict[str, str]]:
    """Case to checksum, and what was left out."""
    digests = checksums(images, setting, "read unlabelled images")
    known = known_images({case: digest.voxels for case, digest in digests.items()}, setting)
    if not leave_out:
        refuse_known(known, folder)
    cases = {case: digest.whole for case, digest in digests.items() if case not in known}
    if not cases:
        raise UserError(f"-i {folder}: every image is known already, none is left to label")
    return {"cases": cases, "left_out": known}


def _refuse_other_images(pool: dict[str, dict[str, str]], images: Images, setting: Setting, folder: Path) -> None:
    """An interrupted run goes on with the images it began with: by name, and by content where they are still read."""
    before = {*pool["cases"], *pool["left_out"]}
    if before != set(images):
        gone, new = sorted(before - set(images)), sorted(set(images) - before)
        raise UserError(
            f"-i {folder}: {len(gone)} image(s) have gone and {len(new)} are new since the run began "
            f"({some_of([*gone, *new])}). Put them back as they were, or start beside it with another --name"
        )
    unread = {case: images[case] for case in unprocessed(pool["cases"], setting)}
    digests = checksums(unread, setting, "read unlabelled images") if unread else {}
    changed = [case for case, digest in digests.items() if digest.whole != pool["cases"][case]]
    if changed:
        raise UserError(
            f"-i {folder}: {len(changed)} image(s) have changed since the run began ({some_of(changed)}). Put "
            "them back as they were, or start beside it with another --name"
        )


@contextlib.contextmanager
def disk_full_is_a_users_matter(setting: Setting) -> Iterator[None]:
    """Turn the many errors of a full disk into one line.

    Raises:
        UserError: If it is full.
    """
    try:
        yield
    except (OSError, RuntimeError) as e:
        place = _full_place(e, setting)
        if place is None:
            raise
        raise UserError(
            f"the disk of {place} is full; nothing is lost: make room and give the same command again"
        ) from e


def _full_place(error: Exception, setting: Setting) -> Path | None:
    if isinstance(error, OSError) and error.errno in FULL:
        return Path(error.filename) if error.filename else setting.report_folder
    for place in (setting.report_folder, setting.data_folder):
        if place.exists() and shutil.disk_usage(place).free < LITTLE_SPACE:
            return place
    return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process away from a run; the lock ends with the process, however it ends.

    Raises:
        UserError: If another process works on the run.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # no such locks on Windows
        yield
        return
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lock"
    handle = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            raise UserError(f"another process is at work on {folder}; wait for it, or use another --name") from e
        yield
    finally:
        os.close(handle)
        if made and not (folder / FILE).exists():  # refused before there was a run
            shutil.rmtree(folder)
            for empty in made[1:]:
                with contextlib.suppress(OSError):
                    empty.rmdir()
