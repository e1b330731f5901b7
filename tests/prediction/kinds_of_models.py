"""Every kind of plan that changes how an image is predicted: tiny models, and images for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import planned
from image_files import write_picture, write_volume
from model_folders import complete_plans, write_model

REGIONS = {"background": 0, "lung": [1, 2], "infection": 2}


@dataclass(frozen=True)
class KindOfModel:
    """Plans and data set of a model, and sizes (z, y, x) and spacings (x, y, z) of images for it.

    Attributes:
        transpose: The plan's order of axes.
        settings: Further settings of :func:`planned.plans`.
        dataset: Entries of dataset.json.
        resampling: Further settings of the resampling of logits.
    """

    dims: int
    images: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]
    spacing: tuple[float, ...]
    ending: str = ".nii.gz"
    channels: int = 1
    labels: dict[str, Any] | None = None
    folds: tuple[int, ...] = (0,)
    transpose: tuple[int, int, int] = (0, 1, 2)
    previous_stage: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    dataset: dict[str, Any] = field(default_factory=dict)
    resampling: dict[str, Any] = field(default_factory=dict)


SLICE = (1.0, 1.0)
KINDS: dict[str, KindOfModel] = {
    "slices": KindOfModel(2, (((40, 56), SLICE), ((24, 20), SLICE), ((40, 56), SLICE)), (1.0, 1.0), ".png"),
    "resampled slices": KindOfModel(2, (((60, 70), SLICE), ((81, 50), SLICE)), (1.7, 1.9), ".png"),
    "slices of thick volumes": KindOfModel(2, (((5, 40, 44), (0.8, 0.7, 5.0)), ((3, 40, 40), (1, 1, 5.0))), (1.0, 1.0)),
    "slices of thin volumes": KindOfModel(2, (((6, 40, 44), (0.8, 0.7, 1.0)),), (1.0, 1.0)),
    "slices in another direction": KindOfModel(2, (((40, 36, 5), (0.8, 0.7, 1.0)),), (1.0, 1.1), transpose=(2, 0, 1)),
    "volumes": KindOfModel(3, (((20, 24, 22), (1, 1, 1)), ((9, 17, 30), (1, 1, 1))), (1.0, 1.0, 1.0)),
    "resampled volumes": KindOfModel(3, (((12, 30, 26), (0.8, 0.7, 1.6)),), (1.0, 1.0, 1.0)),
    "thick slices in 3D": KindOfModel(3, (((6, 30, 26), (0.8, 0.7, 6.0)), ((8, 30, 26), (1, 1, 5.0))), (5.0, 1.0, 1.0)),
    "sheared axes": KindOfModel(3, (((12, 20, 26), (1.4, 1.2, 1.0)),), (1.0, 1.0, 1.0), transpose=(1, 2, 0)),
    "cascade": KindOfModel(3, (((14, 20, 18), (1.2, 1.2, 1.2)),), (1.0, 1.0, 1.0), previous_stage=True),
    "regions": KindOfModel(
        3, (((12, 22, 20), (0.8, 0.8, 1.5)),), (1.0,) * 3, labels=REGIONS, dataset={"regions_class_order": [1, 2]}
    ),
    "regions on the same grid": KindOfModel(
        2, (((40, 50), SLICE),), (1.0, 1.0), ".png", labels=REGIONS, dataset={"regions_class_order": [1, 2]}
    ),
    "ignore label": KindOfModel(
        2, (((40, 50), SLICE),), (1.3, 1.3), ".png", labels={"background": 0, "a": 1, "b": 2, "ignore": 3}
    ),
    "folds": KindOfModel(2, (((40, 50), SLICE), ((40, 50), SLICE)), (1.2, 1.2), ".png", folds=(0, 1, 3)),
    "channels": KindOfModel(2, (((40, 50), SLICE),), (1.2, 1.2), ".png", channels=3),
    "another resampling": KindOfModel(
        3,
        (((12, 22, 20), (0.8, 0.8, 1.5)),),
        (1.0,) * 3,
        resampling={
            "resampling_fn_probabilities": "resample_torch_fornnunet",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "force_separate_z": None},
        },
    ),
}


def write_kind(kind: KindOfModel, folder: Path) -> tuple[Path, Path, Path | None]:
    """A model folder, a folder of images, and label maps of a previous stage where the model wants them."""
    channels = {str(c): f"channel{c}" for c in range(kind.channels)}
    dataset = planned.dataset_json(kind.labels, file_ending=kind.ending, **kind.dataset)
    dataset["channel_names"] = channels
    patch = [32, 32] if kind.dims == 2 else [16, 16, 16]
    shape = {"dims": kind.dims, "stages": 3, "features": 4, "patch": patch, **kind.settings}
    plans = complete_plans(dataset, spacing=kind.spacing, **shape)
    (configuration,) = plans["configurations"].values()
    configuration.update(kind.resampling)
    plans["transpose_forward"] = list(kind.transpose)
    plans["transpose_backward"] = [kind.transpose.index(axis) for axis in range(3)]
    plans["image_reader_writer"] = "NaturalImage2DIO" if kind.ending == ".png" else "SimpleITKIO"
    if kind.previous_stage:
        configuration["previous_stage"] = "3d_lowres"
    model = write_model(folder / "nnUNetTrainer__testPlans__made", plans, dataset, folds=kind.folds)
    previous = folder / "previous" if kind.previous_stage else None
    rng = np.random.default_rng(7)
    for index, (size, spacing) in enumerate(kind.images):
        for channel in range(kind.channels):
            # smooth, so that neighbouring voxels get other labels only where the network says so
            image = np.kron(rng.normal(100, 60, [-(-n // 4) for n in size]), np.ones((4,) * len(size)))
            image = image[tuple(slice(n) for n in size)] + rng.normal(0, 10, size)
            image[..., :3] = 0  # so that there is something to crop
            write_image(folder / f"images/case_{index}_{channel:04d}{kind.ending}", image, spacing)
        if previous is not None:
            write_image(previous / f"case_{index}{kind.ending}", (image > 100).astype(float), spacing)
    return model, folder / "images", previous


def write_image(path: Path, image: np.ndarray, spacing: tuple[float, ...]) -> None:
    """A picture, or a volume of whole numbers."""
    if image.ndim == 2:
        write_picture(path, np.clip(image, 0, 255).astype(np.uint8))
    else:
        write_volume(path, np.clip(image, 0, 255).astype(np.int16), spacing=spacing)
