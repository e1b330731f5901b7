"""What the user may choose about a conversion; part of its identity, so plain data throughout."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunet_covid.raw_dataset.case import sha256_of


@dataclass(frozen=True)
class SliceSelection:
    """Which axial slices of a volume become cases of their own.

    Attributes:
        only_with_lesion: Drop slices whose label map is all background.
        every: Of the slices left, keep each n-th.
        at_most: Of the slices left, keep at most this many per volume, drawn at random.
        seed: Seed of that draw; the draw also depends on the case's name.
    """

    only_with_lesion: bool = False
    every: int = 1
    at_most: int | None = None
    seed: int = 12345


@dataclass(frozen=True)
class Options:
    """How the cases are changed on the way.

    Attributes:
        classes: Name of the class scheme; ``None`` for the data set's default.
        window: Hounsfield range that becomes 0 to 255, 8 bit.
        crop: Height and width of a crop around the lungs' centre of gravity, pixels.
        lung_mask_channel: Whether the lung mask becomes the last input channel.
        lung_method: Where lung masks come from if the data set has none: see ``nnunet_covid.lung_mask``.
        lung_model: The lungmask package's model.
        lung_weights: File with weights for the lungmask package.
        slices: ``None`` keeps volumes whole.
        splits: JSON file with the user's own folds.
        unlabelled: Whether cases without labels that are no test cases are converted as well.
    """

    classes: str | None = None
    window: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    lung_mask_channel: bool = False
    lung_method: str = "auto"
    lung_model: str = "R231"
    lung_weights: Path | None = None
    slices: SliceSelection | None = None
    unlabelled: bool = True
    splits: Path | None = None

    @property
    def needs_lungs(self) -> bool:
        """Whether every case must have a lung mask."""
        return self.lung_mask_channel or self.crop is not None

    def to_json(self) -> dict[str, Any]:
        """The options as they stand in ``conversion.json``; files by their checksum."""
        entries = asdict(self)
        for name in ("lung_weights", "splits"):
            entries[name] = None if entries[name] is None else sha256_of(entries[name])
        return {key: list(value) if isinstance(value, tuple) else value for key, value in entries.items()}
