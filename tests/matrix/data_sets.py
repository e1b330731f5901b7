"""Tiny data sets of every kind, planned and pre-processed by nnU-Net's own commands, each when first asked for."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import SimpleITK as sitk
from nnunet_here import World
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from skimage import io

BINARY = {"background": 0, "infection": 1}
CLASSES = {name: value for value, name in enumerate(("background", "a", "b", "c", "d", "e"))}
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}
IGNORE = {"background": 0, "infection": 1, "ignore": 2}
CASES, TEST = ("case_0", "case_1", "case_2", "case_3"), ("test_0", "test_1")
FOLDS = [{"train": [c for c in CASES if c != held], "val": [held]} for held in CASES]
RESIDUAL = "nnUNetPlannerResEncM"
PLANS, RESIDUAL_PLANS = "nnUNetPlans", "nnUNetResEncUNetMPlans"
WIDEST, BATCH = 24, 2
"""Features and images per batch that the plans are cut down to."""


@dataclass(frozen=True)
class Kind:
    """What a data set is like.

    Attributes:
        shape: Of an image, (y, x) or (z, y, x).
        spacing: In mm, as the shape.
        channels: Names as in dataset.json; three named red, green and blue are one picture.
        labels: As in dataset.json.
    """

    number: int
    shape: tuple[int, ...] = (40, 40)
    spacing: tuple[float, ...] = (1.0, 1.0)
    channels: tuple[str, ...] = ("grey_ct",)
    labels: dict[str, Any] = field(default_factory=lambda: BINARY)

    @property
    def name(self) -> str:
        return f"Dataset{self.number}_Tiny"

    @property
    def dims(self) -> int:
        return len(self.shape)

    @property
    def ending(self) -> str:
        return ".png" if self.dims == 2 else ".nii.gz"

    @property
    def values(self) -> list[int]:
        """Label values but background and ignore."""
        found = {int(v) for name, value in self.labels.items() if name != "ignore" for v in np.atleast_1d(value)}
        return sorted(found - {0})

    @property
    def has_regions(self) -> bool:
        return any(isinstance(value, list) for value in self.labels.values())

    @property
    def heads(self) -> int:
        return len(self.labels) - ("ignore" in self.labels) - self.has_regions

    @property
    def configurations(self) -> tuple[str, ...]:
        return ("2d",) if self.dims == 2 else ("2d", "3d_fullres")


KINDS = {
    "slices": Kind(701),
    "not square": Kind(702, shape=(40, 72)),
    "two channels": Kind(703, channels=("grey_ct", "nonorm")),
    "three channels": Kind(704, channels=("red", "green", "blue")),
    "regions": Kind(705, labels=REGIONS),
    "ignore label": Kind(706, labels=IGNORE),
    "five classes": Kind(707, labels=CLASSES),
    "volumes": Kind(708, shape=(32, 32, 32), spacing=(2.0, 1.5, 1.5)),
    "anisotropic": Kind(709, shape=(8, 32, 32), spacing=(5.0, 1.0, 1.0)),
    "regions and ignore in 3D": Kind(710, shape=(32, 32, 32), spacing=(1.0,) * 3, labels={**REGIONS, "ignore": 3}),
}
OTHER = 50
"""Added to a data set's number: images of another disease, for a link."""


class DataSets:
    """The data sets of one world, made on demand."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._made: set[object] = set()

    def planned(self, name: str, *configurations: str, residual: bool = False, linked: bool = False) -> Kind:
        """A data set with plans, pre-processed for these configurations (all that it has by default)."""
        kind = KINDS[name]
        self._once(self._write, kind, CASES)
        self._once(self._plan, kind)
        if residual:
            self._once(self._plan_residual, kind)
        for configuration in configurations:
            if configuration not in kind.configurations:
                self._once(self._add_low_resolution, kind)
            if linked and configuration != "3d_cascade_fullres":
                self._once(self._link, kind, RESIDUAL_PLANS if residual else PLANS, configuration)
        if linked and "3d_cascade_fullres" in configurations:
            self._once(self._link, kind, PLANS, "3d_cascade_fullres")
        return kind

    def images(self, kind: Kind) -> Path:
        """The folder of test images."""
        return self.world.raw / kind.name / "imagesTs"

    def _once(self, make: Any, *arguments: Any) -> None:
        key = (make.__name__, *(a.number if isinstance(a, Kind) else a for a in arguments))
        if key not in self._made:
            make(*arguments)
            self._made.add(key)

    def _write(self, kind: Kind, cases: tuple[str, ...]) -> None:
        folder = self.world.raw / kind.name
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            (folder / part).mkdir(parents=True)
        for case in cases:
            image, label = draw(kind, case)
            write_image(kind, folder / "imagesTr", case, image)
            write(kind, label, folder / "labelsTr" / f"{case}{kind.ending}")
        for case in TEST:
            write_image(kind, folder / "imagesTs", case, draw(kind, case)[0])
        content = {
            "channel_names": {str(i): name for i, name in enumerate(kind.channels)},
            "labels": kind.labels,
            "numTraining": len(cases),
            "file_ending": kind.ending,
            **({"regions_class_order": kind.values} if kind.has_regions else {}),
        }
        (folder / "dataset.json").write_text(json.dumps(content))

    def _plan(self, kind: Kind) -> None:
        with mock.patch.object(DatasetFingerprintExtractor, "__init__", few_intensities):
            self._call("nnUNetv2_plan_and_preprocess", kind, "--no_pp", "--verify_dataset_integrity", "-npfp", 1)
        (self.world.preprocessed / kind.name / "splits_final.json").write_text(json.dumps(FOLDS))
        self._change_plans(kind, PLANS, cut_down)
        self._preprocess(kind, PLANS, kind.configurations)

    def _plan_residual(self, kind: Kind) -> None:
        self._call("nnUNetv2_plan_experiment", kind, "-pl", RESIDUAL)
        self._change_plans(kind, RESIDUAL_PLANS, cut_down)
        self._preprocess(kind, RESIDUAL_PLANS, kind.configurations)

    def _add_low_resolution(self, kind: Kind) -> None:
        """The planner gives it to large images alone; this is how nnU-Net's pages tell to add a configuration."""

        def add(configurations: dict[str, Any]) -> None:
            full = configurations["3d_fullres"]
            configurations["3d_lowres"] = {
                "inherits_from": "3d_fullres",
                "data_identifier": f"{PLANS}_3d_lowres",
                "spacing": [1.5 * s for s in full["spacing"]],
                "patch_size": [24, 24, 24],
                "next_stage": "3d_cascade_fullres",
            }
            configurations["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}

        self._change_plans(kind, PLANS, add)
        self._preprocess(kind, PLANS, ("3d_lowres",))

    def _link(self, kind: Kind, plans: str, configuration: str) -> None:
        other = Kind(kind.number + OTHER, kind.shape, kind.spacing, kind.channels)
        self._once(self._write, other, CASES[:2])
        self.world.call(
            "nnunet-covid", "link", "-d", kind.number, "-a", other.number, "-p", plans, "-c", configuration, "-np", 1
        )

    def _preprocess(self, kind: Kind, plans: str, configurations: tuple[str, ...]) -> None:
        self._call("nnUNetv2_preprocess", kind, "-plans_name", plans, "-c", *configurations, "-np", 1)

    def _call(self, command: str, kind: Kind, *arguments: object) -> None:
        # nnU-Net 2.8.1 cannot plan with nnUNet_n_proc_DA=0
        self.world.call(command, "-d", kind.number, *arguments, nnUNet_n_proc_DA="1")

    def _change_plans(self, kind: Kind, plans: str, change: Any) -> None:
        path = self.world.preprocessed / kind.name / f"{plans}.json"
        content = json.loads(path.read_text())
        change(content["configurations"])
        path.write_text(json.dumps(content))


def cut_down(configurations: dict[str, Any]) -> None:
    """Narrow networks of one block per stage, and small batches."""
    for configuration in configurations.values():
        if "architecture" in configuration:
            configuration["batch_size"] = BATCH
            arguments = configuration["architecture"]["arch_kwargs"]
            arguments["features_per_stage"] = [min(WIDEST, 4 + f // 8) for f in arguments["features_per_stage"]]
            for name in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
                if name in arguments:
                    arguments[name] = [1] * len(arguments[name])


plain_init = DatasetFingerprintExtractor.__init__


def few_intensities(self: Any, *arguments: Any, **named: Any) -> None:
    """nnU-Net draws a hundred million intensities, of tiny images too."""
    plain_init(self, *arguments, **named)
    self.num_foreground_voxels_for_intensitystats = 1e5


def draw(kind: Kind, case: str) -> tuple[np.ndarray, np.ndarray]:
    """An image (channels, *shape) of noise with a bright box for each label value, and the labels."""
    rng = np.random.default_rng([kind.number, int(case[-1]), len(case)])
    label = np.zeros(kind.shape, np.uint8)
    values = kind.values
    for place, value in enumerate(values):
        width = kind.shape[-1] // len(values)
        start = place * width + int(rng.integers(0, 2))
        rows = [slice(n // 4, n // 4 + max(2, n // 3)) for n in kind.shape[:-1]]
        label[(*rows, slice(start + 1, start + max(3, width - 2)))] = value
    channels = [np.clip(40 + 200 // (1 + len(values)) * label + rng.normal(0, 8, kind.shape), 1, 255)] * len(
        kind.channels
    )
    if kind.channels[-1] == "nonorm":
        channels[-1] = np.ones(kind.shape)
    if "ignore" in kind.labels:
        label[:2] = kind.labels["ignore"]
    return np.stack(channels).astype(np.uint8), label


def write_image(kind: Kind, folder: Path, case: str, image: np.ndarray) -> None:
    """One file per channel, or one picture with three."""
    if kind.channels[-1] == "blue":
        io.imsave(folder / f"{case}_0000.png", np.moveaxis(image, 0, -1), check_contrast=False)
        return
    for channel, values in enumerate(image):
        write(kind, values, folder / f"{case}_{channel:04d}{kind.ending}")


def write(kind: Kind, array: np.ndarray, path: Path) -> None:
    if kind.dims == 2:
        io.imsave(path, array, check_contrast=False)
        return
    made = sitk.GetImageFromArray(array)
    made.SetSpacing(kind.spacing[::-1])
    sitk.WriteImage(made, str(path))
