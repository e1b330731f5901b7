"""Raw data sets with one volume that cannot be believed, as ``check``, ``link`` and ``pseudo-label`` meet it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import linked
import numpy as np
import odd_volumes
import planned
from image_files import blob, hounsfield, write_volume

from bad_inputs.ingredients import spoilt
from bad_inputs.registry import BadInput, Kind
from bad_inputs.trainers import volumes as planned_volumes
from bad_inputs.volume_headers import REMEDY, SHEARED, UPRIGHT

IMAGE = hounsfield((4, 8, 8), 0)
MASK = blob((4, 8, 8), 0)
NOT_FINITE = "holds voxels that are no finite numbers; replace them, in a CT by air (-1024)"
LAYERS = "has several values per voxel (layers, or colours); export one value per voxel"
PSEUDO = "nnunet-covid pseudo-label 940 3d_fullres 0 -i unlabelled -tr nnUNetTrainer -p testPlans --strategy random"
CHECKED = Path("nnUNet_raw/Dataset701_Odd")
LINKED = Path("nnUNet_raw/Dataset602_Effusion")


def packed(write: Callable[[Path], object]) -> Callable[[Path], None]:
    """The same, of a file that ends in .nii, compressed."""

    def make(path: Path) -> None:
        plain = path.with_name(path.name.removesuffix(".gz"))
        write(plain)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()

    return make


def nifti(array: np.ndarray, **fields: object) -> Callable[[Path], None]:
    return packed(lambda path: odd_volumes.nifti(path, array, **fields))


def with_a_nan(path: Path) -> None:
    array = IMAGE.astype(np.float32)
    array[1, 2, 3] = np.nan
    write_volume(path, array)


def layers(path: Path) -> None:
    odd_volumes.layered(path, MASK, MASK)


def phases(path: Path) -> None:
    odd_volumes.meta_image(path, np.stack([IMAGE, IMAGE]))


def without_size(path: Path) -> None:
    odd_volumes.meta_image(path, IMAGE, ElementSpacing=None)


def sheared_nrrd(path: Path) -> None:
    odd_volumes.nrrd(path, MASK, space_directions="(6,0,0) (0,6,0) (0,1.6,6)")


def data_set(file: str, spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """A raw data set of cases a and b, of which one file is spoilt."""
    ending = file[file.index(".") :]

    def make(folder: Path) -> None:
        for name in "ab":
            write_volume(folder / CHECKED / f"imagesTr/{name}_0000{ending}", IMAGE)
            write_volume(folder / CHECKED / f"labelsTr/{name}{ending}", MASK)
        description = {**planned.dataset_json(), "channel_names": {"0": "CT"}, "file_ending": ending, "numTraining": 2}
        (folder / CHECKED / "dataset.json").write_text(json.dumps(description))
        spoil(folder / CHECKED / file)

    return make


def to_be_linked(folder: Path) -> None:
    """The planned COVID data set 601 and the data set 602 of another disease."""
    linked.write_volumes(folder / "nnUNet_raw", "Dataset602_Effusion")
    (folder / "nnUNet_preprocessed").mkdir()
    linked.write_covid(folder / "nnUNet_preprocessed", linked.covid_plans(dims=3, slices=False))


def listing_nothing(folder: Path) -> None:
    path = folder / LINKED / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "dataset": {}}), encoding="utf-8")


def checked(name: str, kind: Kind, situation: str, file: str, spoil: Callable[[Path], object], *says: str) -> BadInput:
    made = data_set(file, spoil)
    return BadInput(f"checked_{name}", kind, situation, "nnunet-covid check 701", made, (f"{CHECKED}/{file}", *says))


def to_link(name: str, kind: Kind, situation: str, file: str, spoil: Callable[[Path], object], *says: str) -> BadInput:
    make = spoilt(to_be_linked, lambda folder: spoil(folder / LINKED / file))
    command = "nnunet-covid link -d 601 -np 1 -a 602"
    return BadInput(f"linked_{name}", kind, situation, command, make, (f"{LINKED}/{file}", *says))


def to_label(name: str, kind: Kind, situation: str, spoil: Callable[[Path], object], *says: str) -> BadInput:
    file = "unlabelled/un_0_0000.nii.gz"
    make = spoilt(planned_volumes, lambda folder: spoil(folder / file))
    return BadInput(f"unlabelled_{name}", kind, situation, f"{PSEUDO} -device cpu", make, (file, *says))


ODD, UNITS, UNUSED = Kind.DAMAGED, Kind.UNITS, Kind.UNUSED
IMAGE_B, LABEL_B = "imagesTr/b_0000", "labelsTr/b"

BAD_INPUTS = [
    BadInput(
        "link_removed_of_no_configuration",
        Kind.OPTIONS,
        "links of a configuration that the plans lack",
        "nnunet-covid link -d 601 --remove -c nonsense",
        to_be_linked,
        ("nnUNetPlans has no configuration 'nonsense'; it has",),
    ),
    BadInput(
        "link_removed_by_lesions",
        Kind.OPTIONS,
        "links to be removed by their lesions",
        "nnunet-covid link -d 601 --remove --lesions tumour",
        to_be_linked,
        ("--remove has no use for --lesions; leave it out",),
    ),
    checked("size_missing", UNITS, "an image without voxel size", f"{IMAGE_B}.mha", without_size, REMEDY),
    checked("sheared", UNITS, "a sheared label map", f"{LABEL_B}.nrrd", sheared_nrrd, UPRIGHT),
    checked("layers", UNUSED, "a label map with layers", f"{LABEL_B}.nrrd", layers, LAYERS),
    checked("phases", UNUSED, "an image with two phases", f"{IMAGE_B}.mha", phases, "holds 2 volumes; export one"),
    checked("nan", ODD, "a voxel that is no number", f"{IMAGE_B}.nii.gz", with_a_nan, NOT_FINITE),
    *(
        BadInput(
            f"{command.split()[0]}_listing_nothing",
            UNUSED,
            "a data set whose dataset.json lists its cases, and there are none",
            f"nnunet-covid {command}",
            spoilt(to_be_linked, listing_nothing),
            (f"{LINKED} is no raw", "'dataset' in dataset.json lists no cases", "or leave it out to take all"),
        )
        for command in ("link -d 601 -np 1 -a 602", "guide 602 --maps-from reference")
    ),
    to_link("nan", ODD, "a voxel that is no number", "imagesTr/case0_0000.nii.gz", with_a_nan, NOT_FINITE),
    to_link(
        "size_zero",
        UNITS,
        "a label map with a voxel size of 0",
        "labelsTr/case1.nii.gz",
        nifti(MASK, pixdim_1=0.0),
        "0 (field pixdim, axis 1)",
        REMEDY,
    ),
    to_label("nan", ODD, "a voxel that is no number", with_a_nan, NOT_FINITE),
    to_label("sheared", UNITS, "a sheared image", nifti(IMAGE, srow=SHEARED), UPRIGHT),
    to_label("size_zero", UNITS, "a voxel size of 0", nifti(IMAGE, pixdim_2=0.0), "0 (field pixdim, axis 2)", REMEDY),
]
