"""Which classes the converted label maps hold: a scheme maps the source's classes to nnU-Net's labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ClassScheme:
    """One way of presenting a data set's classes to nnU-Net.

    Attributes:
        values: Value in the source mask to value in the label map; a value not listed is an error.
        labels: ``dataset.json``'s ``labels``: name to value, or to the values that make up a region.
        regions_class_order: For region labels, the value that each region writes, in order.
        colours: For masks that are colour pictures, colour to *source* value.
    """

    values: Mapping[int, int]
    labels: Mapping[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None
    colours: Mapping[tuple[int, int, int], int] = field(default_factory=dict)

    def dataset_json_entries(self) -> dict[str, Any]:
        """The entries of ``dataset.json`` that describe this scheme."""
        labels = {name: list(value) if isinstance(value, tuple) else value for name, value in self.labels.items()}
        entries: dict[str, Any] = {"labels": labels}
        if self.regions_class_order is not None:
            entries["regions_class_order"] = list(self.regions_class_order)
        return entries

    def label_values(self) -> set[int]:
        """Every value that may occur in a converted label map."""
        return set(self.values.values())


def binary(name: str, foreground: int = 1) -> ClassScheme:
    """Background and one class whose source value is ``foreground``."""
    return ClassScheme(values={0: 0, foreground: 1}, labels={"background": 0, name: 1})
