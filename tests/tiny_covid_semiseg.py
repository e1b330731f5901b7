"""The smallest synthetic COVID-SemiSeg data set that every step of the pipeline can work on."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid.demo.chest import Chest, SyntheticCT
from nnunet_covid.demo.covid_semiseg import write_covid_semiseg
from nnunet_covid.demo.synthetic import grid, infected_level


def write_tiny_covid_semiseg(
    folder: Path, *, training: int = 8, test: int = 2, unlabelled: int = 2, size: int = 96, seed: int = 0
) -> Path:
    """Write slices of ``size`` rows and columns, with both kinds of files for the converters 501 and 502."""
    counts = {"training": training, "test": test, "unlabelled": unlabelled}
    return write_covid_semiseg(folder, **counts, seed=seed, make_slice=lambda s: square_slice(s, size=size))


def square_slice(seed: int, *, size: int, field: float = 330.0) -> SyntheticCT:
    """A square slice through a lesion with the whole chest, ``field`` mm wide, in it."""
    chest, pixel = Chest(seed), field / size
    return chest.slice(grid(size, pixel), grid(size, pixel, 8.0), infected_level(chest))
