"""A model folder with random weights and the validation that nnUNetv2_train --npz leaves in it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import planned
from image_files import grey, write_picture
from model_folders import complete_plans, write_model
from numpy.typing import NDArray

from nnunet_covid.calibration.fit import Calibration, log_odds
from nnunet_covid.calibration.model_folder import KEY
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.evaluation.labels import scheme_of_labels
from nnunet_covid.nnunet.predictor import TrainedModel

TWO_CLASSES = {"background": 0, "ground_glass": 1, "consolidation": 2}
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}
QUANTILES = (0.7, 0.9)
"""Share of an image below the log-odds at which the references begin, per class: far from those at 0."""


@dataclass(frozen=True)
class ValidatedModel:
    """A folder with nnU-Net's folders in it, and the images, for predicting them again."""

    root: Path
    name: str
    cases: dict[int, list[str]]

    @property
    def folder(self) -> Path:
        return self.root / "results" / self.name

    @property
    def references(self) -> Path:
        return self.root / "preprocessed/Dataset999_Test/gt_segmentations"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def copy(self, root: Path) -> ValidatedModel:
        shutil.copytree(self.root, root, dirs_exist_ok=True)
        return replace(self, root=root)

    def checkpoints(self) -> list[Path]:
        return [self.folder / f"fold_{fold}" / "checkpoint_final.pth" for fold in self.cases]

    def predict(self, case: str, folds: Sequence[int], mirroring: bool = True) -> tuple[NDArray, NDArray]:
        """Label map and probabilities by nnU-Net's predictor."""
        model = TrainedModel(self.folder, folds=[str(fold) for fold in folds], device="cpu", mirroring=mirroring)
        (found,) = [each for each in model.cases(self.images) if each.name == case]
        prepared = model.prepare(found)
        return model.label_map(prepared, model.predict_logits(prepared))

    def saved(self, case: str) -> NDArray[np.float32]:
        (path,) = self.folder.glob(f"fold_*/validation/{case}.npz")
        with np.load(path) as archive:
            return archive["probabilities"]


def write_validated_model(
    root: Path,
    *,
    trainer: str = "nnUNetTrainer",
    labels: dict[str, Any] | None = None,
    folds: Sequence[int] = (0, 1),
    cases_per_fold: int = 3,
    size: tuple[int, int] = (40, 44),
) -> ValidatedModel:
    """Predict random images with random networks; references begin at other log-odds than 0, with noise."""
    extra = {"regions_class_order": [1, 2]} if labels == REGIONS else {}
    dataset_json = planned.dataset_json(labels, **extra)
    plans = complete_plans(dataset_json, stages=5, patch=[32, 32])
    folder = root / "results" / f"{trainer}__testPlans__2d"
    write_model(folder, plans, dataset_json, trainer=trainer, folds=folds)
    cases = {fold: [f"case_{fold}{i}" for i in range(cases_per_fold)] for fold in folds}
    made = ValidatedModel(root, folder.name, cases)
    for fold, names in cases.items():
        (folder / f"fold_{fold}" / "validation").mkdir()
        for i, case in enumerate(names):
            write_picture(root / f"images/{case}_0000.png", grey(size, 10 * fold + i))
            label_map, probabilities = made.predict(case, [fold])
            target = folder / f"fold_{fold}" / "validation" / case
            np.savez_compressed(target.with_suffix(".npz"), probabilities=probabilities)
            write_picture(target.with_suffix(".png"), label_map[0].astype(np.uint8))
            reference = draw_reference(probabilities, dataset_json["labels"], seed=10 * fold + i)
            write_picture(made.references / f"{case}.png", reference[0])
    return made


def draw_reference(probabilities: NDArray, labels: dict[str, Any], seed: int) -> NDArray[np.uint8]:
    """Labels where noisy log-odds exceed their quantile; a corner is ignored where there is such a label."""
    scheme = scheme_of_labels(labels)
    odds = log_odds(probabilities, softmax=not scheme.has_regions)
    noise = np.random.default_rng(seed).normal(0, 0.3, odds.shape)
    label_map = np.zeros(odds.shape[1:], np.uint8)
    for k, each in enumerate(odds):
        noisy = each + noise[k] * each.std()
        label_map[noisy > np.quantile(noisy, QUANTILES[k])] = k + 1
    if scheme.ignore is not None:
        label_map[:, :5, :5] = scheme.ignore
    return label_map


def read_calibration(path: Path) -> Calibration | None:
    """What a checkpoint holds."""
    weights = read_checkpoint(path)["network_weights"]
    found = getattr(weights, "_metadata", {}).get("", {}).get(KEY)
    return None if found is None else Calibration.from_json(found)
