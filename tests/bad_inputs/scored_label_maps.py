"""Label maps that ``evaluate`` cannot score: their grid is not known, or they are no single label map."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import odd_volumes
from image_files import blob, write_picture, write_volume

from bad_inputs.registry import BadInput, Kind
from bad_inputs.volume_headers import REMEDY, SHEARED, UPRIGHT, meta_image, nifti, nrrd

MASK = blob((4, 8, 8), 0)
EVALUATE = "nnunet-covid evaluate predicted reference --labels infection=1 --quiet"


def with_a_nan(path: Path) -> None:
    array = MASK.astype(np.float32)
    array[0, 0, 0] = np.nan
    write_volume(path, array)


def layers_and_one(folder: Path) -> None:
    odd_volumes.layered(folder / "predicted/a.nrrd", MASK, MASK)
    write_volume(folder / "reference/a.nrrd", MASK, spacing=odd_volumes.SPACING)


def blank_reference(folder: Path) -> None:
    write_volume(folder / "predicted/a.nii.gz", MASK)
    write_volume(folder / "reference/a.nii.gz", MASK, spacing=(1, 1, 1), origin=(0, 0, 0))


def named(**files: str) -> Callable[[Path], None]:
    """Label maps a and b in both folders, then some of them under other names: ``predicted_b="b.PNG"``."""

    def make(folder: Path) -> None:
        for part in ("predicted", "reference"):
            for name in ("a.png", "b.png"):
                write_picture(folder / part / name, blob((8, 8), 0))
        for old, new in files.items():
            path = folder / f"{old.replace('_', '/')}.png"
            path.rename(path.with_name(new))

    return make


def pair_of(name: str, situation: str, kind: Kind, make: Callable[[Path], None], *says: str) -> BadInput:
    return BadInput(f"scored_{name}", kind, situation, EVALUATE, make, says)


def nothing_wrong(folder: Path) -> None:
    named()(folder)


def damaged(content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        named()(folder)
        (folder / "predicted/a.png").write_bytes(content)

    return make


def with_transparency(folder: Path) -> None:
    named()(folder)
    write_picture(folder / "predicted/a.png", np.dstack([blob((8, 8), 0), np.full((8, 8), 255, np.uint8)]))


def link_to_nothing(folder: Path) -> None:
    named()(folder)
    (folder / "predicted/a.png").unlink()
    (folder / "predicted/a.png").symlink_to("gone.png")


def described_otherwise(folder: Path) -> None:
    named()(folder)
    for part, labels in (("predicted", {"a": 1, "b": 2}), ("reference", {"b": 1, "a": 2})):
        content = {"labels": {"background": 0, **labels}, "file_ending": ".png"}
        (folder / part / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


def scored(name: str, situation: str, file: str, write: Callable[[Path], None], *says: str) -> BadInput:
    """A prediction and a reference that are the same file."""

    def make(folder: Path) -> None:
        for part in ("predicted", "reference"):
            write(folder / part / file)

    return BadInput(f"scored_{name}", Kind.UNITS, situation, EVALUATE, make, (f"predicted/{file}", *says))


BAD_INPUTS = [
    scored(
        "size_zero",
        "a voxel size of 0 in label maps",
        "a.nii",
        nifti(MASK, pixdim_3=0.0),
        "0 (field pixdim, axis 3)",
        REMEDY,
    ),
    scored("sheared", "sheared label maps", "a.nii", nifti(MASK, srow=SHEARED), UPRIGHT),
    scored(
        "sheared_nrrd",
        "sheared label maps as NRRD",
        "a.nrrd",
        nrrd(MASK, space_directions="(6,0,0) (0,6,0) (0,1.6,6)"),
        UPRIGHT,
    ),
    scored(
        "size_missing",
        "label maps without voxel size",
        "a.mha",
        meta_image(MASK, ElementSpacing=None),
        "names no voxel size",
        REMEDY,
    ),
    scored(
        "layers",
        "layers in label maps",
        "a.nrrd",
        lambda path: odd_volumes.layered(path, MASK, MASK),
        "several values per voxel (layers, or colours); export one value",
    ),
    scored(
        "four_axes",
        "label maps with two phases",
        "a.mha",
        meta_image(np.stack([MASK, MASK])),
        "holds 2 volumes; export one of them",
    ),
    scored(
        "complex",
        "complex label maps",
        "a.nii",
        nifti(MASK.astype(np.float64), datatype=32),
        "holds complex numbers; export one real value per voxel",
    ),
    scored("nan", "a label map with a value that is no number", "a.nii.gz", with_a_nan, "no finite numbers"),
    BadInput(
        "scored_layers_and_one",
        Kind.UNUSED,
        "layers in the predictions alone",
        EVALUATE + " --no-distances",
        layers_and_one,
        ("predicted/a.nrrd: has several values per voxel (layers, or colours); export one value",),
    ),
    BadInput(
        "scored_blank_reference",
        Kind.UNITS,
        "references with a blank header",
        EVALUATE,
        blank_reference,
        ("a: spacing (2.5, 0.7, 0.8) of the prediction differs", "copy the reference's header"),
    ),
    pair_of(
        "capitals",
        "label maps of one case whose names end in .PNG",
        Kind.UNUSED,
        named(predicted_b="b.PNG", reference_b="b.PNG"),
        "predicted holds b.PNG; reference holds b.PNG; bring all label maps to the ending '.png', capitals count",
    ),
    pair_of(
        "capitals_of_one",
        "a prediction whose name ends in .PNG",
        Kind.UNUSED,
        named(predicted_b="b.PNG"),
        "b missing in predicted; predicted holds b.PNG; bring all",
    ),
    pair_of(
        "missing",
        "a reference without a prediction",
        Kind.UNUSED,
        lambda folder: (named()(folder), (folder / "predicted/b.png").unlink()),
        "b missing in predicted; add them, or take the others out",
    ),
    pair_of(
        "cut", "a label map that is empty", Kind.DAMAGED, damaged(b""), "predicted/a.png", "copy or export it again"
    ),
    pair_of(
        "transparency",
        "a label map in grey with transparency",
        Kind.LABELS,
        with_transparency,
        "predicted/a.png: holds grey values with transparency; save it in grey alone",
    ),
    pair_of(
        "link",
        "a label map that is a link to nothing",
        Kind.DAMAGED,
        link_to_nothing,
        "predicted/a.png: is a link to a file that is not there; copy the file itself here",
    ),
    BadInput(
        "scored_tolerance",
        Kind.OPTIONS,
        "a tolerance without end",
        EVALUATE + " --tolerance inf",
        named(),
        ("the tolerance must be finite and not negative, it is inf",),
    ),
    BadInput(
        "scored_exchanged_labels",
        Kind.LABELS,
        "a model with the values of two labels exchanged",
        "nnunet-covid evaluate predicted reference --quiet",
        described_otherwise,
        (
            "'a' is 1 in predicted/dataset.json, and 2 in reference/dataset.json; name the file that is right for both",
            "(--dataset-json)",
        ),
    ),
    BadInput(
        "scored_output_is_input",
        Kind.OPTIONS,
        "the folder of predictions as that for tables and plots",
        f"{EVALUATE} -o predicted",
        nothing_wrong,
        ("predicted is read, too: tables and plots there would be taken for its own files; name another output",),
    ),
]
