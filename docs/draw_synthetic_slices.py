"""Draw four synthetic slices above their references, in the colours of the reports.

python docs/draw_synthetic_slices.py               writes docs/images/synthetic_slices.png
python docs/draw_synthetic_slices.py OUTPUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.demo.synthetic import synthetic_slice
from nnunet_covid.figures.scan_views import rgb_of
from nnunet_covid.figures.slices import as_rgb, blended, grey_slice

SEEDS = (6, 1, 8, 10)
SIDE = (190, 280)
OPACITY = 0.6


def draw(output: Path) -> None:
    """A column per slice: the image, and the same under ground glass (1) and consolidation (2)."""
    Image.fromarray(np.concatenate([_column(seed) for seed in SEEDS], axis=1)).save(output)


def _column(seed: int) -> NDArray[np.uint8]:
    scan = synthetic_slice(seed)
    plain = as_rgb(grey_slice(scan.hounsfield))
    marked = plain
    for label in (1, 2):
        marked = blended(marked, rgb_of(label - 1), OPACITY, scan.labels == label)
    height, width = SIDE
    return np.concatenate([np.asarray(Image.fromarray(each).resize((width, height))) for each in (plain, marked)])


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("images") / "synthetic_slices.png")
