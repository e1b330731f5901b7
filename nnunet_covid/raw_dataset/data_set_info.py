"""What the user is told about a public data set before converting it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSetInfo:
    """Facts about one public data set.

    Attributes:
        number: Default nnU-Net data set number.
        name: The part of the nnU-Net folder name after the number.
        command: Its name for ``nnunet-covid convert``.
        title: The name its authors use.
        paper: Where it was published.
        url: Where to get the data.
        licence: As its authors state it.
        expected_files: The files the converter looks for, one pattern per entry.
        version: Raised whenever the converter would write other bytes from the same source.
    """

    number: int
    name: str
    command: str
    title: str
    paper: str
    url: str
    licence: str
    expected_files: tuple[str, ...]
    version: int = 1
