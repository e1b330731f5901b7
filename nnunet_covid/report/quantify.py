"""Numbers of one scan: volumes, shares, Hounsfield units, lesions and severity, from its voxels and label map.

Arrays and SimpleITK images in, plain numbers out; no file is touched. Every number's definition, unit and source
stand in ``docs/reference/report.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of
from nnunet_covid.geometry import Geometry, difference_of
from nnunet_covid.label_maps import MOST_CLASSES
from nnunet_covid.report.anatomy import Anatomy, Classes
from nnunet_covid.report.regions import LOBES, NO_SIDES, Mask

MM3_PER_ML = 1000.0
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # voxels of one lesion share a face, an edge or a corner
FEW_POINTS = 500
LOBE_MAP = "lobe map"
LUNG_MASK = "lung mask"
NO_MASK = "a mask has 0 outside of the lungs and few whole numbers in them: name that, not the scan"


@dataclass(frozen=True)
class Settings:
    """What the numbers depend on beside the images; printed with them.

    Attributes:
        bands: Name to HU interval, lower end inside, upper end outside. Default: compartments of aeration by Gattinoni
            et al., Am J Respir Crit Care Med 2001; 164: 1701; poorly aerated lung is named for what it shows.
        smallest_lesion_ml: Smaller connected parts are no lesions of their own in number and size; volumes count them.
        lobe_cuts: Per cent of a lobe that 2, 3, 4 and 5 points begin above (Pan et al., Radiology 2020; 295: 715).
        zone_cuts: The same for 2, 3 and 4 points of a zone.
    """

    bands: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {
            "overinflated": (-1000.0, -900.0),
            "aerated": (-900.0, -500.0),
            "ground glass": (-500.0, -100.0),
            "consolidation": (-100.0, 100.0),
        }
    )
    smallest_lesion_ml: float = 0.01
    lobe_cuts: tuple[float, ...] = (5.0, 25.0, 50.0, 75.0)
    zone_cuts: tuple[float, ...] = (25.0, 50.0, 75.0)

    def __post_init__(self) -> None:
        for name, (low, high) in self.bands.items():
            if not low < high:
                raise UserError(f"the HU band {name} from {low:g} to {high:g} is empty: give the lower end first")


@dataclass(frozen=True)
class Region:
    """Both lungs or a part of them.

    Attributes:
        volume_ml: Of the region.
        infection_ml: Of all classes together inside it.
        infection_percent: Of the region's volume; None for an empty region.
        classes_ml: Of each class inside it.
    """

    name: str
    volume_ml: float
    infection_ml: float
    infection_percent: float | None
    classes_ml: dict[str, float]


@dataclass(frozen=True)
class Tissue:
    """Hounsfield units of a set of voxels: mean, median, 5th and 95th percentile."""

    mean: float
    median: float
    p5: float
    p95: float


@dataclass(frozen=True)
class Lesions:
    """Connected parts of the infection.

    Attributes:
        count: Parts of at least the smallest volume.
        largest_ml: Volume of the largest.
        largest_mm: Greatest distance between the centres of two of its voxels.
    """

    count: int
    largest_ml: float
    largest_mm: float


@dataclass(frozen=True)
class Severity:
    """A score of points added over lobes or zones."""

    name: str
    points: int
    of: int
    parts: dict[str, int]


@dataclass(frozen=True)
class Quantities:
    """Everything measured in one scan; what could not be measured is named in ``missing`` with the reason.

    Attributes:
        infection_ml: Of all classes together, in and outside the lungs.
        outside_percent: Of the infection's volume, outside the lungs; None without infection or lungs.
        classes_ml: Of each class, in and outside the lungs.
        regions: Lungs first, then sides, then lobes or zones; empty without lungs.
        bands_percent: Share of the lungs' volume in each HU band; None without lungs.
        lungs_by: What made the lung mask.
    """

    infection_ml: float
    outside_percent: float | None
    classes_ml: dict[str, float]
    regions: tuple[Region, ...]
    lung_hu: Tissue | None
    lesion_hu: Tissue | None
    bands_percent: dict[str, float] | None
    lesions: Lesions
    severity: Severity | None
    lungs_by: str
    settings: Settings
    missing: dict[str, str]

    def region(self, name: str) -> Region | None:
        """A region by its name, such as ``lungs`` or ``left lung``."""
        return next((region for region in self.regions if region.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The same as nested dictionaries, lists and numbers."""
        return asdict(self)


def quantify(
    image: sitk.Image,
    labels: sitk.Image,
    classes: Classes,
    *,
    lungs: sitk.Image | None = None,
    lobes: sitk.Image | None = None,
    settings: Settings | None = None,
) -> Quantities:
    """Measure one scan.

    Args:
        image: CT volume in Hounsfield units, in any storage order.
        labels: Label map on the same grid.
        classes: Name of each class of infection, and its value or values.
        lungs: Lung mask on the same grid, anything but 0 is lung; made from the image if not given.
        lobes: Lobe map on the same grid with the values of :data:`nnunet_covid.report.regions.LOBES`.
        settings: Bands, cut-offs, smallest lesion.

    Raises:
        UserError: If the image has not three axes or a map lies on another grid.
    """
    require_fitting(image, {"label map": labels, LUNG_MASK: lungs, LOBE_MAP: lobes})
    return quantities_of(Anatomy.of(image, labels, classes, lungs, lobes), settings or Settings())


def quantities_of(anatomy: Anatomy, settings: Settings) -> Quantities:
    """The numbers of a scan that has been taken apart."""
    hu, infection, lungs = anatomy.hu, anatomy.infection, anatomy.lungs
    x, y, z = anatomy.spacing
    ml = x * y * z / MM3_PER_ML
    missing: dict[str, str] = {}
    parts = _regions(anatomy, missing)
    inside = float(infection[lungs].sum())
    return Quantities(
        infection_ml=float(infection.sum()) * ml,
        outside_percent=float(100 * (1 - inside / infection.sum())) if infection.any() and lungs.any() else None,
        classes_ml={name: float(mask.sum()) * ml for name, mask in anatomy.classes.items()},
        regions=tuple(_region(name, mask, anatomy, ml) for name, mask in parts.items()),
        lung_hu=_tissue(hu[lungs]),
        lesion_hu=_tissue(hu[infection]),
        bands_percent=_bands(hu[lungs], settings.bands),
        lesions=_lesions(infection, (z, y, x), settings.smallest_lesion_ml / ml),
        severity=_severity(parts, infection, settings, missing),
        lungs_by=anatomy.lungs_by,
        settings=settings,
        missing=missing,
    )


def require_fitting(image: sitk.Image, maps: Mapping[str, sitk.Image | None]) -> None:
    """Check that maps lie on the grid of their image, and that a lobe map holds lobes.

    Args:
        image: With three axes.
        maps: By what they are called.

    Raises:
        UserError: If one does not.
    """
    if image.GetDimension() != 3:
        raise UserError(f"the image has {image.GetDimension()} axes; a report needs a volume")
    for name, other in maps.items():
        if other is None:
            continue
        if other.GetSize() != image.GetSize():
            raise UserError(
                f"the {name} has {other.GetSize()} voxels, the image {image.GetSize()}: bring it to the grid"
            )
        aspect = difference_of(Geometry.of_itk(other), Geometry.of_itk(image))
        if aspect:
            raise UserError(f"the {name} has another {aspect} than the image: resample it to the image's grid")
    lungs, lobes = maps.get(LUNG_MASK), maps.get(LOBE_MAP)
    if lungs is not None and len(held := np.unique(sitk.GetArrayViewFromImage(lungs))) > 1:
        whole = not (held % 1).any()
        if held[0] < 0 or not whole or len(held) > MOST_CLASSES:
            raise UserError(f"the lung mask holds {len(held)} values from {held[0]:g} to {held[-1]:g}; {NO_MASK}")
    if lobes is None:
        return
    values = set(np.unique(sitk.GetArrayViewFromImage(lobes)).tolist())
    if not values & set(LOBES.values()) or values - {0, *LOBES.values()}:
        found = some_of(f"{value:g}" for value in values)
        known = ", ".join(f"{value} {name}" for name, value in LOBES.items())
        raise UserError(f"the lobe map holds {found}; its values are 0 and {known}")


def _regions(anatomy: Anatomy, missing: dict[str, str]) -> dict[str, Mask]:
    """Lungs, sides, lobes or zones, in the order of a report; what there is not goes to ``missing``."""
    if not anatomy.lungs.any():
        missing["lungs"] = "no lungs were found in the image"
        return {}
    if not LOBES.keys() <= anatomy.parts.keys():
        missing["lobes"] = "no lobe map was given; zones of equal height stand in their place"
        if not anatomy.sides:
            missing["sides"] = missing["zones"] = NO_SIDES
        for name in {"right lung", "left lung"} - anatomy.sides.keys() if anatomy.sides else ():
            missing[name] = "no lung was found on this side"
    return {"lungs": anatomy.lungs, **anatomy.sides, **anatomy.parts}


def _region(name: str, mask: Mask, anatomy: Anatomy, ml: float) -> Region:
    volume, infected = float(mask.sum()), float((mask & anatomy.infection).sum())
    return Region(
        name=name,
        volume_ml=volume * ml,
        infection_ml=infected * ml,
        infection_percent=100 * infected / volume if volume else None,
        classes_ml={label: float((mask & of_class).sum()) * ml for label, of_class in anatomy.classes.items()},
    )


def _tissue(values: NDArray[np.float32]) -> Tissue | None:
    if not values.size:
        return None
    p5, median, p95 = np.percentile(values, (5, 50, 95))
    return Tissue(float(values.mean(dtype=np.float64)), float(median), float(p5), float(p95))


def _bands(values: NDArray[np.float32], bands: Mapping[str, tuple[float, float]]) -> dict[str, float] | None:
    if not values.size:
        return None
    return {name: 100 * float(((values >= low) & (values < high)).mean()) for name, (low, high) in bands.items()}


def _lesions(infection: Mask, size: tuple[float, float, float], smallest: float) -> Lesions:
    """Number and largest of the connected parts of at least ``smallest`` voxels; ``size`` in mm along z, y, x."""
    parts, _ = ndimage.label(infection, TOUCHING)
    voxels = np.bincount(parts.ravel())
    voxels[0] = 0
    counted = int((voxels >= max(smallest, 1)).sum())
    if not counted:
        return Lesions(0, 0.0, 0.0)
    largest = int(voxels.argmax())
    box = ndimage.find_objects(parts)[largest - 1]
    volume = float(voxels[largest]) * float(np.prod(size)) / MM3_PER_ML
    return Lesions(counted, volume, _longest_diameter(parts[box] == largest, size))


def _longest_diameter(part: Mask, size: tuple[float, float, float]) -> float:
    """Millimetres between the two voxels that lie farthest from each other."""
    z, y = np.nonzero(part.any(axis=2))
    rows = part[z, y]
    first, last = rows.argmax(axis=1), part.shape[2] - 1 - rows[:, ::-1].argmax(axis=1)
    points = np.concatenate([np.column_stack([z, y, first]), np.column_stack([z, y, last])]) * np.asarray(size)
    spread = np.ptp(points, axis=0) > 0
    if not spread.any():
        return 0.0
    flat = np.unique(points[:, spread], axis=0)
    if flat.shape[1] > 1 and len(flat) > FEW_POINTS:
        flat = flat[ConvexHull(flat, qhull_options="QJ").vertices]
    return float(np.ptp(flat)) if flat.shape[1] == 1 else float(pdist(flat).max())


def _severity(
    parts: Mapping[str, Mask], infection: Mask, settings: Settings, missing: dict[str, str]
) -> Severity | None:
    """The score over five lobes (0 to 25) where there are lobes, else over six zones (0 to 24)."""
    if all(name in parts and parts[name].any() for name in LOBES):
        name, kind, cuts = "25-point score of five lobes", list(LOBES), settings.lobe_cuts
    else:
        name, kind, cuts = "24-point score of six zones", [p for p in parts if p.endswith("zone")], settings.zone_cuts
        if len(kind) < 6 or not all(parts[zone].any() for zone in kind):
            missing["severity"] = "it needs five lobes or both lungs' six zones"
            return None
    points = {part: _points(parts[part], infection, cuts) for part in kind}
    return Severity(name, sum(points.values()), len(kind) * (len(cuts) + 1), points)


def _points(part: Mask, infection: Mask, cuts: tuple[float, ...]) -> int:
    """0 without infection, else 1 and one more for each cut-off that the per cent lies above."""
    share = 100 * float(infection[part].sum()) / float(part.sum())
    return 0 if share == 0 else 1 + int(sum(share > cut for cut in cuts))
