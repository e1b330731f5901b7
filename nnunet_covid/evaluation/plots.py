"""Plots of an evaluation: what the pictures of ``nnunet_covid.figures`` show, and the images behind the worst cases."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.endings import PICTURE_ENDINGS, SINGLE_FILE_ENDINGS, ending_of
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.evaluation.folders import Evaluation, read_pair
from nnunet_covid.evaluation.labels import EvaluatedClass
from nnunet_covid.evaluation.metrics import METRICS, Group, heading
from nnunet_covid.evaluation.scores import CaseScore
from nnunet_covid.figures.scores import Distribution, draw_agreement, draw_distributions
from nnunet_covid.figures.sheets import Errors, write_errors
from nnunet_covid.figures.slices import CONTRAST
from nnunet_covid.files import names_apart
from nnunet_covid.geometry import turned_by
from nnunet_covid.whole_files import is_whole

DISTRIBUTIONS: dict[Group, tuple[str, str]] = {
    "label": ("distribution_label_maps.png", "Label maps"),
    "map": ("distribution_probability_maps.png", "Probability maps"),
    "toolbox": ("distribution_toolbox.png", "Inf-Net toolbox protocol (means over 256 thresholds)"),
}
AGREEMENT = "bland_altman.png"
SHOWN = 6  # of the worst cases
ENDINGS = (*PICTURE_ENDINGS, *SINGLE_FILE_ENDINGS)


def write_plots(evaluation: Evaluation, folder: Path, images: Path | None = None) -> list[Path]:
    """Draw distributions, agreement of sizes and, on the images if there are any, the worst cases of every class.

    Returns:
        The files.
    """
    written = []
    for group, (name, title) in DISTRIBUTIONS.items():
        metrics = _distributions(evaluation, group)
        if metrics:
            cases = f"{title}, {len(evaluation.input.cases)} cases"
            written.append(draw_distributions(folder / name, metrics, cases))
    written.append(_draw_agreement(evaluation, folder / AGREEMENT))
    classes = evaluation.input.scheme.classes
    files = names_apart((cls.name for cls in classes), lambda name: re.sub(r"[^\w-]+", "_", name))
    for cls in classes:
        chosen = worst([s for s in evaluation.scores if s.class_name == cls.name])
        errors = [_errors(evaluation, cls, score, images) for score in chosen]
        title = f"{cls.name}: {'lowest Dice' if errors else 'no case has a Dice'}"
        written.append(write_errors(folder / f"worst_cases_{files[cls.name]}.png", errors, title))
    return written


def worst(scores: Sequence[CaseScore]) -> list[CaseScore]:
    """The scores with the lowest Dice, among equals the most wrong voxels first; those without a value are left out."""
    valued = [s for s in scores if not math.isnan(s.values["dice"])]
    return sorted(valued, key=lambda s: (s.values["dice"], -(s.counts.fp + s.counts.fn)))[:SHOWN]


def most_wrong_slice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> int:
    """Index along the first axis of the slice with the most wrong voxels; 0 for 2D masks."""
    if prediction.ndim == 2:
        return 0
    return int(np.count_nonzero(prediction ^ reference, axis=(1, 2)).argmax())


def find_image(folder: Path, case: str) -> Path | None:
    """The image of a case: ``CASE_0000`` as nnU-Net calls its first channel, or ``CASE``."""
    candidates = (folder / f"{stem}{ending}" for stem in (f"{case}_0000", case) for ending in ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def read_grey_slice(path: Path, position: int, shape: tuple[int, ...], order: str | None = None) -> NDArray[np.float64]:
    """A slice of an image, stretched to [0, 1].

    Args:
        path: the image.
        position: index of the slice, for volumes.
        shape: of the case's label map, which the image must have.
        order: storage order to which the label map was brought when it was read, if it was.

    Raises:
        UserError: if the image cannot be read, is cut short or damaged, or has another shape.
    """
    try:
        if ending_of(path, PICTURE_ENDINGS):
            with Image.open(path) as picture:
                array = np.asarray(picture.convert("F") if picture.mode.startswith("I") else picture.convert("L"))
        else:
            image = sitk.ReadImage(str(path))
            if not is_whole(path, sitk.GetArrayViewFromImage(image)):
                raise UserError(f"{path}: is cut short or damaged; copy it again")
            turns = order and image.GetDimension() == 3
            array = sitk.GetArrayFromImage(sitk.DICOMOrient(image, order) if turns else image)
    except (OSError, RuntimeError) as e:
        raise UserError(f"{path}: cannot be read ({reason_of(e)})") from e
    if array.shape != shape:
        raise UserError(f"{path}: shape {array.shape} differs from the label map's {shape}")
    grey = (array[position] if array.ndim == 3 else array).astype(np.float64)
    low, high = np.percentile(grey, CONTRAST)
    return np.clip((grey - low) / max(high - low, 1e-9), 0, 1)


def _values(evaluation: Evaluation, name: str, key: str) -> np.ndarray:
    return np.array([s.values[key] for s in evaluation.scores if s.class_name == name])


def _distributions(evaluation: Evaluation, group: Group) -> list[Distribution]:
    names = [c.name for c in evaluation.input.scheme.classes]
    return [
        Distribution(
            heading(metric, evaluation.units),
            {name: _values(evaluation, name, metric.key) for name in names},
            metric.digits,
            is_share=metric.best > 0,
        )
        for metric in METRICS
        if metric.group == group and metric.best and metric.key in evaluation.scores[0].values
    ]


def _draw_agreement(evaluation: Evaluation, path: Path) -> Path:
    sizes = {
        c.name: (_values(evaluation, c.name, "predicted_volume"), _values(evaluation, c.name, "reference_volume"))
        for c in evaluation.input.scheme.classes
    }
    unit = evaluation.units.size.replace("2", "²")
    return draw_agreement(path, sizes, "volume" if unit == "ml" else "area", unit)


def _errors(evaluation: Evaluation, cls: EvaluatedClass, score: CaseScore, images: Path | None) -> Errors:
    source = evaluation.input
    predicted, expected, geometry = read_pair(source, score.case)
    prediction, reference = cls.mask(predicted), cls.mask(expected)
    if source.scheme.ignore is not None:
        counted = expected != source.scheme.ignore
        prediction, reference = prediction & counted, reference & counted
    position = most_wrong_slice(prediction, reference)
    path = None if images is None else find_image(images, score.case)
    order = turned_by(source.format.reader)
    grey = None if path is None else read_grey_slice(path, position, expected.shape, order)
    where = ""
    if prediction.ndim == 3:
        prediction, reference = prediction[position], reference[position]
        where = f", slice {position}"
    column, row = (1.0, 1.0) if geometry is None else geometry.spacing[:2]
    title = f"{score.case}{where}\nDice {score.values['dice']:.3f}"
    return Errors(prediction, reference, grey, row / column, title)
