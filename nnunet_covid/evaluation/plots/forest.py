"""Forest plot of a comparison: mean difference of each pair of methods with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nnunet_covid.evaluation.comparison import PairComparison
from nnunet_covid.evaluation.plots.style import FAINT, INK, PALETTE, light_grid, new_figure, save, styled

FILE_NAME = "forest.png"
ROW_HEIGHT = 0.34


def write_forest(compared: Sequence[PairComparison], folder: Path) -> list[Path]:
    """One panel per metric, one row per class and pair of methods; returns the file."""
    columns = list(dict.fromkeys(c.column for c in compared))
    rows = len([c for c in compared if c.column == columns[0]])
    several_classes = len({c.class_name for c in compared}) > 1
    height = 1.5 + ROW_HEIGHT * rows
    with styled():
        figure = new_figure(
            2.6 + 3.0 * len(columns),
            height,
            "Mean paired difference with bootstrap 95 % interval (grey: no clear difference)",
        )
        panels = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axes, column in zip(panels, columns, strict=True):
            _draw(axes, [c for c in compared if c.column == column])
        labels = [_row_name(c, several_classes) for c in compared if c.column == columns[0]]
        panels[0].set_yticks(range(rows), labels)
        panels[0].set_ylim(rows - 0.4, -0.6)
        return [save(figure, folder / FILE_NAME)]


def _draw(axes: Axes, rows: Sequence[PairComparison]) -> None:
    metric = rows[0].metric
    axes.axvline(0, color=INK, linewidth=1)
    for y, row in enumerate(rows):
        low, high = row.statistics.interval
        colour = FAINT if row.better is None else PALETTE[0] if row.better == row.a else PALETTE[1]
        if low == low:
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="butt")
        axes.plot(row.statistics.mean_difference, y, marker="s", color=colour, markersize=6, markeredgecolor="white")
    reach = max(
        (abs(v) for r in rows for v in (*r.statistics.interval, r.statistics.mean_difference) if v == v), default=1
    )
    axes.set_xlim(-1.15 * (reach or 1), 1.15 * (reach or 1))
    axes.set_title(rows[0].heading)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.set_xlabel(
        "← first is better   second is better →" if metric.best < 0 else "← second is better   first is better →"
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    light_grid(axes, "x")


def _row_name(row: PairComparison, with_class: bool) -> str:
    pair = f"{row.a} − {row.b}"
    return f"{row.class_name}: {pair}" if with_class else pair
