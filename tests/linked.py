"""Tiny data sets to link: raw pictures or volumes, and a COVID data set that is planned but never trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import planned
import SimpleITK as sitk
from skimage import io

from nnunet_covid.cli import main

COVID = "Dataset601_Covid"
EFFUSION = "Dataset602_Effusion"


def write_pictures(
    raw: Path,
    name: str,
    cases: int = 3,
    *,
    labels: dict[str, Any] | None = None,
    values: Sequence[int] = (1,),
    channels: int = 1,
    size: int = 24,
) -> Path:
    """Pictures with one square per label value; without values there is no lesion."""
    folder = raw / name
    rng = np.random.default_rng(len(name))
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        image = rng.integers(20, 200, (size, size)).astype(np.uint8)
        label = np.zeros((size, size), np.uint8)
        for position, value in enumerate(values):
            label[2 + 6 * position : 7 + 6 * position, 3:9] = value
        for channel in range(channels):
            io.imsave(folder / "imagesTr" / f"case{case}_{channel:04d}.png", image, check_contrast=False)
        io.imsave(folder / "labelsTr" / f"case{case}.png", label, check_contrast=False)
    content = {
        **planned.dataset_json(labels or {"background": 0, "effusion": 1}),
        "channel_names": {str(c): "grey_ct" for c in range(channels)},
        "numTraining": cases,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def write_volumes(raw: Path, name: str, cases: int = 2, size: tuple[int, int, int] = (8, 20, 20)) -> Path:
    """Volumes with a box as lesion."""
    folder = raw / name
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case in range(cases):
        image = rng.normal(-600, 200, size).astype(np.float32)
        label = np.zeros(size, np.uint8)
        label[2:5, 4:9, 4:9] = 1
        for array, path in ((image, f"imagesTr/case{case}_0000.nii.gz"), (label, f"labelsTr/case{case}.nii.gz")):
            sitk.WriteImage(sitk.GetImageFromArray(array), str(folder / path))
    content = {**planned.dataset_json({"background": 0, "effusion": 1}), "file_ending": ".nii.gz", "numTraining": cases}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def covid_plans(*, dims: int = 2, slices: bool = True, **changes: Any) -> dict[str, Any]:
    """Plans as nnU-Net writes them for a data set of slices or volumes."""
    plans = planned.plans(dims=dims, stages=3, patch=[16] * dims)
    resampling = {f"resampling_fn_{part}": "resample_data_or_seg_to_shape" for part in ("data", "seg", "probabilities")}
    kwargs = {"order_z": 0, "force_separate_z": None}
    for configuration in plans["configurations"].values():
        configuration.update(resampling)
        configuration["resampling_fn_data_kwargs"] = {"is_seg": False, "order": 3, **kwargs}
        configuration["resampling_fn_seg_kwargs"] = {"is_seg": True, "order": 1, **kwargs}
        configuration["resampling_fn_probabilities_kwargs"] = {"is_seg": False, "order": 1, **kwargs}
        configuration["data_identifier"] = f"nnUNetPlans_{dims}d"
        configuration.update(changes)
    properties = dict.fromkeys(("mean", "median", "std", "percentile_00_5", "percentile_99_5", "min", "max"), 1.0)
    return {
        **plans,
        "dataset_name": COVID,
        "plans_name": "nnUNetPlans",
        "original_median_shape_after_transp": [1 if slices else 8, 24, 24],
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "foreground_intensity_properties_per_channel": {"0": properties},
    }


def write_covid(preprocessed: Path, plans: dict[str, Any], dataset_json: dict[str, Any] | None = None) -> Path:
    """A planned COVID data set with (empty) folders for its pre-processed data."""
    folder = preprocessed / COVID
    folder.mkdir(exist_ok=True)
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset_json or planned.dataset_json()))
    for configuration in plans["configurations"].values():
        if "data_identifier" in configuration:
            (folder / configuration["data_identifier"]).mkdir(exist_ok=True)
    return folder


def link(*arguments: str, status: int = 0) -> None:
    """The command, on the COVID data set."""
    assert main(["link", "-d", "601", "-np", "1", *arguments]) == status
