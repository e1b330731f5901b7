"""Pictures of scores: their distribution over cases, agreement of lesion sizes, and differences between methods."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from nnunet_covid.figures.style import FAINT, INK, PALETTE, class_colour, light_grid, new_figure, save, styled

COLUMNS = 4
SHORT_NAME = 9  # characters that fit beside a neighbour
AGREEMENT = 1.96  # standard deviations on either side of the mean that hold 95 % of a normal distribution
CHARACTERS_OF_A_TITLE = 9
"""In an inch."""
ROW_HEIGHT = 0.34


@dataclass(frozen=True)
class Distribution:
    """One metric: its heading, the values of every class (NaN where a case has none), and how to print them."""

    heading: str
    values: Mapping[str, np.ndarray]
    digits: int
    is_share: bool
    """Whether it lies between 0 and 1 and more is better; else it starts at 0."""


def draw_distributions(path: Path, metrics: Sequence[Distribution], title: str) -> Path:
    """Draw a panel per metric: a point per case, a box, and the mean; returns the file."""
    classes = list(metrics[0].values)
    columns = min(COLUMNS, len(metrics))
    rows = math.ceil(len(metrics) / columns)
    width = columns * max(1.9, 0.6 + 0.75 * len(classes))
    slanted = len(classes) > 1 and max(map(len, classes)) > SHORT_NAME
    with styled():
        figure = new_figure(width, 0.5 + 2.5 * rows, title)
        for position, metric in enumerate(metrics):
            axes = figure.add_subplot(rows, columns, position + 1)
            for x, values in enumerate(metric.values.values()):
                _draw_class(axes, x, values[~np.isnan(values)], metric.digits)
            axes.set_title(metric.heading, pad=16)
            axes.set_xlim(-0.6, len(classes) - 0.4)
            # A single class needs no name under every panel.
            axes.set_xticks(range(len(classes)), classes if len(classes) > 1 else [""])
            axes.tick_params(axis="x", length=0, labelrotation=25 if slanted else 0)
            if metric.is_share:  # on one scale, so that panels can be compared
                axes.set_ylim(-0.03, 1.03)
                axes.set_yticks(np.linspace(0, 1, 6))
            else:
                axes.set_ylim(bottom=0)
            light_grid(axes)
        return save(figure, path)


def _draw_class(axes: Axes, x: int, values: np.ndarray, digits: int) -> None:
    if not len(values):
        axes.text(x, 0.5, "no value", ha="center", transform=axes.get_xaxis_transform())
        return
    jitter = np.random.default_rng(0).uniform(-0.22, 0.22, len(values))
    size = float(np.clip(600 / len(values), 2, 14))
    axes.scatter(x + jitter, values, s=size, color=class_colour(x), alpha=0.45, linewidths=0)
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
        f"mean {mean:.{digits}f}",
        (x, 1),
        (0, 4),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="center",
        fontsize=7,
    )


def limits_of_agreement(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean difference d̄ and the limits d̄ ± 1.96·s; the limits are NaN for a single case."""
    mean = float(difference.mean())
    spread = AGREEMENT * float(difference.std(ddof=1)) if len(difference) > 1 else float("nan")
    return mean - spread, mean, mean + spread


def draw_agreement(path: Path, sizes: Mapping[str, tuple[np.ndarray, np.ndarray]], quantity: str, unit: str) -> Path:
    """Draw a Bland–Altman plot of lesion size (Lancet 1986), a panel per class; returns the file.

    Args:
        path: The PNG file.
        sizes: Predicted and reference size of every case, by class.
        quantity: "volume" or "area".
        unit: Of the sizes.
    """
    with styled():
        figure = new_figure(max(6.0, 5.2 * len(sizes)), 4.0, f"Bland–Altman plot of lesion {quantity}")
        for position, (name, (predicted, reference)) in enumerate(sizes.items()):
            axes = figure.add_subplot(1, len(sizes), position + 1)
            _draw_agreement(axes, predicted, reference, class_colour(position), digits=1 if unit == "ml" else 0)
            axes.set_title(f"{name}, n = {len(predicted)}")
            axes.set_xlabel(f"mean of prediction and reference [{unit}]")
            axes.set_ylabel(f"prediction − reference [{unit}]" if position == 0 else "")
        return save(figure, path)


def _draw_agreement(axes: Axes, predicted: np.ndarray, reference: np.ndarray, colour: str, digits: int) -> None:
    difference, mean = predicted - reference, (predicted + reference) / 2
    low, bias, high = limits_of_agreement(difference)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.scatter(mean, difference, s=22, color=colour, alpha=0.65, linewidths=0)
    axes.margins(x=0.06)
    shown = [v for v in (*difference, low, high, 0.0) if v == v]
    room = 0.1 * ((max(shown) - min(shown)) or 1.0)
    axes.set_ylim(min(shown) - room, max(shown) + room)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    for scale in (axes.xaxis, axes.yaxis):
        scale.set_major_formatter(StrMethodFormatter("{x:,g}"))
    light_grid(axes)
    lines = ((low, "--", "−1.96 SD", "top"), (bias, "-", "mean", "center"), (high, "--", "+1.96 SD", "bottom"))
    for value, style, text, side in lines:
        if value == value:
            axes.axhline(value, color=colour, linestyle=style, linewidth=1.3)
            # Named at the right, outside the axes, where no point can hide it.
            axes.annotate(
                f"{text}  {value:+,.{digits}f}".replace("-", "−"),
                (1, value),
                (4, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                va=side,
                fontsize=8,
            )


@dataclass(frozen=True)
class Difference:
    """Mean difference of two methods in one metric, its interval (NaN if unknown), and which of them is better."""

    name: str
    mean: float
    interval: tuple[float, float]
    better: str
    """"first", "second", or empty where there is no clear difference."""


def draw_forest(
    path: Path,
    metrics: Mapping[str, Sequence[Difference]],
    more_is_better: Sequence[bool],
    sides: tuple[str, str] = ("first", "second"),
) -> Path:
    """Draw a panel per metric, a row per class and pair of methods; returns the file.

    Args:
        path: The PNG file.
        metrics: Heading of each panel to its rows.
        more_is_better: Of each metric.
        sides: What the axis calls the first and the second of each pair.
    """
    names = [row.name for row in next(iter(metrics.values()))]
    with styled():
        width = 2.6 + 3.0 * len(metrics)
        title = "Mean paired difference with bootstrap 95 % interval (grey: no clear difference)"
        lines = textwrap.wrap(title, int(width * CHARACTERS_OF_A_TITLE))
        figure = new_figure(width, 1.3 + 0.2 * len(lines) + ROW_HEIGHT * len(names), "\n".join(lines))
        panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        for axes, (heading, rows), more in zip(panels, metrics.items(), more_is_better, strict=True):
            _draw_differences(axes, rows)
            axes.set_title(heading)
            right, left = sides if more else sides[::-1]
            axes.set_xlabel(f"← {left} is better   {right} is better →")
        panels[0].set_yticks(range(len(names)), names)
        panels[0].set_ylim(len(names) - 0.4, -0.6)
        return save(figure, path)


def _draw_differences(axes: Axes, rows: Sequence[Difference]) -> None:
    axes.axvline(0, color=INK, linewidth=1)
    colours = {"": FAINT, "first": PALETTE[0], "second": PALETTE[1]}
    for y, row in enumerate(rows):
        low, high = row.interval
        if low == low:
            axes.plot([low, high], [y, y], color=colours[row.better], linewidth=2.2, solid_capstyle="butt")
        axes.plot(row.mean, y, marker="s", color=colours[row.better], markersize=6, markeredgecolor="white")
    reach = max((abs(v) for r in rows for v in (*r.interval, r.mean) if v == v), default=1) or 1
    axes.set_xlim(-1.15 * reach, 1.15 * reach)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")
