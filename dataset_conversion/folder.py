"""A user's own folder of images, with or without masks, as an nnU-Net raw data set."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_covid.dataset_conversion.folder_layout import FolderLayout, is_pictures
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.case import SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.conversion import convert_data_set
from nnunet_covid.raw_dataset.data_set_info import DataSetInfo
from nnunet_covid.raw_dataset.image_file import read_scan
from nnunet_covid.raw_dataset.picture import read_grey
from nnunet_covid.raw_dataset.picture_pairs import read_picture_pair
from nnunet_covid.raw_dataset.problems import Problems, UnusableFile
from nnunet_covid.raw_dataset.recipe import Recipe
from nnunet_covid.raw_dataset.volume import array_of, read_volume
from nnunet_covid.raw_dataset.volume_pairs import read_volume_pair

INFO = DataSetInfo(
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

TEMPLATE = Recipe(
    info=INFO,
    find_cases=FolderLayout().find_cases,
    read=read_volume_pair,
    schemes={},
)
"""What the command line offers before the folder has been looked at."""


def folder_recipe(source: Path, layout: FolderLayout, *, name: str, labels: Mapping[str, int] | None) -> Recipe:
    """The recipe for one folder, after a look at its files.

    Args:
        source: The folder.
        layout: Where its files lie.
        name: Name of the data set.
        labels: Class name to value in the masks; recognised where the masks have a single value beside 0.

    Raises:
        UserError: If the folder cannot be used as it is.
    """
    problems = Problems(source)
    cases = layout.find_cases(source, problems)
    problems.raise_if_any()
    scheme = _scheme(labels) if labels else _recognised_scheme(cases, source)
    pictures = is_pictures(cases)
    is_hu = not pictures and _is_hu(cases)
    info = DataSetInfo(**{**vars(INFO), "name": name})
    return Recipe(
        info=info,
        find_cases=layout.find_cases,
        read=read_picture_pair if pictures else partial(read_volume_pair, is_hu=is_hu, resample=layout.resample_masks),
        schemes={"own": scheme},
        channel="CT" if is_hu else "grey_ct",
        file_ending=".png" if pictures else ".nii.gz",
        has_volumes=not pictures,
    )


def _scheme(labels: Mapping[str, int]) -> ClassScheme:
    """Classes in the order given; ``ignore`` comes last, where nnU-Net wants it."""
    if len({0, *labels.values()}) != len(labels) + 1:
        raise UserError("every --label needs a value of its own, other than 0, which is background")
    if "background" in labels:
        raise UserError("--label background is always the value 0; give this class another name")
    if set(labels) == {"ignore"}:
        raise UserError("--label ignore is no class, it marks what is not labelled; name a class with --label as well")
    names = sorted(labels, key=lambda name: name == "ignore")
    return ClassScheme(
        values={0: 0, **{labels[name]: index for index, name in enumerate(names, start=1)}},
        labels={"background": 0, **{name: index for index, name in enumerate(names, start=1)}},
    )


def _recognised_scheme(cases: list[SourceCase], source: Path) -> ClassScheme:
    """One class, named ``infection``, where the masks hold a single value beside 0.

    Masks that cannot be read are passed over: the conversion names them, together with the images.
    """
    found: set[int] = set()
    for case in cases:
        if case.mask is not None:
            try:
                is_picture = is_pictures([case])
                mask = read_grey(case.mask) if is_picture else array_of(read_volume(case.mask), case.mask)
            except UnusableFile:
                continue
            found |= set(np.unique(mask).tolist())
    foreground = sorted(found - {0})
    if len(foreground) > 1:
        listed = ", ".join(f"{value:g}" for value in foreground[:8]) + (", …" if len(foreground) > 8 else "")
        message = f"the masks of {source} hold the values {listed}; name each class: --label NAME=VALUE …"
        raise UserError(message)
    return _scheme({"infection": int(foreground[0]) if foreground else 1})


def _is_hu(cases: list[SourceCase]) -> bool:
    """Whether the first image that can be read holds Hounsfield units."""
    for case in cases:
        try:
            return read_scan(case.image).is_hu
        except UnusableFile:
            continue
    return True


def convert(
    source: Path,
    *,
    layout: FolderLayout | None = None,
    name: str = INFO.name,
    labels: Mapping[str, int] | None = None,
    **arguments: Any,
) -> Path:
    """Convert a folder; for the other arguments see ``convert_data_set``.

    Raises:
        UserError: If anything in the folder cannot be used.
    """
    recipe = folder_recipe(Path(source), layout or FolderLayout(), name=name, labels=labels)
    return convert_data_set(recipe, Path(source), **arguments)
