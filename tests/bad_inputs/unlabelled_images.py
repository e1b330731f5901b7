"""Folders of images under nnU-Net's names for ``link``, ``pseudo-label`` and ``check``: what would not be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import SimpleITK as sitk
from dicom_files import ct_slice, write, write_series
from image_files import hounsfield
from tiny_data_set import make_tiny_data_set

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.registry import BadInput, Kind

VOLUME = hounsfield((4, 10, 12), 0)
LINK = "nnunet-covid link -d 940 -c 2d -p testPlans --unlabelled unlabelled"
ROUNDS = "nnunet-covid pseudo-label 940 2d 0 -i unlabelled -tr InfNetTrainer_1epochs -p testPlans --strategy random"
CHECK = "nnunet-covid check 940"


def slices(folder: Path) -> None:
    """The planned data set 940 of slices, and ``unlabelled``."""
    make_tiny_data_set(folder)


def series_among_them(folder: Path) -> None:
    write_series(folder / "unlabelled/patient7", VOLUME)


def dicom_files(folder: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        write(ct_slice(pixels, number), folder / f"unlabelled/IM{number}")


def packed(folder: Path) -> None:
    (folder / "unlabelled/more.zip").write_bytes(b"PK\3\4")


def other_ending(folder: Path) -> None:
    first = min((folder / "unlabelled").glob("*_0000.*"))
    shutil.copy(first, folder / "unlabelled/extra_0000.nii")


def training_image_of_other_ending(folder: Path) -> None:
    first = min((folder / "nnUNet_raw").glob("Dataset940_*/imagesTr/*_0000.*"))
    shutil.copy(first, first.with_name("extra_0000.nrrd"))


def slices_for_3d(folder: Path) -> None:
    """A planned data set 940 of volumes, and slices in ``unlabelled``."""
    made = make_tiny_data_set(folder, dims=3, size=20)
    for path in made.unlabelled.iterdir():
        sitk.WriteImage(sitk.ReadImage(str(path))[:, :, :1], str(path))


def crossing_regions(folder: Path) -> None:
    labels = {"background": 0, "infection": [1, 3], "effusion": [2, 3]}
    make_tiny_data_set(folder, labels=labels, regions_class_order=[1, 2])


def entry(name: str, situation: str, spoil: Make, command: str, *says: str) -> BadInput:
    return BadInput(f"unlabelled_{name}", Kind.UNUSED, situation, command, spoilt(slices, spoil), says)


IN_3D = {
    "link": LINK.replace("2d", "3d_fullres"),
    "rounds": ROUNDS.replace("2d", "3d_fullres").replace("InfNetTrainer", "nnUNetTrainer"),
    "pretrain": "nnunet-covid pretrain 940 3d_fullres -i unlabelled -p testPlans -device cpu --steps 1",
}
BAD_INPUTS = [
    *(
        BadInput(
            f"unlabelled_slices_in_3d_{name}",
            Kind.UNITS,
            "unlabelled slices for a network that works in 3D",
            command,
            slices_for_3d,
            ("_0000.nii.gz is a slice, but 3d_fullres works in 3D: give volumes, or take 2d",),
        )
        for name, command in IN_3D.items()
    ),
    BadInput(
        "unlabelled_crossing_regions",
        Kind.LABELS,
        "regions that overlap without one lying in the other, which no label map keeps",
        ROUNDS,
        crossing_regions,
        ("label 3 lies in infection and effusion, but a label map keeps it as 2", "lie within one another"),
    ),
    entry(
        "series",
        "a DICOM series among the unlabelled images",
        series_among_them,
        LINK,
        "unlabelled: images here end in .",
        "so patient7 would not be used; bring them to .",
        "by nnunet-covid convert, or take them out",
    ),
    entry(
        "dicom_files",
        "DICOM files among the unlabelled images",
        dicom_files,
        ROUNDS,
        "unlabelled: images here end in .",
        "so IM0, IM1, IM2, IM3 would not be used; bring",
    ),
    entry("packed", "a packed folder among them", packed, LINK, "so more.zip would not be used; bring"),
    entry(
        "other_ending",
        "an unlabelled image of another format than the data set",
        other_ending,
        ROUNDS,
        "so extra_0000.nii would not be used; bring them to .",
    ),
    entry(
        "training_image_of_other_ending",
        "a training image of another format than dataset.json says",
        training_image_of_other_ending,
        CHECK,
        "imagesTr: images here end in .",
        "so extra_0000.nrrd would not be used; bring",
    ),
]
