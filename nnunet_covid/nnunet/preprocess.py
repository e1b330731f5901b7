"""Cases in nnU-Net's pre-processed format: made from unlabelled or linked images, and looked at before a training.

Images are pre-processed by nnU-Net's own pre-processor as for prediction and written as for training, one case at a
time, so that interrupted work can be resumed. The training cases themselves are pre-processed by
``nnUNetv2_preprocess``; what is wanted of them here are counts and empty lung masks.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.dataset_json import channel_names, lung_mask_channel
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import digest_of, read_json, replacing, write_text
from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.dataset import read_images, read_labels
from nnunet_covid.nnunet.intensities import refuse_other_scale
from nnunet_covid.nnunet.known_images import checksum
from nnunet_covid.shared_work import map_in_processes

ENDINGS = (".b2nd", "_seg.b2nd", ".pkl")
"""The files of a pre-processed case; the last one to be moved into place says that the case is complete."""
LESION_LABELS: dict[str, Any] = {"labels": {"background": 0, "lesion": 1}}
"""All that is needed of the labels of linked cases: where a patch with a lesion can be cut."""
VOXELS = "sha256_of_voxels"
"""Among the properties of a pre-processed case: :attr:`nnunet_covid.nnunet.known_images.Checksum.voxels`."""
CONTENT = "made_of"
"""Entry of a case's properties: a digest of the files that it was pre-processed from."""
OUTSIDE = -1
"""nnU-Net's pre-processing writes this around the cropped image, and trains on it as background."""
DECISIVE_OF_CONFIGURATION = (
    "preprocessor_name",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
DECISIVE_OF_PLANS = ("transpose_forward", "foreground_intensity_properties_per_channel")


@dataclass(frozen=True)
class Preprocessing:
    """How images are pre-processed.

    Attributes:
        plans: A plans file's content, with the reader of the images.
        configuration: One of the plans.
        lesions: Label values of the cases' label maps that count as lesion.
    """

    plans: dict[str, Any]
    configuration: str
    lesions: tuple[int, ...] = ()

    def digest(self) -> str:
        """Sixteen digits, equal for two configurations exactly if they pre-process alike, but for the lesions.

        Patch and batch size do not count: a configuration that inherits another's data shares what was made of it.
        """
        chosen = PlansManager(self.plans).get_configuration(self.configuration)
        decisive = {key: chosen.configuration.get(key) for key in DECISIVE_OF_CONFIGURATION}
        decisive["dimensions"] = len(chosen.patch_size)
        decisive.update({key: self.plans.get(key) for key in DECISIVE_OF_PLANS})
        return digest_of(decisive, 16)


def preprocess_cases(
    cases: Mapping[Path, CaseFiles],
    how: Preprocessing,
    processes: int,
    *,
    shown: str,
    already: int,
) -> None:
    """Pre-process cases and write each under its name when it is complete.

    Args:
        cases: Target, a file name without ending in a folder that exists, to case.
        how: The same for all.
        processes: With 1 everything happens in this process.
        shown: The name beside the progress bar.
        already: Cases that were done before, for the bar.

    Raises:
        UserError: If a case cannot be read or pre-processed.
    """
    done = map_in_processes(partial(preprocess_case, how=how), list(cases.items()), processes)
    for _ in tqdm(done, total=already + len(cases), initial=already, desc=shown, unit="case", disable=not cases):
        pass


def preprocess_case(item: tuple[Path, CaseFiles], how: Preprocessing) -> None:
    """Pre-process one case as nnU-Net does; of its labels, lesion and no lesion are kept."""
    target, case = item
    reader = PlansManager(how.plans).image_reader_writer_class()
    data, properties = read_images(reader, case.files)
    labels = None if case.label is None else np.isin(read_labels(reader, case.label)[0], how.lesions).astype(np.int8)
    properties = {**properties, VOXELS: checksum(data, properties).voxels}
    preprocess_image(target, case, data, labels, properties, how)


def preprocess_image(
    target: Path,
    case: CaseFiles,
    data: NDArray[Any],
    labels: NDArray[np.int8] | None,
    properties: dict[str, Any],
    how: Preprocessing,
) -> None:
    """Pre-process a case that has been read, and write it, both as nnU-Net does.

    Args:
        target: Its files without their endings.
        case: Where it was read from, for messages.
        data: (channels, *axes).
        labels: (1, *axes), 1 where there is a lesion, if there are labels.
        properties: Of the image.
        how: The plans.

    Raises:
        UserError: If it does not fit the plans.
    """
    plans = PlansManager(how.plans)
    configuration = plans.get_configuration(how.configuration)
    planned = len(configuration.normalization_schemes)
    if len(data) != planned:
        raise UserError(
            f"{case.files[0]}: {case.name} has {len(data)} channel(s), but the plans are made for {planned}"
        )
    refuse_other_scale(data, f"{case.files[0]}: {case.name}", how.plans, configuration.normalization_schemes)
    preprocessor = configuration.preprocessor_class(verbose=False)
    try:
        data, mask, properties = preprocessor.run_case_npy(
            data, labels, properties, plans, configuration, LESION_LABELS
        )
    except (OSError, RuntimeError, ValueError, AssertionError, KeyError, IndexError) as e:
        raise UserError(f"{case.files[0]} cannot be pre-processed with these plans ({reason_of(e)})") from e
    properties.setdefault("class_locations", {1: []})  # nnU-Net's loader asks for it
    properties[CONTENT] = case.content()
    data, mask = data.astype(np.float32, copy=False), mask.astype(np.int16)
    patch = tuple(configuration.patch_size)
    blocks, chunks = comp_blosc2_params(data.shape, patch, data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(mask.shape, patch, mask.itemsize)
    with replacing(target, ENDINGS) as unfinished:
        nnUNetDatasetBlosc2.save_case(data, mask, properties, str(unfinished), chunks, blocks, chunks_seg, blocks_seg)


def properties_of(target: Path) -> dict[str, Any] | None:
    """The properties of a case, given without ending, all of whose files are there and whole; else ``None``."""
    try:
        for ending in ENDINGS[:-1]:
            blosc2.open(urlpath=f"{target}{ending}", mode="r")  # reads no voxel, but what stands at the file's end
        properties = load_pickle(f"{target}{ENDINGS[-1]}")
    except Exception:  # pickle's is whatever the bytes lead it into
        return None
    return properties if isinstance(properties, dict) else None


def is_current(target: Path, case: CaseFiles) -> bool:
    """Whether a case has been pre-processed from its files as they are now, whatever their times say."""
    return (properties_of(target) or {}).get(CONTENT) == case.content()


def check_channels(dataset_json: dict[str, Any], configuration: ConfigurationManager) -> None:
    """Do the plans know every channel of the data set?

    Raises:
        ValueError: If they were made for another number of channels.
    """
    promised = channel_names(dataset_json)
    planned = len(configuration.normalization_schemes)
    if len(promised) != planned:
        channel = lung_mask_channel(dataset_json)
        mask = "" if channel is None else f"; number {channel} is a lung mask"
        msg = (
            f"dataset.json promises {len(promised)} input channels ({', '.join(promised)}{mask}), "
            f"but the plans are made for {planned}: run nnUNetv2_plan_and_preprocess again"
        )
        raise ValueError(msg)


def cases_without_lungs(dataset: Any, cases: Sequence[str], channel: int) -> list[str]:
    """The cases of an nnU-Net data set whose lung mask is zero everywhere.

    Args:
        dataset: nnU-Net's data set of one pre-processed configuration.
        cases: Those to look at.
        channel: Index of the mask.

    Raises:
        ValueError: If a pre-processed image has no such channel.
    """
    empty = []
    for case in tqdm(cases, desc="lung masks", unit="case", leave=False):
        data = dataset.load_case(case)[0]
        if data.shape[0] <= channel:
            msg = f"the pre-processed image of {case} has no lung mask channel: run nnUNetv2_preprocess again"
            raise ValueError(msg)
        if not data[channel].any():
            empty.append(case)
    return empty


def count_labels(dataset: Any, cases: Sequence[str], cache: Path) -> Counter[int]:
    """Voxels of every label value over some cases, counted once and kept beside the data.

    What is counted is the pre-processed segmentation of the configuration that is trained: it is what the loss sees
    (resampled, cropped), it exists for every training case whatever its file format, and pseudo labels pass through
    the same pre-processing. A case is counted again when the file of its segmentation changes, so that new pseudo
    labels are noticed without being announced.

    Args:
        dataset: nnU-Net's data set of one pre-processed configuration.
        cases: Its cases that make up the training set.
        cache: JSON file with what has been counted; made or brought up to date.
    """
    known = read_json(cache) or {}
    total: Counter[int] = Counter()
    changed = False
    for case in tqdm(cases, desc="label counts", unit="case", leave=False):
        stamp = _stamp(Path(dataset.source_folder), case)
        entry = known.get(case)
        if entry is None or entry["stamp"] != stamp:
            values, counts = np.unique(dataset.load_case(case)[1][0], return_counts=True)
            counted = {str(int(value)): int(n) for value, n in zip(values, counts, strict=True)}
            entry = known[case] = {"stamp": stamp, "counts": counted}
            changed = True
        total.update({int(label): n for label, n in entry["counts"].items()})
    if changed:
        write_text(cache, json.dumps(known, indent=1))
    return total


def class_counts(counts: Counter[int], labels: Iterable[int]) -> list[int]:
    """Counts in the order of the labels, whatever lies outside the cropped image added to the background."""
    merged = counts.copy()
    merged[0] += merged.pop(OUTSIDE, 0)
    return [merged[label] for label in labels]


def _stamp(folder: Path, case: str) -> list[list[Any]]:
    """Name, size and times of the files that may hold the segmentation of a case; the last one nobody can set back."""
    candidates = (folder / f"{case}{ending}" for ending in ("_seg.b2nd", "_seg.npy", ".npz"))
    stats = ((path.name, path.stat()) for path in candidates if path.is_file())
    return [[name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats]
