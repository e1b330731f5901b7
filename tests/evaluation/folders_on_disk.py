"""A small data set on disk: predictions, references and dataset.json."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from PIL import Image


class Folders:
    """A folder of predictions, one of references and a dataset.json above them, filled case by case."""

    def __init__(self, root: Path, labels: dict, ending: str):
        self.root, self.ending = root, ending
        self.predictions, self.references = root / "predictions", root / "references"
        self.predictions.mkdir(parents=True)
        self.references.mkdir()
        self.describe(labels)

    def describe(self, labels: dict, **more: object) -> None:
        """Write dataset.json."""
        (self.root / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": self.ending, **more}))

    def add(self, case: str, prediction, reference, spacing=(5.0, 0.8, 0.7)) -> None:
        """Write both label maps of a case."""
        write_labels(self.predictions / f"{case}{self.ending}", prediction, spacing)
        write_labels(self.references / f"{case}{self.ending}", reference, spacing)


def write_labels(path: Path, labels, spacing=(5.0, 0.8, 0.7), origin=None, direction=None) -> None:
    """Write a label map in the format that its name asks for; spacing in the order of the array, the rest in ITK's."""
    array = np.asarray(labels, dtype=np.uint8)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    if origin is not None:
        image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(direction)
    sitk.WriteImage(image, str(path))
