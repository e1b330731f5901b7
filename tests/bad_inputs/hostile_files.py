"""Files made to do harm: headers that ask for terabytes, checkpoints with code, names that lead out of their folder."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from image_files import blob, write_dicom_series, write_picture, write_volume
from odd_volumes import claiming_more

from bad_inputs import predicted_folders
from bad_inputs.ingredients import spoilt
from bad_inputs.predicted_folders import MODEL, WEIGHTS
from bad_inputs.raw_data_sets import to_be_linked
from bad_inputs.registry import BadInput, Kind
from bad_inputs.trainers import slices

VOXELS = np.zeros((8, 64, 64), np.int16)
PROMISE = "promises 30000×30000×30000 voxels"
AGAIN = "copy or export it again"


def promising(name: str) -> Callable[[Path], None]:
    """A volume of a few bytes with the header of terabytes."""

    def make(folder: Path) -> None:
        write_volume(folder / name, VOXELS)
        claiming_more(folder / name)

    return make


def scored(part: str) -> Callable[[Path], None]:
    """Predictions and references of one case, one of them promising too much."""

    def make(folder: Path) -> None:
        for side in ("predictions", "references"):
            write_volume(folder / f"{side}/a.nii.gz", blob((8, 64, 64), 0))
        claiming_more(folder / f"{part}/a.nii.gz")

    return make


def tiff(folder: Path) -> None:
    import tifffile

    (folder / "source/images").mkdir(parents=True)
    tifffile.imwrite(folder / "source/images/a.tif", VOXELS)
    with tifffile.TiffFile(folder / "source/images/a.tif", mode="r+b") as file:
        file.pages[0].tags["ImageWidth"].overwrite(2**30)


def png(folder: Path) -> None:
    """A header of 60000×60000 pixels before the pixels of a small picture."""
    path = folder / "source/images/a.png"
    write_picture(path, np.zeros((20, 30), np.uint8))
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">2I", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


def dicom(folder: Path) -> None:
    write_dicom_series(folder / "source/images/a", VOXELS)
    for path in (folder / "source/images/a").iterdir():
        content = path.read_bytes()
        rows = b"\x28\x00\x10\x00\x02\x00\x00\x00"
        path.write_bytes(content.replace(rows + struct.pack("<H", 64), rows + struct.pack("<H", 65_000)))


class Attack:
    """Unpickled without restriction it makes the folder ``attacked``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def with_code(folder: Path) -> None:
    """A checkpoint whose optimiser is a command."""
    checkpoint = torch.load(folder / WEIGHTS, weights_only=False)
    torch.save({**checkpoint, "optimizer_state": Attack()}, folder / WEIGHTS)


def ending_leads_out(folder: Path) -> None:
    path = folder / "nnUNet_raw/Dataset940_Tiny/dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "file_ending": "/../../x.png"}))


def case_leads_out(folder: Path) -> None:
    path = folder / "nnUNet_raw/Dataset602_Effusion/dataset.json"
    listed = {"../../x": {"images": ["a.png"], "label": "b.png"}}
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "dataset": listed}))


def converted(name: str, situation: str, make: Callable[[Path], None], *says: str) -> BadInput:
    """A folder of one's own with one image."""
    command = "nnunet-covid convert folder source -o raw --workers 1"
    return BadInput(f"hostile_{name}", Kind.HOSTILE, situation, command, make, says)


def endings() -> list[BadInput]:
    """A volume of every ending that promises too much."""
    return [
        converted(
            ending.strip(".").replace(".", "_"),
            f"a {ending} file of a few kilobytes whose header promises terabytes",
            promising(f"source/images/a{ending}"),
            f"a{ending}",
            "65536 of 54000000000000 bytes" if ending == ".mhd" else PROMISE,
            "copy it again" if ending == ".mhd" else AGAIN,
        )
        for ending in (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
    ]


BAD_INPUTS = [
    *endings(),
    converted(
        "tiff",
        "a TIFF whose header promises a picture of 2^30 columns",
        tiff,
        "a.tif",
        "its header promises more pixels",
    ),
    converted("png", "a PNG whose header promises 60000×60000 pixels", png, "a.png"),
    converted(
        "dicom", "a DICOM series whose headers promise 65000 rows", dicom, "a", "is cut short (8192 of 8320000 bytes"
    ),
    *(
        BadInput(
            f"hostile_{part}",
            Kind.HOSTILE,
            f"one of the {part} whose header promises terabytes",
            "nnunet-covid evaluate predictions references --labels infection=1 -o scores",
            scored(part),
            (f"{part}/a.nii.gz", PROMISE, AGAIN),
        )
        for part in ("predictions", "references")
    ),
    BadInput(
        "hostile_checkpoint",
        Kind.HOSTILE,
        "a model of others with code in its checkpoint",
        predicted_folders.COMMAND,
        spoilt(predicted_folders.slices, with_code),
        (MODEL, "it names posix.mkdir, which is no part of a checkpoint and may be an attack"),
    ),
    BadInput(
        "hostile_file_ending",
        Kind.HOSTILE,
        "a data set of others whose file ending leads to another folder",
        "nnunet-covid check nnUNet_raw/Dataset940_Tiny",
        spoilt(slices, ending_leads_out),
        ("dataset.json", "'file_ending' is", "it must be the ending of the images"),
    ),
    BadInput(
        "hostile_case",
        Kind.HOSTILE,
        "a data set of others that lists a case of another folder",
        "nnunet-covid link -d 601 -np 1 -a 602",
        spoilt(to_be_linked, case_leads_out),
        ("'../../x', which leads to another folder",),
    ),
]
