"""Draw the layers of the house from the import-linter contract in pyproject.toml.

python docs/draw_layers.py               writes docs/images/layers.png
python docs/draw_layers.py OUTPUT.png
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

REPOSITORY = Path(__file__).resolve().parents[1]
COLOURS = ("#dce6f2", "#e3eedd", "#f6ecd2", "#f3ded9", "#e6dff0", "#d9ecec", "#e8e8e8")
WIDTH = 10.0
HEIGHT = 0.4
TYPE = 72.0
"""Points of type that a letter has in a box one unit wide."""
PITCH = 0.58
MARGIN = 1.0
IN_A_ROW = 7


def layers_of(pyproject: Path) -> list[list[str]]:
    """Rooms of each layer, top to bottom, as the contract of type ``layers`` names them."""
    (contract,) = [c for c in _contracts(pyproject) if c["type"] == "layers"]
    return [re.findall(r"\w+", layer) for layer in contract["layers"]]


def _contracts(pyproject: Path) -> list[dict[str, Any]]:
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef]
    content = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    return content["tool"]["importlinter"]["contracts"]


def draw(layers: list[list[str]], output: Path) -> None:
    """A row of boxes per layer, two of one colour where it has many; what is above may import from what is below."""
    rows = [
        (rooms[first : first + IN_A_ROW], COLOURS[layer % len(COLOURS)])
        for layer, rooms in enumerate(layers)
        for first in range(0, len(rooms), IN_A_ROW)
    ]
    figure, axes = pyplot.subplots(figsize=(WIDTH, PITCH * len(rows) + 0.2))
    for row, (rooms, colour) in enumerate(rows):
        _draw_row(axes, rooms, -PITCH * row, colour)
    bottom = -PITCH * (len(rows) - 1)
    axes.annotate("imports", (0.4, bottom), (0.4, 0.25), ha="center", arrowprops={"arrowstyle": "->"})
    axes.set(xlim=(0, WIDTH), ylim=(bottom - 0.1, HEIGHT + 0.1))
    axes.axis("off")
    figure.savefig(output, dpi=120, bbox_inches="tight")
    pyplot.close(figure)


def _draw_row(axes: Axes, rooms: list[str], y: float, colour: str) -> None:
    width = (WIDTH - MARGIN) / len(rooms)
    for column, room in enumerate(rooms):
        left = MARGIN + column * width
        box = FancyBboxPatch((left, y), width - 0.15, HEIGHT, boxstyle="round,pad=0.02", fc=colour, ec="#666666")
        axes.add_patch(box)
        axes.text(
            left + (width - 0.15) / 2,
            y + HEIGHT / 2,
            room,
            ha="center",
            va="center",
            fontsize=min(10.0, TYPE * width / len(room)),
        )


if __name__ == "__main__":
    draw(
        layers_of(REPOSITORY / "pyproject.toml"),
        Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "docs/images/layers.png",
    )
