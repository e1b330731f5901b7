"""The metrics as data: key, heading, direction, digits, unit. What each one means is said where it is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnunet_covid.geometry import Geometry

LengthUnit = Literal["mm", "px"]
SizeUnit = Literal["ml", "mm2", "px"]
Group = Literal["label", "map", "toolbox"]


@dataclass(frozen=True)
class Units:
    """Unit of distances, and of the size of a segmentation (ml in 3D, mm² or pixels in 2D)."""

    length: LengthUnit
    size: SizeUnit

    @classmethod
    def of(cls, geometry: Geometry | None, axes: int) -> Units:
        """Those of an image with this many axes: pixels where it has no geometry."""
        return cls("px", "px") if geometry is None else cls("mm", "ml" if axes == 3 else "mm2")


@dataclass(frozen=True)
class Metric:
    """One column of the tables.

    ``best`` is +1 where more is better, −1 where less is better, 0 where neither is (sizes and their signed
    error). ``unit`` names the attribute of :class:`Units` that the column carries, if any.
    """

    key: str
    heading: str
    group: Group
    best: int
    unit: Literal["", "length", "size"] = ""
    digits: int = 3


METRICS: tuple[Metric, ...] = (
    Metric("dice", "Dice", "label", +1),
    Metric("iou", "IoU", "label", +1),
    Metric("sensitivity", "Sensitivity", "label", +1),
    Metric("specificity", "Specificity", "label", +1),
    Metric("precision", "Precision", "label", +1),
    Metric("hd95", "HD95", "label", -1, unit="length", digits=2),
    Metric("nsd", "NSD", "label", +1),
    Metric("label_mae", "MAE (label)", "label", -1, digits=4),
    Metric("reference_volume", "Reference", "label", 0, unit="size", digits=2),
    Metric("predicted_volume", "Predicted", "label", 0, unit="size", digits=2),
    Metric("volume_error", "Size error", "label", 0, unit="size", digits=2),
    Metric("map_mae", "MAE (map)", "map", -1, digits=4),
    Metric("s_measure", "S-measure", "map", +1),
    Metric("mean_e_measure", "Mean E", "map", +1),
    Metric("toolbox_dice", "Toolbox Dice", "toolbox", +1),
    Metric("toolbox_sensitivity", "Toolbox sens.", "toolbox", +1),
    Metric("toolbox_specificity", "Toolbox spec.", "toolbox", +1),
    Metric("toolbox_precision", "Toolbox prec.", "toolbox", +1),
    Metric("toolbox_s_measure", "Toolbox S", "toolbox", +1),
    Metric("toolbox_e_measure", "Toolbox E", "toolbox", +1),
    Metric("toolbox_mae", "Toolbox MAE", "toolbox", -1, digits=4),
)

METRIC: dict[str, Metric] = {metric.key: metric for metric in METRICS}


def column_name(metric: Metric, units: Units) -> str:
    """Name of a metric's column in the CSV file, with its unit: ``hd95_mm``, ``volume_error_ml``.

    The size of a 2D segmentation is an area and is called so.
    """
    if metric.unit == "length":
        return f"{metric.key}_{units.length}"
    if metric.unit == "size":
        key = metric.key if units.size == "ml" else metric.key.replace("volume", "area")
        return f"{key}_{units.size}"
    return metric.key


def digits(metric: Metric, units: Units) -> int:
    """Decimals worth printing; areas in mm² or pixels need none."""
    return 0 if metric.unit == "size" and units.size != "ml" else metric.digits


def heading(metric: Metric, units: Units) -> str:
    """Heading of a metric's column in the terminal and on plots, with its unit."""
    if metric.unit == "length":
        return f"{metric.heading} [{units.length}]"
    if metric.unit == "size":
        return f"{metric.heading} [{units.size.replace('2', '²')}]"
    return metric.heading
