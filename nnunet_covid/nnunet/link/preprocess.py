"""Pre-processing of linked cases by nnU-Net's own pre-processor, one case at a time, so that it can be resumed."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_covid.errors import UserError, reason_of

REDUCED_DATASET_JSON: dict[str, Any] = {"labels": {"background": 0, "lesion": 1}}
"""All that is needed of the labels of other diseases: where a patch with a lesion can be cut."""
PARTS = (".b2nd", "_seg.b2nd", ".pkl")
"""The files of a pre-processed case; the last one to be moved into place says that the case is complete."""
WRITING = "writing"


@dataclass(frozen=True)
class SourceFiles:
    """One case of a raw data set, or one unlabelled image (``label`` is ``None``)."""

    name: str
    images: tuple[str, ...]
    label: str | None


def is_complete(folder: Path, source: SourceFiles) -> bool:
    """Whether the case has been pre-processed from its files as they are now."""
    files = [folder / f"{source.name}{part}" for part in PARTS]
    if not all(file.is_file() for file in files):
        return False
    originals = [*source.images, *([source.label] if source.label else [])]
    return max(os.stat(path).st_mtime for path in originals) <= files[-1].stat().st_mtime


def preprocess_cases(
    sources: Sequence[SourceFiles],
    folder: Path,
    plans: dict[str, Any],
    configuration: str,
    lesions: Sequence[int],
    *,
    processes: int,
    shown: str,
    progress: bool = True,
) -> None:
    """Pre-process what is not complete yet.

    Args:
        sources: All cases that belong into the folder.
        folder: Receives them.
        plans: The COVID plans, with the reader of these files.
        lesions: Label values that count as lesion.
        processes: With 1 everything happens in this process.
        shown: The name beside the progress bar.

    Raises:
        UserError: If a case cannot be pre-processed.
    """
    remaining = [source for source in sources if not is_complete(folder, source)]
    if not remaining:
        return
    (folder / WRITING).mkdir(parents=True, exist_ok=True)
    work = partial(_preprocess, folder=folder, plans=plans, configuration=configuration, lesions=tuple(lesions))
    bar = tqdm(total=len(sources), initial=len(sources) - len(remaining), desc=shown, disable=not progress)
    with bar:
        for _ in _mapped(work, remaining, min(processes, len(remaining))):
            bar.update()
    shutil.rmtree(folder / WRITING)


def _mapped(work: Any, items: Iterable[SourceFiles], processes: int) -> Iterator[None]:
    if processes <= 1:
        yield from map(work, items)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(work, items)


def _preprocess(
    source: SourceFiles, folder: Path, plans: dict[str, Any], configuration: str, lesions: tuple[int, ...]
) -> None:
    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    preprocessor = _with_reduced_labels(chosen.preprocessor_class, lesions)(verbose=False)
    unfinished = folder / WRITING / source.name
    for part in PARTS:
        unfinished.with_name(source.name + part).unlink(missing_ok=True)
    try:
        preprocessor.run_case_save(
            str(unfinished), list(source.images), source.label, manager, chosen, REDUCED_DATASET_JSON
        )
    except (OSError, RuntimeError, ValueError, AssertionError, KeyError, IndexError) as e:
        raise UserError(f"{source.images[0]} cannot be pre-processed with these plans ({reason_of(e)})") from e
    for part in PARTS:
        os.replace(unfinished.with_name(source.name + part), folder / f"{source.name}{part}")


def _with_reduced_labels(kind: type, lesions: tuple[int, ...]) -> type:
    """The planned pre-processor, which sees lesion and no lesion instead of the data set's labels."""

    class Reduced(kind):  # type: ignore[valid-type, misc]
        def run_case(
            self, image_files: Any, seg_file: Any, plans_manager: Any, configuration_manager: Any, dataset_json: Any
        ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
            reader = plans_manager.image_reader_writer_class()
            data, properties = reader.read_images(image_files)
            labels = None if seg_file is None else np.isin(reader.read_seg(seg_file)[0], lesions).astype(np.int8)
            result = self.run_case_npy(data, labels, properties, plans_manager, configuration_manager, dataset_json)
            result[2].setdefault("class_locations", {1: []})  # nnU-Net's loader asks for it
            return result

    return Reduced


def count_cases_with_lesion(folder: Path, names: Iterable[str]) -> int:
    """How many pre-processed cases hold a lesion."""
    return sum(len(load_pickle(str(folder / f"{name}.pkl"))["class_locations"].get(1, ())) > 0 for name in names)
