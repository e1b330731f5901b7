"""The demo's picture: image, reference and prediction of some test slices side by side, from worst to best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

REFERENCE, PREDICTION = "#14b8a6", "#f59e0b"
ROW_INCHES, ABOVE_INCHES, BELOW_INCHES = 1.62, 0.55, 0.38


def ranked(dice: Mapping[str, float], at_most: int) -> list[str]:
    """Cases from worst to best; where there are more than ``at_most``, evenly spread over the ranks."""
    order = sorted(dice, key=lambda case: (dice[case], case))
    chosen = np.unique(np.linspace(0, len(order) - 1, min(at_most, len(order))).round().astype(int))
    return [order[i] for i in chosen]


def blended(image: NDArray[np.uint8], mask: NDArray[np.bool_], colour: str, opacity: float = 0.45) -> NDArray[np.uint8]:
    """A grey image, (rows, columns), with the mask in colour, (rows, columns, 3)."""
    rgb = np.repeat(image[..., None].astype(np.float64), 3, axis=-1)
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float64)
    rgb[mask] = (1.0 - opacity) * rgb[mask] + opacity * value
    return rgb.round().astype(np.uint8)


def write_overlay(
    path: Path,
    images: Path,
    references: Path,
    predictions: Path,
    dice: Mapping[str, float],
    *,
    title: str,
    at_most: int = 6,
    columns: int = 2,
) -> None:
    """Draw the picture.

    Args:
        path: The PNG file to write.
        images: Folder of ``CASE_0000.png``.
        references: Folder of ``CASE.png``.
        predictions: Folder of ``CASE.png``.
        dice: Dice by case.
        title: Above everything.
        at_most: How many cases to show.
        columns: Cases beside each other.
    """
    cases = ranked(dice, at_most)
    columns = min(columns, len(cases))
    rows = -(-len(cases) // columns)
    height = rows * ROW_INCHES + ABOVE_INCHES + BELOW_INCHES
    figure = Figure(figsize=(columns * 6.3 + 0.2, height), dpi=88, facecolor="white")
    FigureCanvasAgg(figure)
    blocks = figure.add_gridspec(
        rows,
        columns,
        left=0.01,
        right=0.99,
        bottom=BELOW_INCHES / height,
        top=1.0 - ABOVE_INCHES / height,
        wspace=0.03,
        hspace=0.18,
    )
    for i, case in enumerate(cases):
        image = _read(images / f"{case}_0000.png")
        panels = (
            np.repeat(image[..., None], 3, axis=-1),
            blended(image, _read(references / f"{case}.png") > 0, REFERENCE),
            blended(image, _read(predictions / f"{case}.png") > 0, PREDICTION),
        )
        block = blocks[i // columns, i % columns].subgridspec(1, 3, wspace=0.02)
        for k, panel in enumerate(panels):
            axes = figure.add_subplot(block[0, k])
            axes.imshow(panel, interpolation="bicubic")
            axes.set_axis_off()
            axes.set_title(_heading(k, case, dice[case]), fontsize=8, pad=3)
    figure.suptitle(title, fontsize=11, y=1.0 - 0.08 / height)
    figure.legend(
        handles=[Patch(color=REFERENCE, label="reference"), Patch(color=PREDICTION, label="prediction")],
        loc="lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
    )
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _heading(panel: int, case: str, dice: float) -> str:
    texts: Sequence[str] = (case, "reference", f"prediction, Dice {dice:.2f}")
    return texts[panel]


def _read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("L"))
