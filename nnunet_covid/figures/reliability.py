"""Reliability diagram of a calibration, and Dice over the threshold. What is drawn is computed elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from nnunet_covid.figures.style import FAINT, INK, PALETTE, light_grid, new_figure, save, styled

BEFORE, AFTER = PALETTE[1], PALETTE[0]

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Bins:
    """Voxels by their probability, in bins of equal width from 0 to 1.

    Attributes:
        voxels: Number in each.
        probability: Sum of their probabilities.
        inside: Number of those that are of the class.
    """

    voxels: Values
    probability: Values
    inside: Values


@dataclass(frozen=True)
class ReliabilityPanel:
    """One class: a column of the picture.

    Attributes:
        name: Its heading.
        before, after: Calibration.
        thresholds, dice: Mean Dice over the threshold of the uncalibrated map.
        threshold: The fitted one.
    """

    name: str
    before: Bins
    after: Bins
    thresholds: Values
    dice: Values
    threshold: float


def draw_reliability(classes: Sequence[ReliabilityPanel], path: Path, title: str) -> Path:
    """A column per class: the diagram, the voxels in its bins, and Dice over the threshold; returns the file."""
    columns = len(classes)
    with styled():
        figure = new_figure(max(4.2, 3.6 * columns), 8.0, title)
        panels = figure.subplots(3, columns, squeeze=False, height_ratios=(3, 1, 2))
        for k, each in enumerate(classes):
            _draw_frequencies(panels[0, k], each)
            _draw_voxels(panels[1, k], each)
            _draw_dice(panels[2, k], each)
        for axes in panels[:, 1:].flat:
            axes.set_ylabel("")
        handles = panels[0, 0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        return save(figure, path)


def _draw_frequencies(axes: Axes, each: ReliabilityPanel) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="perfect")
    for bins, colour, name in ((each.before, BEFORE, "uncalibrated"), (each.after, AFTER, "calibrated")):
        filled = bins.voxels > 0
        probability, share = (part[filled] / bins.voxels[filled] for part in (bins.probability, bins.inside))
        axes.plot(probability, share, color=colour, marker="o", markersize=4, linewidth=1.5, label=name, clip_on=False)
    axes.set_title(each.name)
    axes.set(xlabel="probability of the map", ylabel="share of voxels of the class", xlim=(0, 1), ylim=(0, 1))
    light_grid(axes, "both")


def _draw_voxels(axes: Axes, each: ReliabilityPanel) -> None:
    lowest = 1.0
    for bins, colour in ((each.before, BEFORE), (each.after, AFTER)):
        shares = bins.voxels / bins.voxels.sum()
        axes.stairs(shares, np.linspace(0, 1, len(shares) + 1), color=colour, linewidth=1.3)
        lowest = min(lowest, float(shares[shares > 0].min()))
    decade = 10 ** np.floor(np.log10(lowest))
    axes.set(yscale="log", ylim=(decade, 1), xlabel="probability of the map", ylabel="share of all voxels", xlim=(0, 1))
    axes.yaxis.set_minor_formatter(NullFormatter())
    light_grid(axes)


def _draw_dice(axes: Axes, each: ReliabilityPanel) -> None:
    axes.plot(each.thresholds, each.dice, color=INK, linewidth=1.5)
    for position, colour in ((0.5, BEFORE), (each.threshold, AFTER)):
        axes.axvline(position, color=colour, linewidth=1.2)
        axes.plot(position, np.interp(position, each.thresholds, each.dice), marker="o", color=colour, markersize=5)
    lowest = each.dice[(each.thresholds > 0.1) & (each.thresholds < 0.9)].min()
    limits = max(0, lowest - 0.02), min(1, each.dice.max() + 0.02)
    axes.set(xlabel="threshold of the uncalibrated map", ylabel="mean Dice", xlim=(0, 1), ylim=limits)
    light_grid(axes)
