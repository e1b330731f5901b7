"""The demo with reports: synthetic volumes to train on, then a patient's two visits as DICOM series, both reported on.

The steps, their journal and the way a command is run are those of :mod:`nnunet_covid.demo.pipeline`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from nnunet_covid.demo.chest import Chest, SyntheticCT
from nnunet_covid.demo.pipeline import PLANS, Demo, Settings, Step
from nnunet_covid.demo.synthetic import volume_of
from nnunet_covid.files import replacing_folder
from nnunet_covid.whole_volumes import write_volume

NUMBER, NAME = 510, "DemoCT"
WIDTH = 384.0  # of a slice, mm
THICKNESS = 5.0  # mm
VISITS = ("2020-03-28", "2020-04-11")
HEALING = 0.75
"""Diameter of a lesion at the second visit, of that at the first."""
ROOT = "2.25.5110"
"""Of the UIDs of the synthetic series."""


@dataclass(frozen=True)
class ReportSettings(Settings):
    """As the demo's; ``training`` counts volumes, ``test`` and ``unlabelled`` are not used."""

    training: int = 8
    pixel: float = 2.4
    base: str = "InfNetDiceCETrainer"
    epochs: int = 6
    iterations: int = 60


class ReportDemo(Demo):
    """One run of the demo with reports in its folder."""

    def __init__(self, folder: Path, settings: Settings, tell: Callable[[str], None] = print) -> None:
        """As the demo's."""
        super().__init__(folder, settings, tell)
        dataset = f"Dataset{NUMBER}_{NAME}"
        self.raw = self.folder / "nnUNet_raw" / dataset
        self.plans = self.folder / "nnUNet_preprocessed" / dataset / f"{PLANS}.json"
        self.model = self.folder / "nnUNet_results" / dataset / f"{settings.trainer}__{PLANS}__{settings.configuration}"
        self.visits = [self.folder / "visits" / day for day in VISITS]
        self.reports = [self.folder / "reports" / day for day in VISITS]

    @property
    def dataset(self) -> int:
        """Number of the data set."""
        return NUMBER

    def steps(self) -> list[Step]:
        """All steps in order."""
        data, convert, plan, train, *_ = super().steps()
        volumes = f"make {self.settings.training} volumes and a patient's two visits as DICOM series"
        reports = [
            (f"report {day}", f"report on the visit of {day}", lambda i=i: self._report_visit(i), self.reports[i])
            for i, day in enumerate(VISITS)
        ]
        return [(data[0], volumes, *data[2:]), convert, plan, train, *reports]

    def _make_data(self) -> None:
        """Step 1: volumes with masks, and two visits of a person who is not among them."""
        shutil.rmtree(self.source, ignore_errors=True)
        shutil.rmtree(self.visits[0].parent, ignore_errors=True)
        with replacing_folder(self.source) as unfinished:
            for kind in ("images", "masks"):
                (unfinished / kind).mkdir()
            for number in range(self.settings.training):
                made = self._volume(Chest(1000 * self.settings.seed + number))
                for kind, array in (("images", made.hounsfield.astype(np.int16)), ("masks", made.infection)):
                    write_volume(_upright(array, made), unfinished / kind / f"chest_{number:02d}.nii.gz")
        patient = Chest(1000 * self.settings.seed + self.settings.training)
        for day, folder in zip(VISITS, self.visits, strict=True):
            made = self._volume(patient)
            write_series(_upright(made.hounsfield.astype(np.int16), made), folder, day)
            for kind, mask in (("lungs", made.lungs > 0), ("infection", made.infection)):
                write_volume(_upright(mask.astype(np.uint8), made), self._drawn(kind, day))
            for lesion in patient.lesions:
                lesion.shrink(HEALING)

    def _drawn(self, kind: str, day: str) -> Path:
        """A visit's true ``lungs``, in the place of what a segmentation of lungs would give, or its ``infection``."""
        return self.visits[0].parent / f"{kind}_{day}.nii.gz"

    def _drawn_volume(self, day: str) -> float:
        """The infection of a visit as it was drawn, ml."""
        mask = sitk.ReadImage(str(self._drawn("infection", day)))
        return float(sitk.GetArrayViewFromImage(mask).sum() * np.prod(mask.GetSpacing()) / 1000.0)

    def _volume(self, chest: Chest) -> SyntheticCT:
        pixel = self.settings.pixel
        return volume_of(chest, size=round(WIDTH / pixel), thickness=THICKNESS, pixel=pixel)

    def _convert(self) -> None:
        """Step 2: the converter for one's own images."""
        arguments = ("folder", self.source, "-d", NUMBER, "--name", NAME, "--label", "infection=1", "--workers", 1)
        self._run("convert", "nnunet-covid", "convert", *arguments)

    def _report_visit(self, index: int) -> None:
        """Steps 5 and 6: the second visit beside the first."""
        shutil.rmtree(self.reports[index], ignore_errors=True)
        earlier = ("--previous", self.reports[index - 1]) if index else ()
        visit, lungs, device = self.visits[index], self._drawn("lungs", VISITS[index]), self.settings.device
        arguments = (visit, "-m", self.model, "-o", self.reports[index], "--lungs", lungs, "-device", device)
        self._run(f"report_{index + 1}", "nnunet-covid", "report", *arguments, *earlier)

    def _report(self) -> float:
        """The infection of both visits; returns that of the second, ml."""
        volumes = [
            json.loads((r / "report.json").read_text(encoding="utf-8"))["quantities"]["infection_ml"]
            for r in self.reports
        ]
        minutes = sum(self._done.values()) / 60.0
        found = ", ".join(
            f"{volume:.0f} ml on {day} ({self._drawn_volume(day):.0f} ml drawn)"
            for volume, day in zip(volumes, VISITS, strict=True)
        )
        self._tell(f"Infection {found}, after {minutes:.1f} minutes.")
        for folder in self.reports:
            self._tell(f"report       {folder / 'report.html'}")
        return float(volumes[-1])


def _upright(array: NDArray[Any], made: SyntheticCT) -> sitk.Image:
    """A volume drawn from the apex down as an image whose slices rise."""
    image = sitk.GetImageFromArray(array[::-1].copy())
    image.SetSpacing(made.spacing[::-1])
    return image


def write_series(image: sitk.Image, folder: Path, day: str) -> None:
    """A volume as a CT series, one file a slice, written by SimpleITK.

    Args:
        image: Hounsfield units, axial slices.
        folder: Appears when it is complete.
        day: ISO 8601.
    """
    plain = day.replace("-", "")
    study, series = f"{ROOT}.{plain}", f"{ROOT}.{plain}.1"
    direction = np.reshape(image.GetDirection(), (3, 3))
    common = {
        "0008|0008": "DERIVED\\SECONDARY\\AXIAL", "0008|0016": "1.2.840.10008.5.1.4.1.1.2", "0008|0020": plain,
        "0008|0030": "080000", "0008|0060": "CT", "0010|0010": "Synthetic^Chest", "0010|0020": "SYNTHETIC",
        "0010|0030": "", "0010|0040": "O", "0008|0050": "", "0008|0090": "", "0020|0010": "1",
        "0020|000d": study, "0020|000e": series, "0020|0011": "1", "0020|0052": f"{ROOT}.{plain}.2",
        "0020|0037": "\\".join(f"{v:g}" for v in (*direction[:, 0], *direction[:, 1])),
        "0018|0050": f"{image.GetSpacing()[2]:g}", "0028|1052": "0", "0028|1053": "1", "0020|1040": "",
    }  # fmt: skip
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    with replacing_folder(folder) as unfinished:
        for index in range(image.GetSize()[2]):
            slice_ = image[:, :, index]
            position = image.TransformIndexToPhysicalPoint((0, 0, index))
            own = {
                "0008|0018": f"{series}.{index + 1}", "0020|0013": str(index + 1),
                "0020|0032": "\\".join(f"{v:g}" for v in position),
            }  # fmt: skip
            for key, value in {**common, **own}.items():
                slice_.SetMetaData(key, value)
            writer.SetFileName(str(unfinished / f"{index + 1:04d}.dcm"))
            writer.Execute(slice_)
