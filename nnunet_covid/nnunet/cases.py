"""The cases of a folder of images named ``CASE_0000``: one set of rules for everybody who lists one.

Hidden files and files that are no images are passed over; every other file must have the data set's ending and its
channel in the name, and channels have no gaps.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of, files_in, sha256_of, some_of
from nnunet_covid.volume_files import data_files

TIFF_ENDINGS = (".tif", ".tiff")


@dataclass(frozen=True)
class CaseFiles:
    """One case: its name, its image files channel by channel, and its label map where it has one."""

    name: str
    files: tuple[Path, ...]
    label: Path | None = None

    @property
    def all_files(self) -> list[Path]:
        """Of the image and the label map."""
        return [*self.files, *([self.label] if self.label else [])]

    @property
    def sources(self) -> list[Path]:
        """All files that it is read from: those behind a header too, and the one that tells a 3D TIFF's spacing."""
        beside = spacing_file(self.files[0], image=True)
        spacing = [beside] if self.files[0].suffix.lower() in TIFF_ENDINGS and beside.is_file() else []
        return [file for path in self.all_files for file in (path, *data_files(path))] + spacing

    def content(self) -> str:
        """A digest of all that it is read from; the times of files say nothing of what they hold."""
        return digest_of([sha256_of(file) for file in self.sources], 32)


def spacing_file(path: Path, *, image: bool) -> Path:
    """``CASE.json``, in which nnU-Net has the spacing of a 3D TIFF: of an image ``CASE_0000.tif``, or a label map."""
    return path.with_name((re.sub(r"_\d{4}$", "", path.stem) if image else path.stem) + ".json")


def list_cases(
    folder: Path,
    ending: str,
    channels: int,
    *,
    one_file_may_hold_all: bool = True,
    refused: dict[str, str] | None = None,
) -> list[CaseFiles]:
    """Every case of a folder of images ``CASE_0000.ending``, ``CASE_0001.ending`` and so on, in the order of names.

    Args:
        folder: Holds the images; hidden files and files that are no images are left alone.
        ending: Of an image, with its dot; ``file_ending`` of dataset.json.
        channels: Channels that are expected.
        one_file_may_hold_all: Take a case with channel 0000 alone for one file with all channels (an RGB picture); how
            many it really holds shows when it is read.
        refused: Receives the reason for which a case, or what else is there, is left out, instead of an error.

    Raises:
        UserError: If there is no image, one would be passed over because it has another ending or lies in a folder, a
            name does not end in a channel number, or channels are missing or too many.
    """

    def refuse(name: str, reason: str) -> None:
        if refused is None:
            raise UserError(reason)
        refused[name] = reason

    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; give the folder that holds the images, CASE_0000{ending} and so on")
    pattern = re.compile(rf"(?P<case>.+)_(?P<channel>\d{{4}}){re.escape(ending)}")
    found: dict[str, list[int]] = {}
    for path in files_in(folder, ending):
        match = pattern.fullmatch(path.name)
        if match is None:
            stem = path.name.removesuffix(ending)
            refuse(stem, f"{path}: nnU-Net wants the channel in the name; rename it to {stem}_0000{ending}")
            continue
        found.setdefault(match["case"], []).append(int(match["channel"]))
    others = _passed_over(folder, ending)
    if not found and not refused:
        instead = [
            f"; there {'is' if len(names) == 1 else 'are'} {some_of(names)}: {remedy}" for names, remedy in others
        ]
        nothing = f"{folder} holds no image that ends in {ending}, such as CASE_0000{ending}; dataset.json says so"
        raise UserError(nothing + "".join(instead))
    for names, remedy in others:
        listed = some_of(names)
        refuse(listed, f"{folder}: images here end in {ending}, so {listed} would not be used; {remedy}")
    allowed = [list(range(channels)), *([[0]] if one_file_may_hold_all else [])]
    for case, numbers in found.items():
        if numbers not in allowed:
            listed = ", ".join(f"{number:04d}" for number in numbers)
            expected = "0000 is" if channels == 1 else f"0000 to {channels - 1:04d} are"
            refuse(case, f"{folder}: case {case} has channels {listed}, but {expected} expected")
    return [
        CaseFiles(case, tuple(folder / f"{case}_{number:04d}{ending}" for number in numbers))
        for case, numbers in sorted(found.items())
        if numbers in allowed
    ]


def _passed_over(folder: Path, ending: str) -> list[tuple[list[str], str]]:
    """Names of what nnU-Net would pass over without a word, and the remedy of each kind."""
    from nnunet_covid.endings import IMAGE_ENDINGS, ending_of
    from nnunet_covid.raw_dataset.case_folders import ARCHIVES
    from nnunet_covid.raw_dataset.dicom import is_dicom
    from nnunet_covid.raw_dataset.source import visible

    kinds = (*IMAGE_ENDINGS, *ARCHIVES)
    no_files, capitals, others = [], [], []
    for path in visible(folder):
        if path.name.endswith(ending):
            if path.exists() and not path.is_file():
                no_files.append(path.name)
        elif path.is_file() and path.name.lower().endswith(ending.lower()):
            capitals.append(path.name)
        elif path.is_dir() or ending_of(path, kinds) or is_dicom(path):
            others.append(path.name)
    remedies = (
        (no_files, "put the files that are in these folders beside them, under names that end so"),
        (capitals, f"rename them to end in {ending}: capitals count"),
        (others, f"bring them to {ending} by nnunet-covid convert, or take them out"),
    )
    return [(names, remedy) for names, remedy in remedies if names]
