"""Unlabelled images in nnU-Net's own pre-processed format, made once and found again by their content."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_covid.files import map_in_processes
from nnunet_covid.nnunet.rounds.images import Images
from nnunet_covid.nnunet.rounds.setting import Setting

ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")
"""Files of a pre-processed case; the last one is written last."""
DIGITS = 24
"""Of a checksum, in file names."""
ABANDONED = 3600.0
"""Seconds after which an unfinished file is nobody's."""


@dataclass(frozen=True)
class Task:
    """One image to pre-process: its files, where the result goes, and the plans to follow."""

    files: tuple[str, ...]
    target: str
    plans_file: str
    dataset_file: str
    configuration: str


def pool_folder(setting: Setting) -> Path:
    """Beside the data set's own pre-processed cases; another one after re-planning."""
    digest = setting.plans_digest("architecture", "batch_size")
    return setting.data_folder / f"{setting.configuration_manager.data_identifier}_unlabelled_{digest}"


def unprocessed(digests: Mapping[str, str], setting: Setting) -> list[str]:
    """The cases that are not in the pool's folder yet.

    Args:
        digests: Case to the checksum of its voxels and geometry.
    """
    folder = pool_folder(setting)
    return [case for case, digest in digests.items() if not (folder / (digest[:DIGITS] + ENDINGS[-1])).is_file()]


def preprocess_pool(images: Images, digests: Mapping[str, str], setting: Setting, workers: int = 1) -> dict[str, Path]:
    """Pre-process what is not pre-processed yet.

    Returns:
        Case to its pre-processed files, without their endings.
    """
    folder = pool_folder(setting)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    targets = {case: folder / digests[case][:DIGITS] for case in images}
    tasks = [
        Task(
            tuple(str(f) for f in images[case]),
            str(targets[case]),
            str(setting.data_folder / f"{setting.plans_name}.json"),
            str(setting.data_folder / "dataset.json"),
            setting.configuration,
        )
        for case in unprocessed({case: digests[case] for case in images}, setting)
    ]
    done = map_in_processes(preprocess, tasks, workers)
    for _ in tqdm(done, total=len(tasks), desc="pre-process", unit="image", disable=not tasks, leave=False):
        pass
    return targets


def _remove_abandoned(folder: Path) -> None:
    """Files of runs that were killed; another run may be at work in the same folder just now."""
    for path in folder.glob("tmp_*"):
        if path.stat().st_mtime < time.time() - ABANDONED:
            path.unlink(missing_ok=True)


def preprocess(task: Task) -> None:
    """Pre-process one image as nnU-Net does for prediction and write it as it does for training."""
    plans, dataset_json = _plans(task.plans_file), load_json(task.dataset_file)
    configuration = plans.get_configuration(task.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, mask, properties = preprocessor.run_case(list(task.files), None, plans, configuration, dataset_json)
    write_case(Path(task.target), data.astype(np.float32), mask, properties, configuration.patch_size)


@lru_cache(maxsize=1)
def _plans(path: str) -> PlansManager:
    return PlansManager(path)


def write_case(target: Path, data: np.ndarray, mask: np.ndarray, properties: dict[str, Any], patch: Any) -> None:
    """Write a pre-processed case under a temporary name and rename its files."""
    temporary = target.with_name(f"tmp_{os.getpid()}_{target.name}")
    mask = mask.astype(np.int16)
    for ending in ENDINGS:
        temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
    blocks, chunks = comp_blosc2_params(data.shape, tuple(patch), data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(mask.shape, tuple(patch), mask.itemsize)
    nnUNetDatasetBlosc2.save_case(
        data,
        mask,
        properties,
        str(temporary),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )
    for ending in ENDINGS:
        temporary.with_name(temporary.name + ending).replace(target.with_name(target.name + ending))
