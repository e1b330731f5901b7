"""The cases with the lowest Dice: what was found, missed and wrongly marked, over the image if there is one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray

from nnunet_covid.evaluation.case import CaseScore
from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.label_files import read_labels
from nnunet_covid.evaluation.labels import EvaluatedClass
from nnunet_covid.evaluation.plots.images import find_image, read_grey_slice
from nnunet_covid.evaluation.plots.style import new_figure, save, styled

SHOWN = 6
COLUMNS = 3
PANEL_WIDTH = 2.7  # inches
FOUND, MISSED, FALSE_ALARM = "#009E73", "#E69F00", "#CC79A7"
BACKGROUND = 0.12  # grey behind the overlay where no image is given
OPACITY = 0.6


def write_worst_cases(evaluation: Evaluation, folder: Path, images: Path | None = None) -> list[Path]:
    """One picture per class with its worst cases; volumes show the slice with the most wrong voxels."""
    return [_write_class(evaluation, cls, folder, images) for cls in evaluation.input.scheme.classes]


def worst(scores: list[CaseScore], number: int = SHOWN) -> list[CaseScore]:
    """The scores with the lowest Dice, among equals the most wrong voxels first; those without a value are left out."""
    valued = [s for s in scores if not math.isnan(s.values["dice"])]
    return sorted(valued, key=lambda s: (s.values["dice"], -(s.counts.fp + s.counts.fn)))[:number]


def most_wrong_slice(prediction: NDArray[np.bool_], reference: NDArray[np.bool_]) -> int:
    """Index along the first axis of the slice with the most wrong voxels; 0 for 2D masks."""
    if prediction.ndim == 2:
        return 0
    return int(np.count_nonzero(prediction ^ reference, axis=(1, 2)).argmax())


@dataclass(frozen=True)
class _Panel:
    """A picture of shape (rows, columns, 3), the ratio of its row to its column spacing, and its title."""

    picture: NDArray[np.float64]
    aspect: float
    title: str

    @property
    def height(self) -> float:
        """Height of the picture as a multiple of its width."""
        return self.picture.shape[0] * self.aspect / self.picture.shape[1]


def _write_class(evaluation: Evaluation, cls: EvaluatedClass, folder: Path, images: Path | None) -> Path:
    chosen = worst([s for s in evaluation.scores if s.class_name == cls.name])
    panels = [_panel(evaluation, cls, score, images) for score in chosen]
    columns = min(COLUMNS, max(1, len(panels)))
    rows = max(1, math.ceil(len(panels) / columns))
    height = float(np.clip(np.median([p.height for p in panels] or [1.0]), 0.5, 1.25))
    with styled():
        size = max(4.5, PANEL_WIDTH * columns), 0.9 + rows * (0.45 + PANEL_WIDTH * height)
        figure = new_figure(*size, f"{cls.name}: {'lowest Dice' if panels else 'no case has a Dice'}")
        for position, panel in enumerate(panels):
            axes = figure.add_subplot(rows, columns, position + 1)
            axes.imshow(panel.picture, aspect=panel.aspect, interpolation="nearest")
            axes.set_title(panel.title, fontsize=9, fontweight="normal")
            axes.set_axis_off()
        legend = {"found": FOUND, "missed": MISSED, "false alarm": FALSE_ALARM}
        handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        return save(figure, folder / f"worst_cases_{_safe(cls.name)}.png")


def _panel(evaluation: Evaluation, cls: EvaluatedClass, score: CaseScore, images: Path | None) -> _Panel:
    source = evaluation.input
    reference_labels, geometry = read_labels(source.reference(score.case), source.format)
    prediction_labels, _ = read_labels(source.prediction(score.case), source.format)
    reference, prediction = cls.mask(reference_labels), cls.mask(prediction_labels)
    if source.scheme.ignore is not None:
        counted = reference_labels != source.scheme.ignore
        prediction, reference = prediction & counted, reference & counted
    position = most_wrong_slice(prediction, reference)
    path = None if images is None else find_image(images, score.case)
    grey = None if path is None else read_grey_slice(path, position, geometry.shape)
    where = ""
    if prediction.ndim == 3:
        prediction, reference = prediction[position], reference[position]
        where = f", slice {position}"
    row_spacing, column_spacing = geometry.spacing[-2:]
    title = f"{score.case}{where}\nDice {score.values['dice']:.3f}"
    return _Panel(overlay(prediction, reference, grey), row_spacing / column_spacing, title)


def overlay(
    prediction: NDArray[np.bool_], reference: NDArray[np.bool_], grey: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Colours of the three kinds of foreground over an image, shape (rows, columns, 3), values in [0, 1]."""
    shape = (*prediction.shape, 3)
    picture = np.full(shape, BACKGROUND) if grey is None else np.repeat(grey[..., None], 3, axis=2)
    opacity = 1.0 if grey is None else OPACITY
    parts = {FOUND: prediction & reference, MISSED: reference & ~prediction, FALSE_ALARM: prediction & ~reference}
    for colour, where in parts.items():
        picture[where] = (1 - opacity) * picture[where] + opacity * np.array(to_rgb(colour))
    return picture


def _safe(name: str) -> str:
    """A class name as part of a file name."""
    return re.sub(r"[^\w-]+", "_", name)
