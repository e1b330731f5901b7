"""From one pre-processed image to its pseudo label and the record of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from numpy.typing import NDArray

from nnunet_covid.nnunet.rounds.classes import Classes
from nnunet_covid.nnunet.rounds.dataset import open_blosc2
from nnunet_covid.nnunet.rounds.label_files import OUTSIDE, write_in_image_geometry, write_label, write_record
from nnunet_covid.nnunet.rounds.prediction import CasePredictor
from nnunet_covid.nnunet.rounds.setting import Setting
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.soft_labels import to_bytes


class Labeller:
    """Turns predictions into pseudo labels.

    Args:
        setting: Plans and file ending.
        options: Thresholds and what becomes of untrusted voxels.
        classes: Of the data set, with the ignore label if untrusted voxels get it.
    """

    def __init__(self, setting: Setting, options: RoundOptions, classes: Classes) -> None:
        self.setting = setting
        self.options = options
        self.classes = classes
        self._thresholds = classes.thresholds(options.threshold, options.class_thresholds)
        self._untrusted = classes.manager.ignore_label if options.untrusted == "ignore" else None

    def image(self, case: Path) -> NDArray[np.float32]:
        """A pre-processed image (C, *spatial)."""
        return open_blosc2(case.with_name(case.name + ".b2nd"))[:]

    def label(
        self, head: dict[str, Any], case: Path, target: Path, shown: Path, predictor: CasePredictor
    ) -> tuple[dict[str, Any], float]:
        """Predict and write one case; its record is written last.

        Args:
            head: Image, round and model, for the record.
            case: The pre-processed image, without ending.
            target: The pseudo label, without ending.
            shown: Folder for the label in the image's geometry.

        Returns:
            The record and the seconds of forward passes.
        """
        prediction = predictor.predict(self.image(case))
        label, predicted = self.classes.trusted(
            prediction.probabilities, self._thresholds, self._untrusted, prediction.certainty
        )
        outside = open_blosc2(case.with_name(case.name + "_seg.b2nd"))[0] == OUTSIDE
        stored = np.where(outside & (label == 0), np.int16(OUTSIDE), label)[None]
        regions = self.classes.manager.has_regions
        soft = to_bytes(prediction.probabilities, regions=regions) if self.options.soft else None
        write_label(target, stored, self.setting, self.classes.manager, soft)
        if self.options.export:
            properties = load_pickle(str(case.with_name(case.name + ".pkl")))
            path = shown / f"{target.name}{self.setting.dataset_json['file_ending']}"
            write_in_image_geometry(path, stored, properties, self.setting)
        record = {
            **head,
            "confidence": prediction.confidence,
            "predicted": self.classes.voxels(predicted),
            "kept": self.classes.voxels(label),
            "counts": self.classes.counts(label),
        }
        write_record(target, record)
        return record, prediction.seconds
