"""``convert folder`` on one's own images and masks: names, partners, values."""

from __future__ import annotations

from pathlib import Path

from image_files import blob, write_volume

from bad_inputs.ingredients import pictures, spoilt, volumes
from bad_inputs.registry import BadInput, Kind


def image_without_mask(folder: Path) -> None:
    (folder / "source/masks/b.png").unlink()


def several_values(folder: Path) -> None:
    write_volume(folder / "source/masks/a.nii.gz", blob((6, 20, 30), 0, 2))


BAD_INPUTS = [
    BadInput(
        "folder_image_without_mask",
        Kind.UNUSED,
        "an image without a mask",
        "nnunet-covid convert folder source -o raw",
        spoilt(pictures, image_without_mask),
        ("source/images/b.png: has no mask; add it, or allow missing masks", "--allow-missing-masks"),
    ),
    BadInput(
        "folder_values_without_names",
        Kind.LABELS,
        "masks with two values, and no class named",
        "nnunet-covid convert folder source -o raw --workers 1",
        spoilt(volumes, several_values),
        (
            "the masks of source hold the values 1, 2 (1 in b.nii.gz; 2 in a.nii.gz); name each class NAME=VALUE",
            "--label",
        ),
    ),
]
