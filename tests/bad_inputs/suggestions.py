"""What ``nnunet-covid suggest`` is refused."""

from __future__ import annotations

from pathlib import Path

from image_files import grey, write_picture

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.predicted_folders import MODEL, slices
from bad_inputs.registry import BadInput, Kind

COMMAND = f"nnunet-covid suggest {MODEL} -i images -n 2 -device cpu"


def nothing(folder: Path) -> None:
    pass


def only_copies(folder: Path) -> None:
    write_picture(folder / "images/b_0000.png", grey((30, 34), 0))


def another_format(folder: Path) -> None:
    (folder / "labelled").mkdir()
    (folder / "labelled/a_0000.nii.gz").write_bytes(b"")


def colours(folder: Path) -> None:
    write_picture(folder / "images/c_0000.png", grey((30, 34, 3), 0))


def damaged_record(folder: Path) -> None:
    (folder / "conversion.json").write_text("{")


def file_in_the_way(folder: Path) -> None:
    (folder / "suggestions").write_text("in the way")


def damaged_record_of_others(folder: Path) -> None:
    write_picture(folder / "labelled/images/x_0000.png", grey((30, 34), 9))
    (folder / "labelled/conversion.json").write_text("{")


def entry(name: str, kind: Kind, situation: str, spoil: Make, command: str, *says: str) -> BadInput:
    return BadInput(f"suggest_{name}", kind, situation, command, spoilt(slices, spoil), says)


BAD_INPUTS = [
    entry("none", Kind.OPTIONS, "no image asked for", nothing, f"{COMMAND} -n 0", "0 images are none to choose"),
    entry("seed", Kind.OPTIONS, "a negative seed", nothing, f"{COMMAND} --random --seed -1", "a seed must be 0 or"),
    entry(
        "more_than_there",
        Kind.OPTIONS,
        "more images asked for than there are",
        nothing,
        f"{COMMAND} -n 20",
        "images: 20 images are asked for, 2 are there",
    ),
    entry(
        "copies",
        Kind.UNUSED,
        "copies of an image, of which one is to be labelled",
        only_copies,
        COMMAND,
        "1 image(s) are left out because they are known already (b = a of the same folder)",
        "images: 2 images are asked for, 1 are there",
    ),
    entry(
        "nothing_to_compare",
        Kind.OPTIONS,
        "one fold without mirroring",
        nothing,
        f"{COMMAND} --disable_tta",
        "one fold without mirroring gives one prediction, and nothing to compare it with; use more folds, or mirroring",
    ),
    entry(
        "leave_out_missing",
        Kind.PLACES,
        "a folder of labelled images that is not there",
        nothing,
        f"{COMMAND} --leave-out labelled",
        "labelled is no folder; give the folder that holds the images",
    ),
    entry(
        "leave_out_of_other_format",
        Kind.UNUSED,
        "labelled images of another format than the model's",
        another_format,
        f"{COMMAND} --leave-out labelled",
        "labelled holds no image that ends in .png",
    ),
    BadInput(
        "suggest_colours",
        Kind.ONE_OF_MANY,
        "a picture with three channels among those with one",
        COMMAND,
        spoilt(slices, colours),
        ("1 of 3 images cannot be used, the others are done:", "c_0000.png: has 3 channel(s), the data set's images"),
        exit_status=1,
        leaves=("suggestions/suggestions.csv", "suggestions/suggestions.png"),
    ),
    entry(
        "damaged_record",
        Kind.DAMAGED,
        "a damaged conversion.json beside the images",
        damaged_record,
        COMMAND,
        "conversion.json is damaged; convert the data set again, or delete the file",
    ),
    entry(
        "damaged_record_of_others",
        Kind.DAMAGED,
        "a damaged conversion.json beside images that are labelled",
        damaged_record_of_others,
        f"{COMMAND} --leave-out labelled/images",
        "labelled/conversion.json is damaged; convert the data set again, or delete the file",
    ),
    entry(
        "output_is_input",
        Kind.OPTIONS,
        "the folder of images as that for table and sheet",
        nothing,
        f"{COMMAND} -o images",
        "images is read, too: table and sheet there would be taken for its own files; name another output",
    ),
    entry("step", Kind.OPTIONS, "a step of 0", nothing, f"{COMMAND} -step_size 0", "-step_size is above 0"),
    entry(
        "output_in_the_way",
        Kind.PLACES,
        "a file in place of the output",
        file_in_the_way,
        COMMAND,
        "suggestions",
    ),
]
