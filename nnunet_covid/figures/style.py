"""What all pictures share: colours that colour-blind people can tell apart, sizes, and safe writing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_covid.files import replacing

# The palette of Okabe and Ito (2008), less its yellow, which vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#333333"
FAINT = "#b8b8b8"
DOTS_PER_INCH = 160

SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}


def class_colour(position: int) -> str:
    """Colour of the class at a position, the same on every picture."""
    return PALETTE[position % len(PALETTE)]


def new_figure(width: float, height: float, title: str) -> Figure:
    """An empty figure of a size in inches; not registered with pyplot, so that nothing has to be closed."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Thin lines behind the data."""
    axes.grid(axis=axis, color="#e4e4e4", linewidth=0.7)  # type: ignore[arg-type]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG under a temporary name and rename it."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DOTS_PER_INCH)
    return path


@contextmanager
def styled() -> Iterator[None]:
    """Context in which figures have this project's look; nothing outside it changes."""
    with rc_context():
        rcdefaults()  # nnU-Net's own pictures leave their enormous type behind
        rcParams.update(SETTINGS)
        yield
