"""``report.html``: one file without anything from outside, from a document and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from pydicom.datadict import dictionary_description

from nnunet_covid.figures.scan_views import SliceView, rgb_of
from nnunet_covid.report.document import NOTICE

NOT_AVAILABLE = "not available"


@dataclass(frozen=True)
class Pictures:
    """Data URIs of a page.

    Attributes:
        slices: For the slider, from foot to head.
        coronal: With zones or lobes.
        key_slices: A few slices with their overlay, which are printed; caption to picture.
        comparison: The earlier scan beside this one, and its caption; empty without an earlier scan.
    """

    slices: Sequence[SliceView]
    coronal: str
    key_slices: Mapping[str, str]
    comparison: str = ""
    comparison_caption: str = ""


def page(document: Mapping[str, Any], pictures: Pictures) -> str:
    """The whole page.

    Args:
        document: As ``Document.as_json`` gives it.
        pictures: As data URIs.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "ml": _number(" ml", 1),
        "percent": _number(" %", 1),
        "hu": _number("", 0),
        "change": _change,
        "described": dictionary_description,
    }
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    infected = [position for position, view in enumerate(pictures.slices) if view.infected]
    colours = {
        name: "rgb({}, {}, {})".format(*rgb_of(i)) for i, name in enumerate(document["quantities"]["classes_ml"])
    }
    start = infected[len(infected) // 2] if infected else len(pictures.slices) // 2
    return template.render(
        d=document, q=document["quantities"], p=pictures, start=start, colours=colours, notice=NOTICE
    )


def _number(unit: str, digits: int) -> Any:
    def shown(value: float | None) -> str:
        return NOT_AVAILABLE if value is None else f"{value:.{digits}f}{unit}".replace("-", "\N{MINUS SIGN}")

    return shown


def _change(value: float | None, unit: str = "") -> str:
    if value is None:
        return NOT_AVAILABLE
    value = round(value, 1)
    sign = "+" if value > 0 else "\N{MINUS SIGN}" if value < 0 else "±"
    return f"{sign}{abs(value):.1f}{unit}"
