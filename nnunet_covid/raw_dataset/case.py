"""One case of a source data set: its files, its patient and what it is used for."""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from pathlib import Path


class Part(enum.Enum):
    """What a case is for; the values are the image folders, in nnU-Net's spelling."""

    TRAINING = "imagesTr"
    TEST = "imagesTs"
    UNLABELLED = "imagesUn"

    @property
    def label_folder(self) -> str:
        """The folder of the references that belong to this part's images."""
        return self.value.replace("images", "labels")


@dataclass(frozen=True)
class SourceCase:
    """The files of one case as they lie in the source.

    Attributes:
        name: The case's nnU-Net name (slices append their index to it).
        image: An image file, or the folder of a DICOM series.
        mask: Its reference segmentation, if there is one.
        lungs: A lung mask that comes with the data set, if there is one.
        patient: Cases with the same patient never fall on both sides of a split.
        part: Training, test or unlabelled.
        index: For a file that stacks unrelated slices, which of them this case is.
    """

    name: str
    image: Path
    mask: Path | None = None
    lungs: Path | None = None
    patient: str = ""
    part: Part = Part.TRAINING
    index: int | None = None

    @property
    def group(self) -> str:
        """The patient, or the case itself where the patient is not known."""
        return self.patient or self.name

    def files(self) -> dict[str, Path]:
        """The source files by the role they play."""
        roles = {"image": self.image, "mask": self.mask, "lungs": self.lungs}
        return {role: path for role, path in roles.items() if path is not None}


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, or of a folder's file names and their SHA-256 (a DICOM series)."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(path).as_posix()} {sha256_of(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
