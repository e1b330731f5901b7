"""What ``nnUNetv2_train`` is refused with our trainers, before it writes anything."""

from __future__ import annotations

from pathlib import Path

from tiny_data_set import make_tiny_data_set

from bad_inputs.ingredients import spoilt
from bad_inputs.registry import BadInput, Kind


def slices(folder: Path) -> None:
    """The planned data set 940 of slices, and ``unlabelled``."""
    make_tiny_data_set(folder)


def volumes(folder: Path) -> None:
    """The same of volumes, in 3D."""
    make_tiny_data_set(folder, dims=3)


def as_it_is(folder: Path) -> None:
    pass


BAD_INPUTS = [
    BadInput(
        "timm_encoder_in_3d",
        Kind.UNSUPPORTED,
        "a 3D configuration with a trainer whose encoder works in 2D",
        "nnUNetv2_train 940 3d_fullres 0 -tr InfNetPretrainedTrainer -p testPlans -device cpu",
        spoilt(volumes, as_it_is),
        ("cannot train configuration '3d_fullres' of testPlans: its network works in 2D only: train the 2d",),
    ),
    BadInput(
        "collaborative_without_link",
        Kind.UNSUPPORTED,
        "collaborative training of a data set to which nothing is linked",
        "nnUNetv2_train 940 2d 0 -tr CollaborativeTrainer -p testPlans -device cpu",
        spoilt(slices, as_it_is),
        ("CollaborativeTrainer", "nnunet-covid link"),
    ),
]
