"""Pseudo labels on disk: as the label of a pre-processed case, and in the geometry of the image it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from batchgenerators.utilities.file_and_folder_operations import write_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from numpy.typing import NDArray

from nnunet_covid.files import write_text
from nnunet_covid.nnunet.rounds.setting import Setting

OUTSIDE = -1
"""nnU-Net's value for background outside the body."""


def write_label(
    target: Path,
    label: NDArray[np.int16],
    setting: Setting,
    labels: LabelManager,
    soft: NDArray[np.uint8] | None = None,
) -> None:
    """Write the label of a pre-processed case and the locations of its classes, each file under its name at the end.

    Args:
        target: Without ending.
        label: (1, *spatial).
        soft: Probabilities from which labels will be drawn.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    patch = tuple(setting.configuration_manager.patch_size)
    wanted = list(labels.foreground_regions if labels.has_regions else labels.foreground_labels)
    if labels.has_ignore_label:
        wanted.append([-1, *labels.all_labels])
    sample = setting.configuration_manager.preprocessor_class._sample_foreground_locations
    properties = {"class_locations": sample(label, wanted)}
    _write_array(target.with_name(target.name + "_seg.b2nd"), label, patch)
    if soft is not None:
        _write_array(target.with_name(target.name + "_soft.b2nd"), soft, patch)
    path = target.with_name(target.name + ".pkl")
    temporary = path.with_name(path.name + ".tmp")
    write_pickle(properties, str(temporary))
    temporary.replace(path)


def _write_array(path: Path, array: NDArray[Any], patch: tuple[int, ...]) -> None:
    temporary = path.with_name("tmp_" + path.name)
    temporary.unlink(missing_ok=True)
    blocks, chunks = comp_blosc2_params(array.shape, patch, array.itemsize)
    settings = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1}
    blosc2.asarray(np.ascontiguousarray(array), urlpath=str(temporary), chunks=chunks, blocks=blocks, cparams=settings)
    temporary.replace(path)


def write_in_image_geometry(path: Path, label: NDArray[np.int16], properties: dict[str, Any], setting: Setting) -> None:
    """Write a label with nnU-Net's writer, in the geometry that the image had before pre-processing.

    What is resampled is the label itself, so that the file shows what is trained on.

    Args:
        path: With the data set's file ending.
        label: (1, *spatial), pre-processed.
        properties: Of the pre-processed image.
    """
    plans, configuration = setting.plans_manager, setting.configuration_manager
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    shape = properties["shape_after_cropping_and_before_resampling"]
    current = list(configuration.spacing)
    if len(current) < len(shape):
        current = [spacing[0], *current]
    inside = np.where(label == OUTSIDE, 0, label).astype(np.int16)
    if tuple(inside.shape[1:]) != tuple(shape):
        inside = np.asarray(configuration.resampling_fn_seg(inside, shape, current, spacing))
    whole = np.zeros(properties["shape_before_cropping"], np.uint8 if inside.max() < 256 else np.uint16)
    whole = insert_crop_into_image(whole, inside[0].astype(whole.dtype), properties["bbox_used_for_cropping"])
    whole = whole.transpose(plans.transpose_backward)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name("tmp_" + path.name)
    plans.image_reader_writer_class().write_seg(whole, str(temporary), properties)
    temporary.replace(path)


def write_record(target: Path, record: dict[str, Any]) -> None:
    """The last file of a pseudo-labelled case: from now on it is done."""
    write_text(target.with_name(target.name + ".json"), json.dumps(record) + "\n")


def read_record(target: Path, model: str) -> dict[str, Any] | None:
    """The record of a case that is done with this model; ``None`` if it is not."""
    path = target.with_name(target.name + ".json")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("model") == model else None
