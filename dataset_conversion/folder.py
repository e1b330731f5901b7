"""A user's own folder of images, with or without masks, as an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion.folder_layout import FolderLayout
from nnunet_covid.errors import UserError

INFO = raw.DatasetInfo(
    number=599,
    name="Folder",
    command="folder",
    title="your own images, with or without masks",
    paper="unpublished",
    url="your own folder",
    licence="yours",
    expected_files=(
        "images/ and masks/ with equal file names, or <name>.* and <name>_mask.* side by side",
        "NIfTI, NRRD, MetaImage, PNG, JPEG; a DICOM series as one folder per case",
    ),
)

TEMPLATE = raw.Recipe(
    info=INFO,
    find_cases=FolderLayout().find_cases,
    read=raw.read_volume_pair,
    schemes={},
)
"""What the command line offers before the folder has been looked at."""


def convert_folder(
    source: Path,
    *,
    layout: FolderLayout | None = None,
    name: str = INFO.name,
    labels: Mapping[str, int] | None = None,
    **arguments: Any,
) -> Path:
    """Convert a folder; for the other arguments see ``convert_dataset``.

    Args:
        source: The folder.
        layout: Where its files lie.
        name: Name of the data set.
        labels: Class name to value in the masks; recognised where the masks have a single value beside 0.

    Raises:
        UserError: If anything in the folder cannot be used.
    """
    problems = raw.Problems(source)
    cases = (layout or FolderLayout()).find_cases(source, problems)
    problems.raise_if_any()
    scheme = _scheme(labels) if labels else _recognised_scheme(cases, source)
    recipe = replace(TEMPLATE, info=replace(INFO, name=name), find_cases=lambda *_: cases, schemes={"own": scheme})
    if raw.is_picture(cases[0].image):
        recipe = replace(recipe, read=raw.read_picture_pair, channel="grey_ct", file_ending=".png", has_volumes=False)
    else:
        is_hu = _is_hu(cases)
        read = partial(raw.read_volume_pair, is_hu=is_hu, resample=layout is not None and layout.resample_masks)
        recipe = replace(recipe, read=read, channel="CT" if is_hu else "grey_ct")
    return raw.convert_dataset(recipe, source, **arguments)


def _scheme(labels: Mapping[str, int]) -> raw.ClassScheme:
    """Classes in the order given; ``ignore`` comes last, where nnU-Net wants it."""
    if len({0, *labels.values()}) != len(labels) + 1:
        raise UserError("every class needs a value of its own, other than 0, which is background", about="label")
    if "background" in labels:
        raise UserError("background is always the value 0; give this class another name", about="label")
    if set(labels) == {"ignore"}:
        raise UserError("ignore is no class, it marks what is not labelled; name a class as well", about="label")
    names = sorted(labels, key=lambda name: name == "ignore")
    return raw.ClassScheme(
        values={0: 0, **{labels[name]: index for index, name in enumerate(names, start=1)}},
        labels={"background": 0, **{name: index for index, name in enumerate(names, start=1)}},
    )


def _recognised_scheme(cases: Sequence[raw.SourceCase], source: Path) -> raw.ClassScheme:
    """One class, named ``infection``, where the masks hold a single value beside 0.

    Masks that cannot be read are passed over: the conversion names them, together with the images.
    """
    found: set[Any] = set()
    for mask in (case.mask for case in cases if case.mask is not None):
        try:
            found.update(raw.distinct_values(raw.read_grey(mask) if raw.is_picture(mask) else raw.read_voxels(mask)))
        except raw.UnusableFile:
            continue
    foreground = sorted(found - {0})
    if len(foreground) > 1:
        message = f"the masks of {source} hold the values {raw.listed_values(foreground)}; name each class NAME=VALUE"
        raise UserError(message, about="label")
    return _scheme({"infection": int(foreground[0]) if foreground else 1})


def _is_hu(cases: Sequence[raw.SourceCase]) -> bool:
    """Whether the first image that can be read holds Hounsfield units."""
    for case in cases:
        try:
            return raw.read_scan(case.image).is_hu
        except raw.UnusableFile:
            continue
    return True
