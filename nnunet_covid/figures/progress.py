"""The picture of a pseudo-label run: validation Dice, pool, share kept and class weights over the rounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nnunet_covid.figures.style import INK, class_colour, light_grid, new_figure, save, styled

FILE = "progress.png"


class Round(Protocol):
    """What is drawn of a round: images taken and left, Dice, share kept and weights by class."""

    number: int
    two_step: bool
    pseudo: int
    left: int
    dice: float
    classes: dict[str, float]
    kept: dict[str, float | None]
    weights: list[float] | None


def draw_progress(folder: Path, title: str, rounds: Sequence[Round]) -> Path:
    """Draw what is known so far; returns the file."""
    names = {one.number: "two-step" for one in rounds if one.two_step}
    with styled():
        figure = new_figure(11, 5.6, title)
        panels = figure.subplots(2, 2)
        _dice(panels[0, 0], rounds)
        _pool(panels[0, 1], rounds)
        _kept(panels[1, 0], rounds)
        _weights(panels[1, 1], rounds)
        for axes in panels.flat:
            axes.set_xlabel("round")
            axes.set_xlim(-0.3, max(1, rounds[-1].number) + 0.3 if rounds else 1)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.xaxis.set_major_formatter(lambda x, _: names.get(x, f"{x:g}"))
            light_grid(axes)
        return save(figure, folder / FILE)


def _dice(axes: Axes, rounds: Sequence[Round]) -> None:
    names = list(dict.fromkeys(name for one in rounds for name in one.classes))
    for position, name in enumerate(names if len(names) > 1 else []):
        values = [one.classes.get(name, float("nan")) for one in rounds]
        _line(axes, rounds, values, class_colour(position), name)
    axes.plot([one.number for one in rounds], [one.dice for one in rounds], "s-", ms=4, color=INK, label="mean")
    axes.set_title("validation Dice (pre-processed)")
    legend_beside(axes)


def _pool(axes: Axes, rounds: Sequence[Round]) -> None:
    _line(axes, rounds, [one.pseudo for one in rounds], class_colour(0), "pseudo-labelled")
    _line(axes, rounds, [one.left for one in rounds], class_colour(1), "left in the pool")
    axes.set_title("images")
    axes.set_ylim(bottom=0)
    legend_beside(axes)


def _kept(axes: Axes, rounds: Sequence[Round]) -> None:
    names = list(dict.fromkeys(name for one in rounds for name in one.kept))
    for position, name in enumerate(names):
        known = [one for one in rounds if one.kept.get(name) is not None]
        _line(axes, known, [one.kept[name] for one in known], class_colour(position), name)
    axes.set_title("share of predicted voxels kept")
    axes.set_ylim(-0.02, 1.05)
    if names:
        legend_beside(axes)


def _weights(axes: Axes, rounds: Sequence[Round]) -> None:
    weighted = [one for one in rounds if one.weights]
    axes.set_title("class weights, 1 / (C · share)")
    if not weighted:
        axes.text(0.5, 0.5, "no re-weighting", ha="center", va="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    names = ["background", *dict.fromkeys(name for one in rounds for name in one.classes)]
    for position in range(len(weighted[0].weights or [])):
        values = [one.weights[position] for one in weighted if one.weights]
        name = names[position] if position < len(names) else f"label {position}"
        colour = INK if position == 0 else class_colour(position - 1)
        _line(axes, weighted, values, colour, name)
    axes.set_yscale("log")
    legend_beside(axes)


def _line(axes: Axes, rounds: Sequence[Round], values: Sequence[float | None], colour: str, label: str) -> None:
    axes.plot([one.number for one in rounds], values, "o-", ms=3, color=colour, label=label)  # type: ignore[arg-type]


def legend_beside(axes: Axes) -> None:
    """Beside the panel, where it can cover no line."""
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
