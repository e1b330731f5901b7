"""Relation matrices over a training: Figs. 5 and 6 of Zhang et al. (relation-driven collaborative learning)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from matplotlib.ticker import MaxNLocator

from nnunet_covid.figures.style import class_colour, light_grid, new_figure, save, styled
from nnunet_covid.files import evenly_spread

GENERAL, TARGET, DIFFERENCES = "general_relations.png", "target_relations.png", "relation_differences.png"
SHOWN = (0.5, 99.5)
"""Percentiles that get the first and the last colour: the diagonal alone would leave the rest without contrast."""

Row = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""An epoch, two matrices and their absolute difference."""


class Relations(Protocol):
    """Relation matrices (C, C) of an epoch; those with images of other diseases may be missing."""

    @property
    def epoch(self) -> int: ...
    @property
    def general_covid(self) -> np.ndarray: ...
    @property
    def target_covid(self) -> np.ndarray: ...
    @property
    def target_difference(self) -> np.ndarray: ...
    @property
    def general_other(self) -> np.ndarray | None: ...
    @property
    def general_difference(self) -> np.ndarray | None: ...


def draw_relations(snapshots: Sequence[Relations], folder: Path, *, rows: int = 6) -> list[Path]:
    """Write the pictures for the snapshots of one fold.

    Args:
        snapshots: In the order of epochs.
        rows: Epochs in a picture at most, evenly spread over the snapshots.

    Returns:
        The files; without images of other diseases there is none for the general encoder's two matrices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [snapshots[index] for index in evenly_spread(len(snapshots), rows)]
    general = [
        (s.epoch, s.general_other, s.general_covid, s.general_difference)
        for s in chosen
        if s.general_other is not None and s.general_difference is not None
    ]
    target = [(s.epoch, s.general_covid, s.target_covid, s.target_difference) for s in chosen]
    written = []
    if general:
        titles = ("other diseases", "COVID")
        written.append(_draw(general, "Relations in the general encoder", titles, folder / GENERAL))
    titles = ("general encoder", "target encoder")
    written.append(_draw(target, "Relations of COVID images", titles, folder / TARGET))
    written.append(_draw_course(snapshots, folder / DIFFERENCES))
    return written


def _draw(rows: Sequence[Row], title: str, titles: tuple[str, str], path: Path) -> Path:
    """A row per epoch; all matrices of a picture share their colours, and so do all differences."""
    low, high = np.percentile(np.stack([m for _, a, b, _ in rows for m in (a, b)]), SHOWN)
    furthest = max(float(np.percentile(np.stack([d for _, _, _, d in rows]), SHOWN[1])), 1e-6)
    channels = len(rows[0][1])
    with styled():
        figure = new_figure(8.4, 0.9 + 2.45 * len(rows), f"{title}, {channels} channels")
        panels = figure.subplots(len(rows), 3, squeeze=False)
        for i, (epoch, first, second, difference) in enumerate(rows):
            for axes, matrix in zip(panels[i], (first, second), strict=False):
                shown = axes.imshow(matrix, cmap="viridis", vmin=low, vmax=high)
            apart = panels[i][2].imshow(difference, cmap="Reds", vmin=0, vmax=furthest)
            panels[i][0].set_ylabel(f"epoch {epoch}")
        for axes, text in zip(panels[0], (*titles, "absolute difference"), strict=True):
            axes.set_title(text)
        for axes in panels.flat:
            axes.set_xticks([])
            axes.set_yticks([])
        below: dict[str, Any] = {"location": "bottom", "aspect": 30, "pad": 0.01, "format": "%.3f"}
        middle = (low + high) / 2
        figure.colorbar(shown, ax=panels[:, :2], ticks=(low, middle, high), label="relation", extend="both", **below)
        furthest_ticks = (0, furthest / 2, furthest)
        figure.colorbar(
            apart, ax=panels[:, 2], ticks=furthest_ticks, label="absolute difference", extend="max", **below
        )
        return save(figure, path)


def _draw_course(snapshots: Sequence[Relations], path: Path) -> Path:
    """Mean norm of a row of the absolute difference, from epoch to epoch."""
    lines: dict[str, list[tuple[int, np.ndarray | None]]] = {
        "other diseases and COVID, general encoder": [(s.epoch, s.general_difference) for s in snapshots],
        "general and target encoder, COVID": [(s.epoch, s.target_difference) for s in snapshots],
    }
    with styled():
        figure = new_figure(6.4, 3.6, "How far relation matrices are apart")
        axes = figure.subplots()
        for position, (label, entries) in enumerate(lines.items()):
            known = [(epoch, row_distance(matrix)) for epoch, matrix in entries if matrix is not None]
            if known:
                axes.plot(*zip(*known, strict=True), marker="o", color=class_colour(position), label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("mean norm of a row of the difference")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False, loc="best")
        light_grid(axes)
        return save(figure, path)


def row_distance(difference: np.ndarray) -> float:
    """Mean Euclidean norm of the rows of a difference (C, C); rows of relation matrices have norm 1."""
    return float(np.linalg.norm(difference, axis=1).mean())
