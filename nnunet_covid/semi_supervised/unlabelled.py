"""The unlabelled images: what is in the folder, whether any of it is known already, and their pre-processed copies.

An image is read twice, once to know it by its content, since known images are told before anything is written, and once
to be pre-processed; from then on its pre-processed copy is found again by its content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import channel_names
from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, map_in_processes, remove_abandoned, some_of
from nnunet_covid.nnunet.dataset import CaseFiles, list_cases, read_images
from nnunet_covid.nnunet.preprocess import Preprocessing, is_preprocessed, preprocess_image
from nnunet_covid.semi_supervised.experiment import Experiment

DIGITS = 24
"""Of a checksum, in file names."""
AS_BEFORE = "Put them back as they were, or start beside it with another `name`"

Pool = dict[str, dict[str, str]]
"""``cases``: the checksum of each case that may be labelled; ``left_out``: the others, and where else each is."""


class Checksum(NamedTuple):
    """SHA-256 of a case as nnU-Net reads it, so that a copy in another compression is the same.

    Attributes:
        voxels: Of the voxel values.
        whole: Of these and of spacing and geometry.
    """

    voxels: str
    whole: str


class UnlabelledImages:
    """The cases of a folder, named as nnU-Net wants images: ``CASE_0000`` for the first channel.

    Args:
        folder: Of the images.
        experiment: Its data set says what images look like; its own images, labelled and test images, are known ones.

    Raises:
        UserError: If there are none, or one has other channels than the data set.
    """

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder = folder
        self.experiment = experiment
        self.cases = self._cases_of(folder)

    def _cases_of(self, folder: Path) -> list[CaseFiles]:
        dataset_json = self.experiment.dataset_json
        return list_cases(folder, dataset_json["file_ending"], len(channel_names(dataset_json)))

    def _error(self, text: str) -> UserError:
        return UserError(f"`images` {self.folder}: {text}")

    def checksums(self) -> dict[str, Checksum]:
        """The checksums of each case.

        Raises:
            UserError: If a file cannot be read or holds another number of channels than the data set.
        """
        return self._checksums_of(self.cases, "read unlabelled images")

    def _checksums_of(self, cases: Sequence[CaseFiles], title: str) -> dict[str, Checksum]:
        reader = self.experiment.plans_manager.image_reader_writer_class()
        expected = len(channel_names(self.experiment.dataset_json))
        result = {}
        for case in tqdm(cases, desc=title, unit="image", leave=False):
            voxels, properties = read_images(reader, case.files)
            if len(voxels) != expected:
                raise UserError(f"{case.files[0]}: has {len(voxels)} channel(s), the data set's images have {expected}")
            result[case.name] = checksum(voxels, properties)
        return result

    def pool(self, *, leave_out_known: bool = False) -> Pool:
        """Read all images and say which of them may be labelled.

        Args:
            leave_out_known: Go on without images that are known already.

        Raises:
            UserError: If an image cannot be read or is known already, or none is left.
        """
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

    def _known(self, own: Mapping[str, str]) -> dict[str, str]:
        """Cases that are also labelled or test cases of the data set, or twice in the folder, and where else."""
        seen: dict[str, str] = {}
        known: dict[str, str] = {}
        raw = self.experiment.raw_folder
        for folder in [raw / part for part in ("imagesTr", "imagesTs")] if raw is not None else []:
            if files_in(folder, self.experiment.dataset_json["file_ending"]):
                digests = self._checksums_of(self._cases_of(folder), f"read {folder.name}")
                seen |= {digest.voxels: f"{folder.name}/{case}" for case, digest in digests.items()}
        for case, voxels in sorted(own.items()):
            if voxels in seen:
                known[case] = seen[voxels]
            else:
                seen[voxels] = f"{case} of the same folder"
        return known

    def refuse_other_names(self, pool: Pool) -> None:
        """A run goes on with the images that it began with.

        Raises:
            UserError: If there are others in the folder.
        """
        before, now = {*pool["cases"], *pool["left_out"]}, {case.name for case in self.cases}
        if before != now:
            gone, new = before - now, now - before
            raise self._error(
                f"{len(gone)} image(s) have gone and {len(new)} are new since the run began "
                f"({some_of([*gone, *new])}). {AS_BEFORE}"
            )

    def preprocess(self, pool: Pool, workers: int = 1) -> dict[str, Path]:
        """Pre-process what is not pre-processed yet, beside the data set's own cases.

        Returns:
            Case to its pre-processed files, without their endings.

        Raises:
            UserError: If an image is not the one that the run began with.
        """
        experiment, folder = self.experiment, pool_folder(self.experiment)
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        targets = {case: folder / digest[:DIGITS] for case, digest in pool["cases"].items()}
        chosen = [case for case in self.cases if case.name in targets and not is_preprocessed(targets[case.name])]
        tasks = [(case, pool["cases"][case.name], targets[case.name]) for case in chosen]
        how = Preprocessing(experiment.plans, experiment.configuration)
        done = map_in_processes(partial(_preprocess, how=how), tasks, workers)
        bar = tqdm(done, total=len(tasks), desc="pre-process", unit="image", disable=not tasks, leave=False)
        changed = [name for name in bar if name is not None]
        if changed:
            raise self._error(
                f"{len(changed)} image(s) have changed since the run began ({some_of(changed)}). {AS_BEFORE}"
            )
        return targets


def checksum(voxels: NDArray[Any], properties: Mapping[str, Any]) -> Checksum:
    """Of an image as nnU-Net's reader gives it."""
    voxels = np.ascontiguousarray(voxels)
    digest = hashlib.sha256(repr((voxels.shape, voxels.dtype.str)).encode() + voxels.tobytes())
    plain = digest.hexdigest()
    digest.update(json.dumps(properties, sort_keys=True, default=lambda o: np.asarray(o).tolist()).encode())
    return Checksum(plain, digest.hexdigest())


def pool_folder(experiment: Experiment) -> Path:
    """Where the pre-processed images of all runs lie; another folder after re-planning."""
    digest = experiment.plans_digest("architecture", "batch_size")
    return experiment.data_folder / f"{experiment.configuration_manager.data_identifier}_unlabelled_{digest}"


def _preprocess(task: tuple[CaseFiles, str, Path], how: Preprocessing) -> str | None:
    """Pre-process one image if it has this checksum; else its name."""
    case, expected, target = task
    image, properties = read_images(PlansManager(how.plans).image_reader_writer_class(), case.files)
    if checksum(image, properties).whole != expected:
        return case.name
    preprocess_image(target, case, image, None, properties, how)
    return None
