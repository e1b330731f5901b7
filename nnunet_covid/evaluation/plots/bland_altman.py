"""Agreement of predicted and reference lesion size (Bland and Altman, Lancet 1986)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from nnunet_covid.evaluation.folders import Evaluation
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.evaluation.plots.style import INK, class_colour, light_grid, new_figure, save, styled

FILE_NAME = "bland_altman.png"
AGREEMENT = 1.96  # standard deviations on either side of the mean that hold 95 % of a normal distribution


def limits_of_agreement(difference: np.ndarray) -> tuple[float, float, float]:
    """Mean difference d̄ and the limits d̄ ± 1.96·s; the limits are NaN for a single case."""
    mean = float(difference.mean())
    spread = AGREEMENT * float(difference.std(ddof=1)) if len(difference) > 1 else float("nan")
    return mean - spread, mean, mean + spread


def write_bland_altman(evaluation: Evaluation, folder: Path) -> list[Path]:
    """One panel per class: difference of the two sizes over their mean, one point per case."""
    classes = [c.name for c in evaluation.input.scheme.classes]
    quantity = "volume" if evaluation.input.units.size == "ml" else "area"
    with styled():
        figure = new_figure(max(6.0, 5.2 * len(classes)), 4.0, f"Bland–Altman plot of lesion {quantity}")
        for position, name in enumerate(classes):
            scores = [s.values for s in evaluation.scores if s.class_name == name]
            predicted, reference = (np.array([v[k] for v in scores]) for k in ("predicted_volume", "reference_volume"))
            axes = figure.add_subplot(1, len(classes), position + 1)
            _draw(axes, predicted, reference, class_colour(position), evaluation.input.units)
            axes.set_title(f"{name}, n = {len(scores)}")
            axes.set_xlabel(f"mean of prediction and reference [{_unit(evaluation.input.units)}]")
            axes.set_ylabel(f"prediction − reference [{_unit(evaluation.input.units)}]" if position == 0 else "")
        return [save(figure, folder / FILE_NAME)]


def _draw(axes: Axes, predicted: np.ndarray, reference: np.ndarray, colour: str, units: Units) -> None:
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
            _label(axes, value, f"{text}  {_rounded(value, units)}", side)


def _label(axes: Axes, value: float, text: str, side: str) -> None:
    """Name a line at the right, outside the axes, where no point can hide it."""
    axes.annotate(
        text,
        (1, value),
        (4, 0),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        va=side,
        fontsize=8,
    )


def _rounded(value: float, units: Units) -> str:
    return f"{value:+,.{0 if units.size != 'ml' else 1}f}".replace("-", "−")


def _unit(units: Units) -> str:
    return units.size.replace("2", "²")
