"""Distribution of every metric over the cases: a point per case, a box, and the mean."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.metrics import METRICS, Group, Metric, heading
from nnunet_covid.evaluation.plots.style import INK, class_colour, light_grid, new_figure, save, styled

COLUMNS = 4
SHORT_NAME = 9  # characters that fit beside a neighbour
TITLES: dict[Group, str] = {
    "label": "Label maps",
    "map": "Probability maps",
    "toolbox": "Inf-Net toolbox protocol (means over 256 thresholds)",
}
FILE_NAMES: dict[Group, str] = {
    "label": "distribution_label_maps.png",
    "map": "distribution_probability_maps.png",
    "toolbox": "distribution_toolbox.png",
}


def write_distributions(evaluation: Evaluation, folder: Path) -> list[Path]:
    """One picture per group of metrics that was measured; returns the files."""
    present = evaluation.scores[0].values
    written = []
    for group, title in TITLES.items():
        metrics = [m for m in METRICS if m.group == group and m.best and m.key in present]
        if metrics:
            written.append(_write_group(evaluation, metrics, title, folder / FILE_NAMES[group]))
    return written


def _write_group(evaluation: Evaluation, metrics: list[Metric], title: str, path: Path) -> Path:
    classes = [c.name for c in evaluation.input.scheme.classes]
    columns = min(COLUMNS, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    width = columns * max(1.9, 0.6 + 0.75 * len(classes))
    slanted = len(classes) > 1 and max(map(len, classes)) > SHORT_NAME
    with styled():
        figure = new_figure(width, 0.5 + 2.5 * rows, f"{title}, {len(evaluation.input.cases)} cases")
        for position, metric in enumerate(metrics):
            axes = figure.add_subplot(rows, columns, position + 1)
            for x, name in enumerate(classes):
                values = np.array([s.values[metric.key] for s in evaluation.scores if s.class_name == name])
                _draw(axes, x, values[~np.isnan(values)], metric)
            axes.set_title(heading(metric, evaluation.input.units), pad=16)
            axes.set_xlim(-0.6, len(classes) - 0.4)
            # A single class needs no name under every panel.
            axes.set_xticks(range(len(classes)), classes if len(classes) > 1 else [""])
            axes.tick_params(axis="x", length=0, labelrotation=25 if slanted else 0)
            _set_range(axes, metric)
            light_grid(axes)
        return save(figure, path)


def _draw(axes: Axes, x: float, values: np.ndarray, metric: Metric) -> None:
    if not len(values):
        axes.text(x, 0.5, "no value", ha="center", transform=axes.get_xaxis_transform())
        return
    colour = class_colour(round(x))
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    size = float(np.clip(600 / len(values), 2, 14))
    axes.scatter(x + jitter, values, s=size, color=colour, alpha=0.45, linewidths=0)
    axes.boxplot(
        values,
        positions=[x],
        widths=0.55,
        showfliers=False,
        patch_artist=True,
        boxprops={"facecolor": "none", "edgecolor": INK},
        medianprops={"color": INK, "linewidth": 1.6},
        whiskerprops={"color": INK},
        capprops={"color": INK},
    )
    mean = float(values.mean())
    axes.plot(x, mean, marker="D", color="white", markeredgecolor=INK, markersize=5, zorder=5)
    axes.annotate(
        f"mean {mean:.{metric.digits}f}",
        (x, 1),
        (0, 4),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        fontsize=7,
    )


def _set_range(axes: Axes, metric: Metric) -> None:
    """Ratios share one scale, so that panels can be compared; errors and distances start at 0."""
    if metric.best > 0:
        axes.set_ylim(-0.03, 1.03)
        axes.set_yticks(np.linspace(0, 1, 6))
    else:
        axes.set_ylim(bottom=0)
