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
from scipy.ndimage import morphological_gradient

from nnunet_covid.demo.chest import Chest, SyntheticCT
from nnunet_covid.demo.synthetic import lung_box_slice, synthetic_slice
from nnunet_covid.figures.slices import LUNG_WINDOW
from nnunet_covid.raw_dataset.scan import to_8_bit
from nnunet_covid.whole_volumes import write_volume

COLOURS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)], dtype=np.uint8)
"""Of background, ground glass and consolidation in the multi-class references, RGB."""
TRAINING = "TrainingSet/LungInfection-Train/Doctor-label"
UNLABELLED = "TrainingSet/LungInfection-Train/Pseudo-label"
TEST = "TestingSet/LungInfection-Test"
MULTI_CLASS = ("TrainingSet/MultiClassInfection-Train", "TestingSet/MultiClassInfection-Test")

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
        folder: Receives ``TrainingSet`` and ``TestingSet``; returned.
        training, test, unlabelled: How many slices of each kind.
        seed: Of the whole set: two sets with different seeds share no slice.
        pixel: Mean size of a pixel, mm; it varies by a tenth, and the sizes of the pictures with it.
        make_slice: Makes the labelled slice of a seed; for other slices than the demo's.
    """

    def demo_slice(person: int) -> SyntheticCT:
        return synthetic_slice(person, pixel=pixel * np.random.default_rng([person, 0x51]).uniform(0.9, 1.1))

    make = make_slice or demo_slice
    first = 100_000 * seed  # people per set
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
        _write_picture(folder / UNLABELLED / "Imgs" / name, to_8_bit(scan.hounsfield, *LUNG_WINDOW))
    return folder


def write_nifti(folder: Path, name: str, volume: SyntheticCT) -> tuple[Path, Path, Path]:
    """Write a volume as ``NAME_ct``, ``NAME_seg`` and ``NAME_lungs``, each ``.nii.gz``; returns the three files."""
    folder.mkdir(parents=True, exist_ok=True)
    ct, seg, lungs = (folder / f"{name}_{suffix}.nii.gz" for suffix in ("ct", "seg", "lungs"))
    arrays: dict[Path, NDArray[Any]] = {
        ct: np.rint(volume.hounsfield).astype(np.int16),
        seg: volume.labels,
        lungs: volume.lungs,
    }
    for path, array in arrays.items():
        image = sitk.GetImageFromArray(array[::-1].copy())  # files count slices from the feet
        image.SetSpacing(volume.spacing[::-1])
        write_volume(image, path)
    return ct, seg, lungs


def _write_labelled(binary: Path, multi_class: Path, name: str, scan: SyntheticCT) -> None:
    image, mask = to_8_bit(scan.hounsfield, *LUNG_WINDOW), scan.infection * np.uint8(255)
    for folder, reference in ((binary, mask), (multi_class, COLOURS[scan.labels])):
        _write_picture(folder / "Imgs" / f"{name}.jpg", image)
        _write_picture(folder / "GT" / f"{name}.png", reference)
    _write_picture(multi_class / "Prior" / f"{name}.png", mask)
    if "Doctor-label" in binary.parts:
        _write_picture(binary / "Edge" / f"{name}.png", morphological_gradient(mask, size=3))


def _write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)  # PNG passes over the quality
