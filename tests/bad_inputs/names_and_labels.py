"""``convert folder``, ``check`` and ``evaluate``: names, values and tables of labels, pages and frames of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from image_files import blob, grey, write_picture, write_volume
from PIL import ExifTags, Image

from bad_inputs.ingredients import pictures, spoilt, volumes
from bad_inputs.registry import BadInput, Kind

Spoil = Callable[[Path], object]
FOLDER = "nnunet-covid convert folder source -o raw --workers 1"


def entry(name: str, kind: Kind, situation: str, spoil: Spoil, *says: str, options: str = "") -> BadInput:
    return BadInput(f"names_{name}", kind, situation, FOLDER + options, spoilt(pictures, spoil), says)


def volume(name: str, situation: str, mask: Callable[[], np.ndarray], *says: str, options: str = "") -> BadInput:
    def spoil(folder: Path) -> None:
        write_volume(folder / "source/masks/a.nii.gz", mask())

    return BadInput(f"labels_{name}", Kind.LABELS, situation, FOLDER + options, spoilt(volumes, spoil), says)


def renamed(old: str, new: str) -> Spoil:
    return lambda folder: [path.rename(path.with_name(f"{new}.png")) for path in folder.glob(f"source/*/{old}.png")]


def only_images(folder: Path) -> None:
    for path in folder.glob("source/masks/*"):
        path.unlink()
    (folder / "source/masks").rmdir()


def label_map_as_image(folder: Path) -> None:
    only_images(folder)
    write_picture(folder / "source/images/outline.png", blob((20, 30), 2, 255))


def only_masks(folder: Path) -> None:
    only_images(folder)
    for path in (folder / "source/images").iterdir():
        path.rename(path.with_name(f"{path.stem}-label.png"))


def two_masks(folder: Path) -> None:
    write_picture(folder / "source/masks/a_seg.png", blob((20, 30), 3, 255))


def alike(folder: Path) -> None:
    for sub, array in (("images", grey((20, 30), 4)), ("masks", blob((20, 30), 4, 255))):
        write_picture(folder / f"source/{sub}/A.png", array)


def pages(ending: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "source/images/a.png").unlink()
        first, second = (Image.fromarray(grey((20, 30), seed)) for seed in (0, 1))
        first.save(folder / f"source/images/a{ending}", save_all=True, append_images=[second])

    return spoil


def turned(folder: Path) -> None:
    (folder / "source/images/a.png").unlink()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(grey((20, 30), 0)).save(folder / "source/images/a.jpg", exif=exif)


def jpeg_mask(folder: Path) -> None:
    (folder / "source/masks/a.png").unlink()
    write_picture(folder / "source/masks/a.jpg", blob((20, 30), 0, 255))


def exchanged(folder: Path) -> None:
    images, masks, third = (folder / "source" / name for name in ("images", "masks", "third"))
    images.rename(third)
    masks.rename(images)
    third.rename(masks)


def mask_of(array: np.ndarray) -> Spoil:
    return lambda folder: write_picture(folder / "source/masks/a.png", array)


def beside(name: str, content: str, encoding: str = "utf-8") -> Spoil:
    """A text file beside the source."""
    return lambda folder: (folder / name).write_text(content, encoding=encoding)


def with_a_palette(folder: Path) -> None:
    picture = Image.fromarray(blob((20, 30), 0))
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(folder / "source/masks/a.png")


def broken_link(folder: Path) -> None:
    (folder / "source/images/a.png").unlink()
    (folder / "source/images/a.png").symlink_to(folder / "gone.png")


def described(change: Callable[[dict], object] | str) -> Spoil:
    """``raw/Dataset701_Own``, ``predictions``, and a dataset.json that was changed, or is this text."""

    def make(folder: Path) -> None:
        home = folder / "nnUNet_raw/Dataset701_Own"
        write_picture(home / "imagesTr/c_0000.png", grey((20, 30), 0))
        for path in (home / "labelsTr/c.png", folder / "predictions/c.png"):
            write_picture(path, blob((20, 30), 0))
        content = {"labels": {"background": 0, "lesion": 1}, "channel_names": {"0": "CT"}, "file_ending": ".png"}
        if not isinstance(change, str):
            change(content)
        (home / "dataset.json").write_text(change if isinstance(change, str) else json.dumps(content))

    return make


def document(name: str, situation: str, change: Callable[[dict], object] | str, *says: str) -> list[BadInput]:
    """The same for ``check`` and, where it reads that part, for ``evaluate``."""
    commands = {"check": "nnunet-covid check 701"}
    if "labels" in name or "json" in name:
        commands["evaluate"] = "nnunet-covid evaluate predictions nnUNet_raw/Dataset701_Own/labelsTr"
    return [
        BadInput(f"{key}_{name}", Kind.LABELS, situation, command, described(change), ("dataset.json: ", *says))
        for key, command in commands.items()
    ]


BAD_INPUTS = [
    entry(
        "no_letter", Kind.NAMES, "an image called ~~.png", renamed("a", "~~"), "has neither letter nor digit", "rename"
    ),
    entry("too_long", Kind.NAMES, "a name of 230 characters", renamed("a", "x" * 230), "230 characters; rename it"),
    entry(
        "reserved", Kind.NAMES, "a name that Windows keeps", renamed("a", "aux"), "a name that Windows keeps", "rename"
    ),
    entry("case_alone", Kind.NAMES, "a.png and A.png", alike, "would become the case", "rename one of them"),
    entry(
        "two_masks", Kind.NAMES, "two masks for one image", two_masks, "masks/a_seg.png: would get the name a, as a.png"
    ),
    entry(
        "only_masks", Kind.NAMES, "a folder of masks alone", only_masks, "a-label.png, b-label.png are named as masks"
    ),
    entry(
        "mask_as_image",
        Kind.UNUSED,
        "a mask among the images whose name does not say so",
        label_map_as_image,
        "images/outline.png: holds the values 0, 255 alone, as a mask does; name it as the mask of its image",
    ),
    entry(
        "link",
        Kind.DAMAGED,
        "a link to a picture that was moved",
        broken_link,
        "source/images/a.png: is a link to a file",
        "copy",
    ),
    entry(
        "tiff_pages", Kind.UNUSED, "a TIFF of two pages", pages(".tif"), "images/a.tif: holds 2 pictures", "export each"
    ),
    entry("png_frames", Kind.UNUSED, "an animated PNG", pages(".png"), "images/a.png: holds 2 pictures", "export each"),
    entry(
        "exif", Kind.UNITS, "a JPEG with an EXIF orientation", turned, "a.jpg: is to be shown turned", "turn its pixels"
    ),
    entry("jpeg_mask", Kind.LABELS, "a mask saved as JPEG", jpeg_mask, "JPEG changes values: export a.jpg as PNG"),
    entry("exchanged", Kind.LABELS, "images and masks exchanged", exchanged, "hold the values", ", as images do; put"),
    entry(
        "jpeg_mask_named",
        Kind.LABELS,
        "a mask saved as JPEG, its class named",
        jpeg_mask,
        "masks/a.jpg: mask holds",
        "JPEG changes values: export the mask as PNG",
        options=" --label lesion=255",
    ),
    entry(
        "mixed_masks",
        Kind.LABELS,
        "one mask of 0 and 1 among masks of 0 and 255",
        mask_of(blob((20, 30), 0, 1)),
        "hold the values 1, 255 (1 in a.png; 255 in b.png); name each class",
    ),
    entry(
        "coloured_mask",
        Kind.LABELS,
        "a mask drawn in red",
        mask_of(np.dstack([blob((20, 30), 0, 255), np.zeros((20, 30, 2), np.uint8)])),
        "masks/a.png: red, green and blue differ",
        "export it with one grey channel",
    ),
    entry(
        "mask_with_a_palette",
        Kind.LABELS,
        "a mask as a picture with a colour palette",
        with_a_palette,
        "masks/a.png: has a colour palette; save the numbers of its colours as a grey picture",
    ),
    entry(
        "transparent_mask",
        Kind.LABELS,
        "a mask drawn on a transparent ground",
        mask_of(np.dstack([blob((20, 30), 0, 255)] * 4)),
        "masks/a.png: is partly transparent; export it as a grey picture",
    ),
    entry(
        "sixteen_bit_mask",
        Kind.LABELS,
        "a mask of 16 bits",
        mask_of(blob((20, 30), 0, 1).astype(np.uint16) * 1000),
        "masks/a.png: I;16 pixels, expected 8 bits",
    ),
    volume(
        "fractions",
        "a mask whose values were interpolated",
        lambda: blob((6, 20, 30), 0) * np.float32(0.9882),
        "masks/a.nii.gz: mask holds fractions (0.9882)",
        "export it without scaling, smoothing or interpolation",
    ),
    volume(
        "negative",
        "-1 for what is not labelled",
        lambda: blob((6, 20, 30), 0).astype(np.int16) - (np.arange(30) < 2),
        "the values -1, 1",
        "ignore=-1",
    ),
    volume(
        "unnamed_value",
        "a value beside those that are named",
        lambda: blob((6, 20, 30), 0, 7),
        "masks/a.nii.gz: mask holds 1 values outside the label table (7; allowed: 0, 1)",
        "or name what these values mean",
        options=" --label lesion=1",
    ),
    *document(
        "swapped_labels",
        "names and values of the labels are swapped",
        lambda content: content.update(labels={"0": "background", "1": "lesion"}),
        "names and values of 'labels' are swapped; write {\"background\": 0}",
    ),
    *document(
        "labels_as_text",
        "label values in quotes",
        lambda content: content.update(labels={"background": 0, "lesion": "1"}),
        "label 'lesion' is '1', but must be a whole number",
        "write it without quotes",
    ),
    *document(
        "labels_as_list", "labels as a list", lambda c: c.update(labels=["background"]), "has no 'labels'; it must"
    ),
    *document("json_cut", "a dataset.json that was cut", '{"labels": {', "is not valid JSON", "write it again"),
    *document("channels", "channels as a list", lambda c: c.update(channel_names=["CT"]), "'channel_names' is ['CT']"),
    *document("ending", "a file ending without its dot", lambda c: c.update(file_ending="png"), "with its dot"),
    *document("no_ending", "no file ending", lambda c: c.pop("file_ending"), "it has no 'file_ending'; convert"),
    entry(
        "splits_of_text",
        Kind.UNUSED,
        "folds with a name in place of a list of names",
        beside("splits.json", '[{"train": "a", "val": "b"}]'),
        'splits.json holds no splits; expected is a JSON list of {"train": [names], "val": [names]}',
        options=" --splits splits.json",
    ),
    entry(
        "splits_without_validation",
        Kind.UNUSED,
        "a fold without a validation case",
        beside("splits.json", '[{"train": ["a", "b"], "val": []}]'),
        "splits.json: fold 0 has no case in train or in val; name some",
        options=" --splits splits.json",
    ),
    entry(
        "patients_with_more_values",
        Kind.DAMAGED,
        "a table of patients with a comma in a name",
        beside("patients.csv", "file,case\na.png,Doe, John\nb.png,Roe\n"),
        "patients.csv has more values than columns in the line of a.png; correct it",
        options=" --patients patients.csv",
    ),
    entry(
        "patients_of_a_spreadsheet",
        Kind.DAMAGED,
        "a table of patients as a spreadsheet's own file",
        beside("patients.xlsx", "ÿ", "latin-1"),
        "patients.xlsx cannot be read as a table",
        "save it as CSV in UTF-8",
        options=" --patients patients.xlsx",
    ),
]
