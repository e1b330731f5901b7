"""Probability maps on disk: nnU-Net's ``--save_probabilities`` files, or 8-bit grey PNG images.

nnU-Net writes ``CASE.npz`` with the array ``probabilities`` of shape (channels, *spatial), its spatial axes
in the order of the label map that it writes beside it. Grey maps are ``CASE.png`` for a single class, else
``CLASS/CASE.png``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.label_files import read_grey_png
from nnunet_covid.evaluation.labels import EvaluatedClass, LabelScheme
from nnunet_covid.evaluation.toolbox import ProbabilityMap, resized_like
from nnunet_covid.files import files_in, some_of
from nnunet_covid.header_claims import read_probabilities

ROUNDING = 1e-3  # saved as 16-bit floats, a probability may leave [0, 1] by a little
SAME = 0.01
"""Largest share of the foreground in which two predictions of the same network may differ, by its rounding."""


class ForeignMapsError(UserError):
    """Saved probabilities that are not those of the label map beside them."""


@dataclass(frozen=True)
class MapSource:
    """A folder of maps and how they are stored."""

    folder: Path
    kind: Literal["npz", "grey"]
    one_class: bool = True
    resize: bool = False

    def path(self, case: str, cls: EvaluatedClass) -> Path:
        """The file that holds the map of a class of a case."""
        if self.kind == "npz":
            return self.folder / f"{case}.npz"
        return self.folder / f"{case}.png" if self.one_class else self.folder / cls.name / f"{case}.png"


def find_maps(folder: Path, cases: list[str], scheme: LabelScheme, *, resize: bool = False) -> MapSource:
    """The maps of a folder that the user named.

    Raises:
        UserError: if the folder or the map of any case is missing.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    kind: Literal["npz", "grey"] = "npz" if files_in(folder, ".npz") else "grey"
    source = MapSource(folder, kind, one_class=len(scheme.classes) == 1, resize=resize)
    missing = {p.name for c in cases for k in scheme.classes if not (p := source.path(c, k)).is_file()}
    if missing:
        raise UserError(f"{folder}: {some_of(missing)} missing; need {_wanted(source)} for every case")
    return source


def maps_beside(predictions: Path, cases: list[str], scheme: LabelScheme) -> MapSource | None:
    """nnU-Net's saved probabilities beside the label maps, if there are any; then all must be there."""
    if any((predictions / f"{case}.npz").is_file() for case in cases):
        return find_maps(predictions, cases, scheme)
    return None


def check_greys(source: MapSource, cases: list[str], scheme: LabelScheme) -> None:
    """Refuse grey maps that are masks of 0 and 1, which would be read as probabilities of at most 1/255.

    Files are read up to the first that holds a grey above 1. Maps that are all black pass.

    Raises:
        UserError: if a file cannot be read, or no map exceeds 1 and some reach it.
    """
    if source.kind != "grey":
        return
    brightest = 0
    for case in cases:
        for cls in scheme.classes:
            brightest = max(brightest, int(_greys(source.path(case, cls)).max()))
            if brightest > 1:
                return
    if brightest == 1:
        raise UserError(
            f"{source.folder}: no grey map exceeds 1, so these are masks, not maps in which 255 is certainty; "
            "multiply them by 255, or leave the maps out",
            about="maps",
        )


def require_own(path: Path, probabilities: NDArray[Any], labels: NDArray[Any], *, regions: bool) -> None:
    """Refuse saved probabilities that another network has left beside a label map that was predicted anew.

    Args:
        path: Of the probabilities.
        probabilities: (channels, axes); of regions, or of the background and every label.
        labels: The label map beside them.
        regions: Which of the two.

    Raises:
        ForeignMapsError: If they have their foreground elsewhere.
    """
    if labels.size == probabilities[0].size:
        background = 0.5 if regions else probabilities[0]
        lead = probabilities[0 if regions else 1 :].max(axis=0) - background
        foreground = labels.reshape(lead.shape) != 0
        differing = np.where(foreground, lead < -ROUNDING, lead > ROUNDING)
        if differing.sum() <= SAME * (foreground | (lead > ROUNDING)).sum():
            return
    raise ForeignMapsError(
        f"{path} does not belong to the label map beside it, which another training or prediction has made; "
        "delete it, or predict both anew"
    )


def read_maps(
    source: MapSource,
    case: str,
    scheme: LabelScheme,
    shape: tuple[int, ...],
    beside: NDArray[np.integer] | None = None,
) -> dict[str, ProbabilityMap]:
    """The maps of a case by class name, each of the given shape.

    Args:
        source: Where they are.
        case: Its name.
        scheme: Classes and channels.
        shape: Of its label maps.
        beside: The label map of which saved probabilities must be those.

    Raises:
        ForeignMapsError: if they are those of another one.
        UserError: if a file cannot be read, channels or shape do not match the label maps, or values are no
            probabilities.
    """
    if source.kind == "grey":
        return {cls.name: _read_grey(source, source.path(case, cls), shape) for cls in scheme.classes}
    path = source.path(case, scheme.classes[0])
    channels = read_probabilities(path)
    if len(np.atleast_1d(channels)) != scheme.channels:
        raise UserError(
            f"{path}: holds {len(np.atleast_1d(channels))} channels, but the labels call for {scheme.channels} "
            f"({'regions' if scheme.has_regions else 'background and every label'})"
        )
    if channels.shape[1:] not in (shape, (1, *shape)):  # nnU-Net keeps an axis of length one for 2D images
        raise UserError(f"{path}: shape {channels.shape[1:]} differs from the label map's {shape}")
    if channels.dtype.kind != "f":
        raise UserError(f"{path}: holds {channels.dtype}, but probabilities are fractions; predict it again")
    low, high = float(channels.min()), float(channels.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise UserError(f"{path}: values from {low:g} to {high:g} are no probabilities")
    if beside is not None:
        require_own(path, channels, beside, regions=scheme.has_regions)
    return {cls.name: np.clip(channels[cls.channel].reshape(shape), 0, 1) for cls in scheme.classes}


def _read_grey(source: MapSource, path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    if len(shape) != 2:
        raise UserError(f"{path}: grey PNG maps go with 2D label maps, these have {len(shape)} axes")
    grey = _greys(path)
    if grey.shape != shape and not source.resize:
        raise UserError(
            f"{path}: {grey.shape[0]}×{grey.shape[1]} differs from the label map's {shape[0]}×{shape[1]}; "
            "have it resized if that is meant",
            about="resize_maps",
        )
    return resized_like(grey, shape)


def _greys(path: Path) -> NDArray[np.uint8]:
    try:
        grey = read_grey_png(path)
        if grey is not None:
            return grey
        with Image.open(path) as image:
            if image.mode == "L":
                return np.asarray(image)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e})") from e
    raise UserError(f"{path}: a grey map must be an 8-bit image of one channel, this one has mode {image.mode}")


def _wanted(source: MapSource) -> str:
    if source.kind == "npz":
        return "CASE.npz"
    return "CASE.npz or CASE.png" if source.one_class else "CASE.npz or CLASS/CASE.png"
