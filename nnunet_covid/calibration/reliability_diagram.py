"""The picture of a calibration: reliability before and after, and Dice over the threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.special import expit

from nnunet_covid.calibration.fit import EDGES, RELIABILITY_BINS
from nnunet_covid.calibration.measure import ClassMeasurement, Measurement
from nnunet_covid.figures.style import FAINT, INK, PALETTE, light_grid, new_figure, save, styled

FILE_NAME = "reliability.png"
BEFORE, AFTER = PALETTE[1], PALETTE[0]


def write_reliability_diagram(found: Measurement, folder: Path) -> Path:
    """A column per class: the diagram, the voxels in its bins, and Dice over the threshold; returns the file."""
    columns = len(found.classes)
    with styled():
        figure = new_figure(
            max(4.2, 3.6 * columns), 8.0, f"Calibration on {len(found.case_dice)} validation cases, nested"
        )
        panels = figure.subplots(3, columns, squeeze=False, height_ratios=(3, 1, 2))
        for k, each in enumerate(found.classes):
            _draw_reliability(panels[0, k], each)
            _draw_voxels(panels[1, k], each)
            _draw_dice(panels[2, k], each, found.calibration.thresholds[k])
            if k:
                for axes in panels[:, k]:
                    axes.set_ylabel("")
        figure.legend(
            *panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9
        )
        return save(figure, folder / FILE_NAME)


def _draw_reliability(axes: Axes, each: ClassMeasurement) -> None:
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="perfect")
    for reliability, colour, name in ((each.before, BEFORE, "uncalibrated"), (each.after, AFTER, "calibrated")):
        filled = reliability.voxels > 0
        sums = (reliability.probability, reliability.inside)
        probability, frequency = (each[filled] / reliability.voxels[filled] for each in sums)
        axes.plot(
            probability, frequency, color=colour, marker="o", markersize=4, linewidth=1.5, label=name, clip_on=False
        )
    axes.set(
        title=each.name,
        xlabel="probability of the map",
        ylabel="share of voxels of the class",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    light_grid(axes, "both")


def _draw_voxels(axes: Axes, each: ClassMeasurement) -> None:
    edges = np.linspace(0, 1, RELIABILITY_BINS + 1)
    for reliability, colour in ((each.before, BEFORE), (each.after, AFTER)):
        axes.stairs(reliability.voxels / reliability.voxels.sum(), edges, color=colour, linewidth=1.3)
    axes.set(yscale="log", xlabel="probability of the map", ylabel="share of all voxels", xlim=(0, 1))
    light_grid(axes)


def _draw_dice(axes: Axes, each: ClassMeasurement, threshold: float) -> None:
    at = expit(EDGES[:-1])
    axes.plot(at, each.dice_curve, color=INK, linewidth=1.5)
    for position, colour in ((0.5, BEFORE), (threshold, AFTER)):
        axes.axvline(position, color=colour, linewidth=1.2)
        axes.plot(position, np.interp(position, at, each.dice_curve), marker="o", color=colour, markersize=5)
    axes.set(xlabel="threshold of the uncalibrated map", ylabel="mean Dice", xlim=(0, 1))
    low = each.dice_curve[(at > 0.1) & (at < 0.9)].min()
    axes.set_ylim(max(0, low - 0.02), min(1, each.dice_curve.max() + 0.02))
    light_grid(axes)
