"""What a training on unlabelled images shows of itself, below nnU-Net's own curves in ``progress.png``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.ticker import MaxNLocator
from PIL import Image

from nnunet_covid.figures.progress import FILE, legend_beside
from nnunet_covid.figures.style import INK, class_colour, light_grid, new_figure, styled
from nnunet_covid.files import replacing

WIDTH, HEIGHT = 11.0, 7.5
"""Inches of the panels; their resolution follows from the width of nnU-Net's picture."""


def append_to_progress(folder: Path, logged: Mapping[str, Sequence[Any]], names: Sequence[str]) -> Path:
    """Put the panels below the picture that nnU-Net has drawn of the same training; returns the file.

    Args:
        folder: Of the fold.
        logged: nnU-Net's log, one entry per epoch, with the keys of the trainer.
        names: Of the foreground classes, in the order of ``trusted_per_class``.
    """
    path = folder / FILE
    with Image.open(path) as picture:
        above = picture.convert("RGB")
    with styled():
        figure = new_figure(WIDTH, HEIGHT, "unlabelled images")
        figure.set_dpi(above.width / WIDTH)
        canvas = FigureCanvasAgg(figure)
        panels = figure.subplots(3, 1, sharex=True)
        _dice(panels[0], logged)
        _trust(panels[1], logged, names)
        _loss(panels[2], logged)
        panels[2].set_xlabel("epoch")
        panels[2].xaxis.set_major_locator(MaxNLocator(integer=True))
        for axes in panels:
            light_grid(axes)
            legend_beside(axes)
        canvas.draw()
        below = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    both = Image.new("RGB", (above.width, above.height + below.height), "white")
    both.paste(above, (0, 0))
    both.paste(below, (0, above.height))
    with replacing(path) as unfinished:
        both.save(unfinished, format="png", compress_level=1)
    return path


def _curve(axes: Axes, values: Sequence[Any], colour: Any, label: str) -> None:
    """A curve over the epochs; a single one is a point."""
    axes.plot(values, color=colour, label=label, marker="o" if len(values) == 1 else None)


def _dice(axes: Axes, logged: Mapping[str, Sequence[Any]]) -> None:
    _curve(axes, logged["mean_fg_dice"], INK, "teacher")
    _curve(axes, logged["student_fg_dice"], class_colour(0), "student")
    _curve(axes, logged["agreement"], class_colour(1), "student and teacher\non unlabelled images")
    axes.set_title("Dice of validation patches (pseudo), agreement")
    axes.set_ylim(-0.02, 1.02)


def _trust(axes: Axes, logged: Mapping[str, Sequence[Any]], names: Sequence[str]) -> None:
    _curve(axes, logged["trusted"], INK, "all voxels")
    for position, name in enumerate(names):
        _curve(axes, [one[position] for one in logged["trusted_per_class"]], class_colour(position), name)
    axes.set_title("share of the teacher's voxels that is trusted")
    axes.set_ylim(-0.02, 1.02)


def _loss(axes: Axes, logged: Mapping[str, Sequence[Any]]) -> None:
    _curve(axes, logged["unlabelled_weight"], INK, "weight w(t)")
    _curve(axes, logged["unlabelled_losses"], class_colour(0), "unlabelled loss")
    axes.set_title("weight and loss of unlabelled images")
