"""Public data sets of slices, on the example of COVID-SemiSeg: what may be wrong with what was unpacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from image_files import blob, grey, write_picture

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.registry import BadInput, Kind

LABELLED = Path("source/TrainingSet/LungInfection-Train/Doctor-label")
SIZE = (20, 30)


def image(folder: Path, stem: str) -> Path:
    return folder / LABELLED / "Imgs" / f"{stem}.png"


def mask(folder: Path, stem: str) -> Path:
    return folder / LABELLED / "GT" / f"{stem}.png"


def good(folder: Path) -> None:
    for seed, stem in enumerate("0123"):
        write_picture(image(folder, stem), grey(SIZE, seed))
        write_picture(mask(folder, stem), blob(SIZE, seed, 255))


def wrong_size(folder: Path) -> None:
    write_picture(mask(folder, "1"), blob((20, 31), 0, 255))
    write_picture(mask(folder, "3"), blob((19, 30), 0, 255))


def coloured(folder: Path) -> None:
    write_picture(image(folder, "1"), np.dstack([grey(SIZE, i) for i in range(3)]))


def coloured_with_alpha(folder: Path) -> None:
    opaque = np.full(SIZE, 255, dtype=np.uint8)
    write_picture(image(folder, "1"), np.dstack([*(grey(SIZE, i) for i in range(3)), opaque]))


def transparent(folder: Path) -> None:
    write_picture(image(folder, "1"), np.dstack([grey(SIZE, 0)] * 4))


def grey_masks(folder: Path) -> None:
    write_picture(mask(folder, "1"), grey(SIZE, 1))
    write_picture(mask(folder, "3"), blob(SIZE, 1, 254))


def missing_masks(folder: Path) -> None:
    mask(folder, "1").unlink()
    mask(folder, "3").unlink()


def missing_image(folder: Path) -> None:
    image(folder, "3").unlink()


def no_picture(folder: Path) -> None:
    image(folder, "1").write_bytes(b"no picture at all")


def truncated(folder: Path) -> None:
    data = image(folder, "1").read_bytes()
    image(folder, "1").write_bytes(data[: len(data) // 2])


def sixteen_bits(folder: Path) -> None:
    write_picture(image(folder, "1"), grey(SIZE, 1).astype(np.uint16) * 257)


def foreign_file(folder: Path) -> None:
    (folder / LABELLED / "Imgs" / "notes.docx").write_bytes(b"")


def two_of_one_name(folder: Path) -> None:
    write_picture(image(folder, "1").with_suffix(".jpg"), grey(SIZE, 5))


def one_case_twice(folder: Path) -> None:
    write_picture(image(folder, "01"), grey(SIZE, 5))
    write_picture(mask(folder, "01"), blob(SIZE, 5, 255))


def empty_folder(folder: Path) -> None:
    for path in (folder / LABELLED / "Imgs").iterdir():
        path.unlink()


def missing_folder(folder: Path) -> None:
    for path in (folder / LABELLED / "GT").iterdir():
        path.unlink()
    (folder / LABELLED / "GT").rmdir()


def entry(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    command = "nnunet-covid convert covid-semiseg source -o raw --workers 1"
    return BadInput(f"semiseg_{name}", kind, situation, command, spoilt(good, spoil), says)


BAD_INPUTS = [
    entry(
        "masks_of_another_size",
        Kind.DAMAGED,
        "two masks have another size than their images",
        wrong_size,
        "GT/1.png: is 31×20 pixels, its image 1.png 30×20; export",
        "GT/3.png: is 30×19",
    ),
    entry(
        "coloured_image",
        Kind.DAMAGED,
        "a CT slice in colours",
        coloured,
        "Imgs/1.png: red, green and blue differ in",
        "export it with one grey channel",
    ),
    entry(
        "coloured_image_with_alpha",
        Kind.DAMAGED,
        "a CT slice in colours, with an opaque alpha channel",
        coloured_with_alpha,
        "Imgs/1.png: red, green and blue differ in",
    ),
    entry(
        "transparent_image",
        Kind.DAMAGED,
        "a CT slice with transparency",
        transparent,
        "1.png: is partly transparent; export",
    ),
    entry(
        "grey_masks",
        Kind.LABELS,
        "masks with values outside the label table",
        grey_masks,
        "GT/1.png: mask holds",
        "GT/3.png: mask holds 1 values",
        "(254; allowed: 0, 255); export",
    ),
    entry(
        "missing_masks",
        Kind.UNUSED,
        "images without a mask",
        missing_masks,
        "Imgs/1.png: has no mask",
        "Imgs/3.png: has no mask",
        "add 3.* there",
    ),
    entry(
        "missing_image",
        Kind.UNUSED,
        "a mask without an image",
        missing_image,
        "GT/3.png: is a mask without an image; add",
    ),
    entry(
        "no_picture",
        Kind.DAMAGED,
        "a text under the name of a picture",
        no_picture,
        "Imgs/1.png: not a readable picture",
        "download or export it again",
    ),
    entry("truncated_picture", Kind.DAMAGED, "a picture cut in half", truncated, "Imgs/1.png: not a readable picture"),
    entry(
        "sixteen_bits",
        Kind.UNITS,
        "a picture of 16 bits",
        sixteen_bits,
        "Imgs/1.png: I;16 pixels, expected 8 bits",
        "export it as 8 bit",
    ),
    entry(
        "foreign_file",
        Kind.UNUSED,
        "a document among the images",
        foreign_file,
        "Imgs/notes.docx: is none of",
        "move it out",
    ),
    entry(
        "two_of_one_name",
        Kind.NAMES,
        "two images of one name, .png and .jpg",
        two_of_one_name,
        "has the same name as 1.jpg; keep one of them",
    ),
    entry(
        "one_case_twice",
        Kind.NAMES,
        "1.png and 01.png",
        one_case_twice,
        "would become the case covidsemiseg_001",
        "rename one of them",
    ),
    entry(
        "empty_folder",
        Kind.UNUSED,
        "the folder of images is empty",
        empty_folder,
        "Doctor-label/Imgs: folder holds no .png",
        "GT/1.png: is a mask without an image",
    ),
    entry(
        "missing_folder",
        Kind.UNUSED,
        "the folder of masks is missing",
        missing_folder,
        "Doctor-label/GT: folder is missing; unpack",
        "Imgs/3.png: has no mask",
    ),
]
BAD_INPUTS += [
    BadInput(
        "source_is_missing",
        Kind.PLACES,
        "a source that does not exist",
        "nnunet-covid convert covid-semiseg source -o raw",
        lambda folder: None,
        ("source is not a folder; give the folder into which the data set was unpacked",),
    ),
    BadInput(
        "source_is_empty",
        Kind.PLACES,
        "an empty source",
        "nnunet-covid convert covid-semiseg source -o raw",
        lambda folder: (folder / "source").mkdir(),
        ("source is empty; expected there: TrainingSet/",),
    ),
    BadInput(
        "source_is_another",
        Kind.PLACES,
        "a source that is not this data set",
        "nnunet-covid convert covid-semiseg source -o raw",
        lambda folder: (folder / "source/other").mkdir(parents=True),
        ("holds no TrainingSet/LungInfection-Train; expected",),
    ),
    BadInput(
        "unknown_data_set",
        Kind.OPTIONS,
        "a data set without a converter",
        "nnunet-covid convert nothing source",
        lambda folder: None,
        ("no converter is called 'nothing'",),
    ),
]
