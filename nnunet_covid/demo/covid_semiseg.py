"""Synthetic slices in the folders of the COVID-SemiSeg download, and synthetic volumes as NIfTI.

So that the demo and the tests go the way of a user's own data: through the converter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from nnunet_covid.demo.chest import CONSOLIDATION, GROUND_GLASS, Chest, CTSlice
from nnunet_covid.demo.hounsfield import to_grey
from nnunet_covid.demo.synthetic import CTVolume, lung_box_slice, square_slice, synthetic_slice

COLOURS = {GROUND_GLASS: (128, 0, 0), CONSOLIDATION: (0, 128, 0)}
"""Of the multi-class references, RGB."""
TRAINING = "TrainingSet/LungInfection-Train/Doctor-label"
UNLABELLED = "TrainingSet/LungInfection-Train/Pseudo-label"
TEST = "TestingSet/LungInfection-Test"
MULTI_CLASS = ("TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test")

PEOPLE_PER_SET = 100_000
NOTICE = """These slices are synthetic: drawn by nnunet_covid, seed {seed}. They show no patient and are not part of
the COVID-SemiSeg data set, whose folders and file names they only share.
"""

MakeSlice = Callable[[int], CTSlice]
"""Seed to slice."""
Tell = Callable[[int, int], None]
"""Receives the number of slices made and of all."""


def write_covid_semiseg(
    folder: Path,
    *,
    training: int = 24,
    test: int = 8,
    unlabelled: int = 8,
    seed: int = 0,
    pixel: float = 1.3,
    make_slice: MakeSlice | None = None,
    tell: Tell | None = None,
) -> Path:
    """Write a synthetic data set in the layout of COVID-SemiSeg, multi-class references included.

    Every labelled slice is another person's; of each person without labels there are four. Labelled files are
    numbered from 1 on, training before test.

    Args:
        folder: Receives ``TrainingSet`` and ``TestingSet``.
        training, test, unlabelled: How many slices of each kind.
        seed: Of the whole set: two sets with different seeds share no slice.
        pixel: Mean size of a pixel, mm; it varies by a tenth, and the sizes of the pictures with it.
        make_slice: Makes the labelled slice of a seed; for other slices than the demo's.
        tell: Receives the progress.

    Returns:
        The folder.
    """
    make = make_slice or (lambda s: _slice_of_varied_size(s, pixel))
    labelled, total = training + test, training + test + unlabelled
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(NOTICE.format(seed=seed), encoding="utf-8")
    for i in range(labelled):
        part = TRAINING if i < training else TEST
        scan = make(PEOPLE_PER_SET * seed + i)
        _write_labelled(folder / part, folder / MULTI_CLASS[i >= training], str(i + 1), scan)
        if tell is not None:
            tell(i + 1, total)
    for i in range(0, unlabelled, 4):
        chest = Chest.draw(PEOPLE_PER_SET * seed + labelled + i // 4, branches=300)
        for k in range(min(4, unlabelled - i)):
            grey = to_grey(lung_box_slice(chest, (0.3 + 0.15 * k) * chest.anatomy.height, pixel=pixel).hounsfield)
            name = f"Data-1_synthetic_{i // 4 + 1:03d}_{30 + 15 * k}.jpg"
            _write_picture(folder / UNLABELLED / "Imgs" / name, grey)
            if tell is not None:
                tell(labelled + i + k + 1, total)
    return folder


def write_tiny_covid_semiseg(
    folder: Path, *, training: int = 8, test: int = 2, unlabelled: int = 2, size: int = 96, seed: int = 0
) -> Path:
    """The smallest data set that every step of the pipeline can work on; made in about a second.

    ``write_tiny_covid_semiseg(tmp_path)`` gives 8 training, 2 test and 2 unlabelled slices of 96×96 pixels in the
    layout of COVID-SemiSeg, all with both kinds of files for the converters 501 and 502.

    Args:
        folder: Receives ``TrainingSet`` and ``TestingSet``.
        training, test, unlabelled: How many slices of each kind.
        size: Rows and columns.
        seed: Of the whole set.

    Returns:
        The folder.
    """
    return write_covid_semiseg(
        folder,
        training=training,
        test=test,
        unlabelled=unlabelled,
        seed=seed,
        make_slice=lambda s: square_slice(s, size=size, branches=60),
    )


def write_nifti(folder: Path, name: str, volume: CTVolume) -> tuple[Path, Path, Path]:
    """Write a volume as ``NAME_ct``, ``NAME_seg`` and ``NAME_lungs``, each ``.nii.gz``.

    Returns:
        The three files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, array in (
        ("ct", np.rint(volume.hounsfield).astype(np.int16)),
        ("seg", volume.labels),
        ("lungs", volume.lungs),
    ):
        image = sitk.GetImageFromArray(array[::-1].copy())  # files count slices from the feet
        image.SetSpacing(tuple(reversed(volume.spacing)))
        path = folder / f"{name}_{suffix}.nii.gz"
        sitk.WriteImage(image, str(path))
        written.append(path)
    return written[0], written[1], written[2]


def edge_of(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Morphological gradient of a mask over 3×3 pixels."""
    return maximum_filter(mask, size=3) - minimum_filter(mask, size=3)


def colour_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Labels as the colours of the multi-class references, (rows, columns, 3)."""
    table = np.zeros((3, 3), dtype=np.uint8)
    for label, colour in COLOURS.items():
        table[label] = colour
    return table[labels]


def _slice_of_varied_size(seed: int, pixel: float) -> CTSlice:
    factor = np.random.default_rng([seed, 0x51]).uniform(0.9, 1.1)
    return synthetic_slice(seed, pixel=pixel * factor)


def _write_labelled(binary: Path, multi_class: Path, name: str, scan: CTSlice) -> None:
    grey = to_grey(scan.hounsfield)
    mask = scan.infection * np.uint8(255)
    _write_picture(binary / "Imgs" / f"{name}.jpg", grey)
    _write_picture(binary / "GT" / f"{name}.png", mask)
    if "Doctor-label" in binary.parts:
        _write_picture(binary / "Edge" / f"{name}.png", edge_of(mask))
    _write_picture(multi_class / "Imgs" / f"{name}.jpg", grey)
    _write_picture(multi_class / "GT" / f"{name}.png", colour_labels(scan.labels))
    _write_picture(multi_class / "Prior" / f"{name}.png", mask)


def _write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)  # PNG passes over the quality
