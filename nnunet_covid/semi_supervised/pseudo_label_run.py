"""One whole pseudo-label run: check, pre-process, do the rounds, publish; begun again until it is through.

What is in the folder of unlabelled images, and whether any of it is known already, is found out here.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_covid.dataset_json import channel_names
from nnunet_covid.disturbances import alone, full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.figures.progress import draw_progress
from nnunet_covid.files import files_in, remove_abandoned, sha256_of, some_of, writable_folder
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import read_images, refuse_slices_in_3d
from nnunet_covid.nnunet.known_images import Checksum, checksum, checksums, known_among, known_voxels, not_compared
from nnunet_covid.nnunet.preprocess import Preprocessing, preprocess_image, properties_of
from nnunet_covid.semi_supervised.experiment import Experiment
from nnunet_covid.semi_supervised.learner import Learner, checked_trainer, labelled_cases
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.rounds import KINDS
from nnunet_covid.semi_supervised.state import FILE, RunState, history
from nnunet_covid.shared_work import map_in_processes

DIGITS = 24
"""Of a checksum, in file names."""
AS_BEFORE = "Put them back as they were, or start beside it with another `name`"

Pool = dict[str, dict[str, str]]
"""``cases``: the checksum of each case that may be labelled; ``left_out``: the others, and where else each is."""


class UnlabelledImages:
    """The cases of a folder, named as nnU-Net wants images: ``CASE_0000`` for the first channel.

    An image is read twice, once to know it by its content, since known images are told before anything is written, and
    once to be pre-processed; from then on its pre-processed copy is found again by its content.

    Args:
        folder: Of the images.
        experiment: Its data set says what images look like; its own images, labelled and test images, are known ones.

    Raises:
        UserError: If there are none, or one has other channels than the data set.
    """

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder = folder
        self.experiment = experiment
        channels = len(channel_names(experiment.dataset_json))
        self.cases = list_cases(folder, experiment.dataset_json["file_ending"], channels)

    def _error(self, text: str) -> UserError:
        return UserError(f"`images` {self.folder}: {text}")

    def checksums(self) -> dict[str, Checksum]:
        """The checksums of each case.

        Raises:
            UserError: If a file cannot be read or holds another number of channels than the data set.
        """
        experiment = self.experiment
        return checksums(self.cases, experiment.plans_manager, experiment.dataset_json, "unlabelled images")

    def pool(self, *, leave_out_known: bool = False) -> Pool:
        """Read all images and say which of them may be labelled.

        Args:
            leave_out_known: Go on without images that are known already.

        Raises:
            UserError: If an image cannot be read, is known already or is a slice for a 3D network, or none is left.
        """
        refuse_slices_in_3d(self.cases[0], self.experiment.plans_manager, self.experiment.configuration)
        digests = self.checksums()
        known = self._known({case: digest.voxels for case, digest in digests.items()})
        if known and not leave_out_known:
            pairs = some_of([f"{case} = {other}" for case, other in known.items()])
            raise self._error(
                f"{len(known)} image(s) are known already ({pairs}). Remove them, or add `leave_out_duplicates`"
            )
        cases = {case: digest.whole for case, digest in digests.items() if case not in known}
        if not cases:
            raise self._error("every image is known already, none is left to label")
        return {"cases": cases, "left_out": known}

    def _known(self, own: dict[str, str]) -> dict[str, str]:
        """Cases that are also labelled or test cases of the data set, or twice in the folder, and where else."""
        experiment = self.experiment
        seen = known_voxels(experiment.raw_folder, experiment.plans_manager, experiment.dataset_json)
        return known_among(own, seen)

    def not_compared(self) -> str:
        """A line about the labelled images that the raw data set lacks; empty if it has all."""
        experiment, ending = self.experiment, self.experiment.dataset_json["file_ending"]
        labels = files_in(experiment.data_folder / "gt_segmentations", ending)
        names = [path.name.removesuffix(ending) for path in labels]
        return not_compared(experiment.raw_folder, experiment.dataset_json, names)

    def preprocess(self, pool: Pool, workers: int = 1) -> dict[str, Path]:
        """Pre-process what is not pre-processed yet, beside the data set's own cases.

        Returns:
            Case to its pre-processed files, without their endings.

        Raises:
            UserError: If there are other images in the folder than when the run began, or one is not the same.
        """
        before, now = {*pool["cases"], *pool["left_out"]}, {case.name for case in self.cases}
        if before != now:
            gone, new = before - now, now - before
            raise self._error(
                f"{len(gone)} image(s) have gone and {len(new)} are new since the run began "
                f"({some_of([*gone, *new])}). {AS_BEFORE}"
            )
        how = Preprocessing(self.experiment.plans_manager.plans, self.experiment.configuration)
        kind = self.experiment.configuration_manager.data_identifier
        folder = self.experiment.data_folder / f"{kind}_unlabelled_{how.digest()}"
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        targets = {case: folder / whole[:DIGITS] for case, whole in pool["cases"].items()}
        chosen = [case for case in self.cases if case.name in targets and properties_of(targets[case.name]) is None]
        tasks = [(case, pool["cases"][case.name], targets[case.name]) for case in chosen]
        done = map_in_processes(partial(_preprocess, how=how), tasks, workers)
        bar = tqdm(done, total=len(tasks), desc="pre-process", unit="image", disable=not tasks, leave=False)
        changed = [name for name in bar if name is not None]
        if changed:
            raise self._error(
                f"{len(changed)} image(s) have changed since the run began ({some_of(changed)}). {AS_BEFORE}"
            )
        return targets


def _preprocess(task: tuple[CaseFiles, str, Path], how: Preprocessing) -> str | None:
    """Pre-process one image if it has this checksum; else its name."""
    case, expected, target = task
    image, properties = read_images(PlansManager(how.plans).image_reader_writer_class(), case.files)
    if checksum(image, properties).whole != expected:
        return case.name
    preprocess_image(target, case, image, None, properties, how)
    return None


def run_pseudo_labels(
    experiment: Experiment,
    options: RoundOptions,
    folder: Path,
    *,
    start_from: Path | None = None,
    pretrained: Path | None = None,
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
        pretrained: A checkpoint of ``nnunet-covid pretrain`` that every new model starts from.
        leave_out_duplicates: Go on without images that are known already.
        workers: Processes that pre-process.
        tell: Receives each line for the person.

    Raises:
        UserError: If something in the input does not fit, before anything is trained; and if the disk is full.
    """
    images = UnlabelledImages(folder, experiment)
    for name, given in (("start_from", start_from), ("pretrained_weights", pretrained)):
        if given is not None and not given.is_file():
            raise UserError(f"`{name}` {given}: no such file")
    writable_folder(experiment.data_folder)
    with full_disk_told(experiment.report_folder, experiment.data_folder), locked(experiment.report_folder):
        state = RunState(experiment.report_folder, options, _context(experiment, folder, start_from, pretrained))
        trainer = checked_trainer(experiment, options, start_from, pretrained)
        if not state.units and experiment.label_folder.exists():  # of a run whose report folder was deleted
            shutil.rmtree(experiment.label_folder)
        pool = state.once("pool", lambda: images.pool(leave_out_known=leave_out_duplicates))
        kept_out = sorted(labelled_cases(trainer, 1).identifiers)
        state.require_same("validation cases", kept_out, experiment.data_folder, experiment.fold, "validation")
        if line := images.not_compared():
            tell(line)
        if experiment.fold == "all":
            tell("fold all keeps no case out: every validation Dice is that of training cases")
        targets = images.preprocess(pool, workers)
        state.forget_where_lost("publish", experiment.fold_folder / "checkpoint_final.pth")
        learner = Learner(experiment, options, targets, trainer, start_from, pretrained)
        del trainer  # or its network would stay beside those of the rounds
        title = f"{experiment.trainer}, {options.strategy} rounds, fold {experiment.fold}"
        draw = partial(draw_progress, state.folder, title)
        model = KINDS[options.strategy](state, learner, targets, tell, lambda: draw(history(state.units))).run()
    dice = state.units["publish"]["result"]["dice"]
    tell(f"{model} is {experiment.model_folder} (nnU-Net's validation Dice {dice:.4f})")
    tell(
        f"nnUNetv2_predict -d {experiment.dataset} -c {experiment.configuration} -f {experiment.fold} "
        f"-tr {experiment.model_name} -p {experiment.plans_name} -i IMAGES -o PREDICTIONS"
    )


def _context(experiment: Experiment, folder: Path, start_from: Path | None, pretrained: Path | None) -> dict[str, Any]:
    """What must be the same where a run goes on."""
    return {
        "dataset": experiment.dataset,
        "configuration": experiment.configuration,
        "fold": experiment.fold,
        "trainer": experiment.trainer,
        "plans": experiment.plans_digest(),
        "images": str(folder.resolve()),
        "start_from": sha256_of(start_from) if start_from is not None else None,
        "pretrained_weights": sha256_of(pretrained) if pretrained is not None else None,
    }


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second process away from a run; the lock ends with the process, however it ends.

    Raises:
        UserError: If another process works on the run.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder / "lock", str(folder), "use another `name`"):
            for place in (folder.parent, folder, *(path for path in folder.rglob("*") if path.is_dir())):
                remove_abandoned(place, age=0)
            yield
    finally:
        if made and not (folder / FILE).exists():  # refused before there was a run
            shutil.rmtree(folder)
            for empty in made[1:]:
                with contextlib.suppress(OSError):
                    empty.rmdir()
