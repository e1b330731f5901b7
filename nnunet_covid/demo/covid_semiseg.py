"""Synthetic slices in the folders of the COVID-SemiSeg download, and synthetic volumes as NIfTI.

So that the demo and the tests go the way of a user's own data: through the converter.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from nnunet_covid.demo.chest import Chest, SyntheticCT
from nnunet_covid.demo.synthetic import lung_box_slice, square_slice, synthetic_slice
from nnunet_covid.raw_dataset.scan import to_8_bit

COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], dtype=np.uint8)
"""Of background, ground glass and consolidation in the multi-class references, RGB."""
WINDOW = (-1250.0, 250.0)
"""Lower and upper end of the lung window of the public COVID-19 sets, HU."""
TRAINING = "TrainingSet/LungInfection-Train/Doctor-label"
UNLABELLED = "TrainingSet/LungInfection-Train/Pseudo-label"
TEST = "TestingSet/LungInfection-Test"
MULTI_CLASS = ("TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test")

PEOPLE_PER_SET = 100_000
NOTICE = """These slices are synthetic: drawn by nnunet_covid, seed {seed}. They show no patient and are not part of
the COVID-SemiSeg data set, whose folders and file names they only share.
"""


def write_covid_semiseg(
    folder: Path,
    *,
    training: int = 24,
    test: int = 8,
    unlabelled: int = 8,
    seed: int = 0,
    pixel: float = 1.3,
    make_slice: Callable[[int], SyntheticCT] | None = None,
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

    Returns:
        The folder.
    """
    make = make_slice or (
        lambda s: synthetic_slice(s, pixel=pixel * np.random.default_rng([s, 0x51]).uniform(0.9, 1.1))
    )
    first = PEOPLE_PER_SET * seed
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.txt").write_text(NOTICE.format(seed=seed), encoding="utf-8")
    for i in range(training + test):
        part = TRAINING if i < training else TEST
        _write_labelled(folder / part, folder / MULTI_CLASS[i >= training], str(i + 1), make(first + i))
    for i in range(unlabelled):
        person, k = divmod(i, 4)
        chest = Chest(first + training + test + person)
        scan = lung_box_slice(chest, (0.3 + 0.15 * k) * chest.height, pixel=pixel)
        name = f"Data-1_synthetic_{person + 1:03d}_{30 + 15 * k}.jpg"
        _write_picture(folder / UNLABELLED / "Imgs" / name, to_8_bit(scan.hounsfield, *WINDOW))
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
    counts = {"training": training, "test": test, "unlabelled": unlabelled}
    return write_covid_semiseg(folder, **counts, seed=seed, make_slice=lambda s: square_slice(s, size=size))


def write_nifti(folder: Path, name: str, volume: SyntheticCT) -> tuple[Path, Path, Path]:
    """Write a volume as ``NAME_ct``, ``NAME_seg`` and ``NAME_lungs``, each ``.nii.gz``.

    Returns:
        The three files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[Any]] = {
        "ct": np.rint(volume.hounsfield).astype(np.int16),
        "seg": volume.labels,
        "lungs": volume.lungs,
    }
    for suffix, array in arrays.items():
        image = sitk.GetImageFromArray(array[::-1].copy())  # files count slices from the feet
        image.SetSpacing(volume.spacing[::-1])
        sitk.WriteImage(image, str(folder / f"{name}_{suffix}.nii.gz"))
    ct, seg, lungs = (folder / f"{name}_{suffix}.nii.gz" for suffix in arrays)
    return ct, seg, lungs


def edge_of(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Morphological gradient of a mask over 3×3 pixels."""
    return maximum_filter(mask, size=3) - minimum_filter(mask, size=3)


def _write_labelled(binary: Path, multi_class: Path, name: str, scan: SyntheticCT) -> None:
    mask = scan.infection * np.uint8(255)
    pictures = {
        binary / "Imgs" / f"{name}.jpg": to_8_bit(scan.hounsfield, *WINDOW),
        binary / "GT" / f"{name}.png": mask,
        multi_class / "Imgs" / f"{name}.jpg": to_8_bit(scan.hounsfield, *WINDOW),
        multi_class / "GT" / f"{name}.png": COLOURS[scan.labels],
        multi_class / "Prior" / f"{name}.png": mask,
    }
    if "Doctor-label" in binary.parts:
        pictures[binary / "Edge" / f"{name}.png"] = edge_of(mask)
    for path, pixels in pictures.items():
        _write_picture(path, pixels)


def _write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)  # PNG passes over the quality
