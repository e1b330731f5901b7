"""What bad DICOM is made of: two cases of one series each, and ways to spoil the first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dicom_files import change, write, write_series
from image_files import blob, hounsfield, write_volume

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.registry import BadInput, Kind

VOLUME = hounsfield((6, 10, 12), 0)
IMAGES = Path("source/images")
CONVERT = "nnunet-covid convert folder source -o raw --workers 1"
LUNGS = "nnunet-covid lung-mask source/images lungs --method threshold"


def good(folder: Path) -> None:
    write_series(folder / IMAGES / "a", VOLUME)
    write_series(folder / IMAGES / "b", VOLUME, series="1.2.33")


def written(ds: Any, place: str) -> Make:
    return lambda folder: write(ds, folder / IMAGES / place)


def changed(place: str, **elements: Any) -> Make:
    def make(folder: Path) -> None:
        for path in sorted((folder / IMAGES).glob(place)):
            change(path, **elements)

    return make


def bytes_of(place: str, new: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> None:
        path = folder / IMAGES / place
        path.write_bytes(new(path.read_bytes() if path.exists() else b""))

    return make


def alone(ds: Any) -> Make:
    """Case a is this one file."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder / IMAGES / "a")
        write(ds, folder / IMAGES / "a/image")

    return make


def entry(name: str, kind: Kind, situation: str, spoil: Make, *says: str, command: str = CONVERT) -> BadInput:
    return BadInput(f"dicom_{name}", kind, situation, command, spoilt(good, spoil), says)


def of_nsclc(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    command = "nnunet-covid convert nsclc-effusion source -o raw --workers 1"
    return BadInput(f"nsclc_{name}", kind, situation, command, spoilt(nsclc, spoil), says)


def nsclc(folder: Path) -> None:
    write_series(folder / "source/LUNG1-005/series", VOLUME)
    write_volume(folder / "source/masks/LUNG1-005_effusion_first_reviewer.nii.gz", blob(VOLUME.shape, 0))
