"""Sheets of slices as PNG files: maps over an image, cases with their predictions, and what was found and missed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.figures.slices import WHITE, Colour, as_rgb, blended, grey_slice, heat_over, outlined
from nnunet_covid.figures.style import new_figure, save, styled
from nnunet_covid.files import evenly_spread, replacing

PANEL_INCHES = 2.6
HEADING_CHARACTERS = 44
"""That a heading may have before it reaches over its panel; of longer ones the middle is left out."""
REFERENCE: Colour = (20, 184, 166)
PREDICTION: Colour = (245, 158, 11)
PREDICTION_OPACITY = 0.45
FOUND, MISSED, FALSE_ALARM = "#009E73", "#E69F00", "#CC79A7"
BACKGROUND = 0.12  # grey behind the errors where no image is given
ERROR_OPACITY = 0.6
ERROR_COLUMNS = 3
SHOWN_CASES = 6
ERROR_INCHES = 2.7


def write_sheet(
    path: Path,
    panels: Sequence[tuple[str, NDArray[np.uint8]]],
    *,
    title: str,
    aspect: float = 1.0,
    columns: int = 4,
) -> None:
    """Write pictures side by side, each with its heading.

    Args:
        path: The PNG file; written under a temporary name and renamed.
        panels: Heading and picture (y, x, 3). The first one's shape sets the height of all.
        title: Above everything.
        aspect: Height of a pixel over its width.
        columns: Panels beside each other.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    height, width = panels[0][1].shape[:2]
    size = (columns * PANEL_INCHES, rows * (PANEL_INCHES * height * aspect / width + 0.28) + 0.35)
    figure = Figure(figsize=size, dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    for number, (heading, picture) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        axes.imshow(picture, aspect=aspect, interpolation="nearest")
        axes.set_title(shortened(heading), fontsize=8, pad=3)
        axes.set_axis_off()
    top = 1 - 0.35 / size[1]
    figure.subplots_adjust(0.01, 0.01, 0.99, top - 0.2 / size[1], wspace=0.03, hspace=0.14)
    figure.suptitle(title, fontsize=9, y=1 - 0.06 / size[1], va="top")
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    with replacing(path) as unfinished:
        Image.open(drawn).convert("RGB").save(unfinished, optimize=True)


def shortened(heading: str) -> str:
    """A heading that stays over its panel: the number in front and the end, which tell slices apart, are kept."""
    if len(heading) <= HEADING_CHARACTERS:
        return heading
    front = HEADING_CHARACTERS // 3
    return f"{heading[:front]}…{heading[front + 1 - HEADING_CHARACTERS :]}"


def write_heat_maps(
    path: Path,
    image: NDArray[np.float32],
    predicted: NDArray[np.bool_],
    maps: Mapping[str, NDArray[np.float32]],
    *,
    title: str,
    aspect: float = 1.0,
) -> None:
    """Write the image, then each map over it, all with the outline of what was predicted.

    Args:
        path: The PNG file.
        image: One slice of the first channel, (y, x).
        predicted: The same slice of the predicted foreground.
        maps: Heading to the slice of a map with values 0 to 1.
        title: Above everything.
        aspect: Height of a pixel over its width.
    """
    grey = grey_slice(image)
    pictures = {"image, predicted": as_rgb(grey)}
    pictures |= {heading: heat_over(grey, heat) for heading, heat in maps.items()}
    panels = [(heading, outlined(picture, {WHITE: predicted})) for heading, picture in pictures.items()]
    write_sheet(path, panels, title=title, aspect=aspect)


def write_predictions(
    path: Path,
    images: Path,
    references: Path,
    predictions: Path,
    dice: Mapping[str, float],
    *,
    title: str,
) -> None:
    """Write image, reference and prediction of some 2D cases side by side, from worst to best.

    Args:
        path: The PNG file.
        images: Folder of ``CASE_0000.png``.
        references: Folder of ``CASE.png``.
        predictions: Folder of ``CASE.png``.
        dice: Dice by case.
        title: Above everything.
    """
    panels = []
    for case in ranked(dice, SHOWN_CASES):
        picture = as_rgb(_grey(images / f"{case}_0000.png"))
        panels.append((case, picture))
        for heading, folder, colour in (
            ("reference", references, REFERENCE),
            (f"prediction, Dice {dice[case]:.2f}", predictions, PREDICTION),
        ):
            mask = _grey(folder / f"{case}.png") > 0
            panels.append((heading, blended(picture, colour, PREDICTION_OPACITY, mask)))
    write_sheet(path, panels, title=title, columns=6)


def ranked(dice: Mapping[str, float], at_most: int) -> list[str]:
    """Cases from worst to best; where there are more than ``at_most``, evenly spread over the ranks."""
    order = sorted(dice, key=lambda case: (dice[case], case))
    return [order[index] for index in evenly_spread(len(order), at_most)]


@dataclass(frozen=True)
class Errors:
    """A slice of one case: masks (rows, columns), the ratio of row to column spacing, and a title.

    ``grey`` is the image behind them with values from 0 to 1, if there is one.
    """

    prediction: NDArray[np.bool_]
    reference: NDArray[np.bool_]
    grey: NDArray[np.float64] | None
    aspect: float
    title: str

    @property
    def height(self) -> float:
        """Height of the picture as a multiple of its width."""
        return self.prediction.shape[0] * self.aspect / self.prediction.shape[1]

    def picture(self) -> NDArray[Any]:
        """Colours of the three kinds of foreground, shape (rows, columns, 3), values in [0, 1]."""
        empty = np.full((*self.prediction.shape, 3), BACKGROUND)
        picture = empty if self.grey is None else as_rgb(self.grey)
        opacity = 1.0 if self.grey is None else ERROR_OPACITY
        found, wrong = self.prediction & self.reference, self.prediction ^ self.reference
        parts = {FOUND: found, MISSED: wrong & self.reference, FALSE_ALARM: wrong & self.prediction}
        for colour, where in parts.items():
            picture = blended(picture, to_rgb(colour), opacity, where)
        return picture


def write_errors(path: Path, cases: Sequence[Errors], title: str) -> Path:
    """Write what was found, missed and wrongly marked in some cases; returns the file."""
    columns = min(ERROR_COLUMNS, max(1, len(cases)))
    rows = max(1, math.ceil(len(cases) / columns))
    height = float(np.clip(np.median([case.height for case in cases] or [1.0]), 0.5, 1.25))
    with styled():
        size = max(4.5, ERROR_INCHES * columns), 0.9 + rows * (0.45 + ERROR_INCHES * height)
        figure = new_figure(*size, title)
        for position, case in enumerate(cases):
            axes = figure.add_subplot(rows, columns, position + 1)
            axes.imshow(case.picture(), aspect=case.aspect, interpolation="nearest")
            axes.set_title(case.title, fontsize=9, fontweight="normal")
            axes.set_axis_off()
        legend = {"found": FOUND, "missed": MISSED, "false alarm": FALSE_ALARM}
        handles = [Patch(color=colour, label=label) for label, colour in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
        return save(figure, path)


def _grey(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))
