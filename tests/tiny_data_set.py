"""A planned and pre-processed data set of a few tiny images, and a folder of unlabelled ones, in a second."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import planned
import SimpleITK as sitk
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from skimage import io

DATASET = "Dataset940_Tiny"
RESAMPLING = {
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
}
ORDERS = {"resampling_fn_data": (3, False), "resampling_fn_seg": (1, True), "resampling_fn_probabilities": (1, False)}


@dataclass(frozen=True)
class TinyDataSet:
    """nnU-Net's three folders with one data set in them."""

    root: Path
    dims: int
    ending: str

    @property
    def unlabelled(self) -> Path:
        return self.root / "unlabelled"

    @property
    def raw(self) -> Path:
        return self.root / "nnUNet_raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "nnUNet_preprocessed" / DATASET

    @property
    def configuration(self) -> str:
        return "2d" if self.dims == 2 else "3d_fullres"

    def model(self, trainer: str) -> Path:
        return self.root / "nnUNet_results" / DATASET / f"{trainer}__testPlans__{self.configuration}"

    def environment(self) -> dict[str, str]:
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        return {name: str(self.root / name) for name in names}


def make_tiny_data_set(
    root: Path,
    *,
    dims: int = 2,
    labels: dict[str, Any] | None = None,
    unlabelled: int = 5,
    size: int = 40,
    spacing: float = 1.0,
    masked: bool = False,
    **dataset: Any,
) -> TinyDataSet:
    """Four training and two validation cases with bright discs on noise, and unlabelled ones of the same kind.

    Args:
        labels: As in dataset.json; the discs have values 1, 2 and so on.
        spacing: Planned spacing; other than 1 the images are resampled.
        masked: Whether images have a second channel, a mask of 0 and 1 that nnU-Net does not normalise.
        dataset: Further entries of dataset.json.
    """
    ending = ".png" if dims == 2 else ".nii.gz"
    made = TinyDataSet(root, dims, ending)
    for folder in ("imagesTr", "labelsTr", "imagesTs"):
        (made.raw / folder).mkdir(parents=True)
    made.unlabelled.mkdir()
    (root / "nnUNet_results").mkdir()
    values = sorted({int(v) for value in (labels or {"b": 0, "i": 1}).values() for v in np.atleast_1d(value)} - {0})
    for i in range(6):
        image, label = draw(i, dims, size, values)
        write(image, made.raw / "imagesTr" / f"case_{i}_0000{ending}")
        write(label, made.raw / "labelsTr" / f"case_{i}{ending}")
    write(draw(90, dims, size, values)[0], made.raw / "imagesTs" / f"test_0_0000{ending}")
    for i in range(unlabelled):
        write(draw(100 + i, dims, size, values)[0], made.unlabelled / f"un_{i}_0000{ending}")
    if masked:
        dataset["channel_names"] = {"0": "grey_ct", "1": "nonorm"}
        for path in [*made.raw.glob("images*/*"), *made.unlabelled.iterdir()]:
            write(draw(1, dims, size, [1])[1], path.with_name(path.name.replace("_0000", "_0001")))
    plan(made, planned.dataset_json(labels, file_ending=ending, **dataset), spacing)
    return made


def draw(seed: int, dims: int, size: int, values: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """An image of noise with a disc for each label value, and the labels."""
    rng = np.random.default_rng(seed)
    shape = (size,) * dims
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    label = np.zeros(shape, np.uint8)
    for value in values:
        centre = rng.uniform(size * 0.25, size * 0.75, (dims, *(1,) * dims))
        label[((grid - centre) ** 2).sum(0) < (size / 6) ** 2] = value
    image = 60 + 50 * label + rng.normal(0, 12, shape)
    return np.clip(image, 1, 255).astype(np.uint8), label


def write(array: np.ndarray, path: Path) -> None:
    if array.ndim == 2:
        io.imsave(path, array, check_contrast=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))


def plan(made: TinyDataSet, dataset_json: dict[str, Any], spacing: float) -> None:
    """Write plans and pre-process the labelled cases."""
    patch = [32, 32] if made.dims == 2 else [16, 16, 16]
    plans = planned.plans(dims=made.dims, stages=4, features=4, patch=patch)
    plans["dataset_name"] = DATASET
    plans["foreground_intensity_properties_per_channel"] = {number: {} for number in dataset_json["channel_names"]}
    configuration = plans["configurations"][made.configuration]
    configuration["spacing"] = [spacing] * made.dims
    channels = len(dataset_json["channel_names"])
    if channels > 1:
        configuration["normalization_schemes"].append("NoNormalization")
        configuration["use_mask_for_norm"].append(False)
    for name, function in RESAMPLING.items():
        order, is_seg = ORDERS[name]
        configuration[name] = function
        configuration[name + "_kwargs"] = {"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": None}
    made.preprocessed.mkdir(parents=True)
    (made.preprocessed / "testPlans.json").write_text(json.dumps(plans))
    (made.preprocessed / "dataset.json").write_text(json.dumps(dataset_json))
    (made.raw / "dataset.json").write_text(json.dumps(dataset_json))
    (made.preprocessed / "dataset_fingerprint.json").write_text("{}")
    names = [f"case_{i}" for i in range(6)]
    (made.preprocessed / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    references = made.preprocessed / "gt_segmentations"
    references.mkdir()
    manager = PlansManager(plans)
    target = made.preprocessed / configuration["data_identifier"]
    target.mkdir()
    for name in names:
        label = made.raw / "labelsTr" / f"{name}{made.ending}"
        (references / label.name).write_bytes(label.read_bytes())
        DefaultPreprocessor(verbose=False).run_case_save(
            str(target / name),
            [str(made.raw / "imagesTr" / f"{name}_{channel:04d}{made.ending}") for channel in range(channels)],
            str(label),
            manager,
            manager.get_configuration(made.configuration),
            dataset_json,
        )
