"""The cases of a folder of images in nnU-Net's naming: ``CASE_0000.ending``, ``CASE_0001.ending`` and so on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.errors import UserError


@dataclass(frozen=True)
class CaseFiles:
    """One case: its name and its files, channel by channel."""

    name: str
    files: tuple[Path, ...]


def list_cases(folder: Path, ending: str, channels: int) -> list[CaseFiles]:
    """Every case of a folder, in the order of their names.

    Args:
        folder: Holds the images; other files in it are left alone.
        ending: Of an image, with its dot; ``file_ending`` of dataset.json.
        channels: Channels that are expected. A single file may hold them all (RGB pictures): how many it really
            holds shows when it is read.

    Raises:
        UserError: If there is no image, a name does not end in a channel number, or channels are missing or too many.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder that holds the images, CASE_0000{ending} and so on")
    names = sorted(p.name for p in folder.iterdir() if p.name.endswith(ending) and not p.name.startswith("."))
    if not names:
        raise UserError(f"{folder} holds no image that ends in {ending}, the ending that dataset.json names")
    pattern = re.compile(rf"(?P<case>.+)_(?P<channel>\d{{4}}){re.escape(ending)}")
    numbers: dict[str, list[int]] = {}
    for name in names:
        match = pattern.fullmatch(name)
        if match is None:
            example = f"{name[: -len(ending)]}_0000{ending}"
            raise UserError(f"{folder / name}: nnU-Net wants the channel in the name; rename it to {example}")
        numbers.setdefault(match["case"], []).append(int(match["channel"]))
    for case, found in numbers.items():
        _check_channels(folder, case, sorted(found), channels)
    return [
        CaseFiles(case, tuple(folder / f"{case}_{number:04d}{ending}" for number in sorted(found)))
        for case, found in numbers.items()
    ]


def _check_channels(folder: Path, case: str, found: list[int], channels: int) -> None:
    if found in (list(range(channels)), [0]):
        return
    listed = ", ".join(f"{number:04d}" for number in found)
    expected = "0000" if channels == 1 else f"0000 to {channels - 1:04d}"
    verb = "is" if channels == 1 else "are"
    raise UserError(f"{folder}: case {case} has channels {listed}, but {expected} {verb} expected")
