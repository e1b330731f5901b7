"""What one data set contributes to its conversion, and what the user may choose about it: everything else is shared.

Plain data and functions: nothing here reads an image. The work is in ``convert``.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nnunet_covid.dataset_json import GREY, UNTOUCHED, WINDOW_KEY, label_values
from nnunet_covid.errors import UserError
from nnunet_covid.files import sha256_of
from nnunet_covid.lung_mask import check_weights
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.scan import Scan, SliceSelection
from nnunet_covid.raw_dataset.source import Problems, relative_name
from nnunet_covid.raw_dataset.splits import SplitRule, patient_folds
from nnunet_covid.volume_files import data_files


@dataclass(frozen=True)
class DatasetInfo:
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
        shows_lungs: Whether its volume cannot be right without lungs.
        blank_masks: Whether a mask of its image's size with a blank header lies on its image's grid.
    """

    name: str
    image: Path
    mask: Path | None = None
    lungs: Path | None = None
    patient: str = ""
    part: Part = Part.TRAINING
    index: int | None = None
    shows_lungs: bool = True
    blank_masks: bool = False

    @property
    def group(self) -> str:
        """The patient, or the case itself where the patient is not known."""
        return self.patient or self.name

    def digests(self, source: Path) -> dict[str, dict[str, str]]:
        """Role to relative file name and SHA-256 of the case's files, those behind a header included."""
        roles = {"image": self.image, "mask": self.mask, "lungs": self.lungs}
        files = {role: path for role, path in roles.items() if path is not None}
        for role, path in list(files.items()):
            files |= {f"{role} data {index}": file for index, file in enumerate(data_files(path))}
        return {role: {"file": relative_name(path, source), "sha256": sha256_of(path)} for role, path in files.items()}


@dataclass(frozen=True)
class Options:
    """How the cases are changed on the way; part of the conversion's identity, so plain data throughout.

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

    def to_json(self) -> dict[str, Any]:
        """The options as they stand in ``conversion.json``; files by their checksum."""
        entries = asdict(self)
        for name in ("lung_weights", "splits"):
            entries[name] = None if entries[name] is None else sha256_of(entries[name])
        if self.slices is not None or self.crop is not None or self.lung_mask_channel:
            entries["axial_slices"] = "LPS"  # since they are looked for in this orientation, however a volume is stored
        return {key: list(value) if isinstance(value, tuple) else value for key, value in entries.items()}


@dataclass(frozen=True)
class Recipe:
    """How to read one data set; without further words one of CT volumes.

    Attributes:
        info: Facts about the data set.
        find_cases: Lists the cases of a source folder; what is wrong with the layout goes into the problems.
        read: Reads one case; its ``label`` already holds the scheme's values. At module level, so that worker
            processes find it.
        schemes: Class schemes by name; the first is the default.
        channel: nnU-Net channel name, which chooses the normalisation; ``None`` where the images' values decide.
        file_ending: Ending of the converted images.
        has_volumes: Whether the cases are volumes, from which slices can be taken.
        check_headers: Whether masks must lie on their image's grid and ``find_cases`` leaves this to the conversion.
        split: Which training cases are validated on in which fold.
        defaults: The options that apply if the user says nothing.
    """

    info: DatasetInfo
    find_cases: Callable[[Path, Problems], list[SourceCase]]
    read: Callable[[SourceCase, ClassScheme], Scan]
    schemes: Mapping[str, ClassScheme]
    channel: str | None = "CT"
    file_ending: str = ".nii.gz"
    has_volumes: bool = True
    check_headers: bool = True
    split: SplitRule = patient_folds
    defaults: Options = field(default_factory=Options)

    @property
    def is_hu(self) -> bool:
        """Whether the images hold Hounsfield units, as far as is known before they are read."""
        return self.channel in ("CT", None)

    def scheme(self, options: Options) -> ClassScheme:
        """The class scheme that the options ask for."""
        return self.schemes[options.classes or next(iter(self.schemes))]

    def check(self, options: Options) -> None:
        """Refuse options that make no sense for this data set.

        Raises:
            UserError: About the option.
        """
        name, window = self.info.command, options.window
        if options.classes is not None and options.classes not in self.schemes:
            raise UserError(f"{name} has no classes {options.classes!r}; choose from {', '.join(self.schemes)}")
        if window is not None and not self.is_hu:
            raise UserError(f"{name} holds grey values, not Hounsfield units; leave out the window", about="window")
        if window is not None and not -math.inf < window[0] < window[1] < math.inf:
            reason = "give two numbers, the lower end first"
            raise UserError(f"the window {window[0]:g} {window[1]:g}: {reason}", about="window")
        if options.slices is not None and not self.has_volumes:
            raise UserError(f"{name} already consists of slices; ask for none", about="slices")
        if options.splits is not None and not options.splits.is_file():
            raise UserError(f"{options.splits} does not exist; give a JSON file with folds")
        check_weights(options.lung_method, options.lung_weights)

    def dataset_json(self, options: Options, training_cases: int, channel: str) -> dict[str, Any]:
        """nnU-Net's description of the data set.

        Args:
            options: Of the conversion.
            training_cases: How many there are.
            channel: Name of the first channel, where no window has been applied.

        Not by nnU-Net's ``generate_dataset_json``, which orders and indents the same entries differently: conversions
        made before must be known again.
        """
        info = self.info
        channels = {"0": GREY if options.window else channel}
        if options.lung_mask_channel:
            channels["1"] = UNTOUCHED
        entries: dict[str, Any] = {
            "name": info.name,
            "description": info.title,
            "reference": f"{info.paper}; {info.url}",
            "licence": info.licence,
            "converted_by": f"nnunet-covid convert {info.command}, conversion version {info.version}",
            "channel_names": channels,
            **({WINDOW_KEY: list(options.window)} if options.window else {}),
            **self.scheme(options).dataset_json_entries(),
            "numTraining": training_cases,
            "file_ending": self.file_ending,
        }
        if self.file_ending == ".png":
            entries["overwrite_image_reader_writer"] = "NaturalImage2DIO"
        return entries

    def request(self, options: Options) -> dict[str, Any]:
        """What is asked for: two conversions of the same files with the same request give the same bytes."""
        scheme = self.scheme(options)
        sought = options.slices is not None and options.slices.only_with_lesion
        written = {value for values in label_values(scheme.labels).values() for value in values}
        told = sought and {0, *scheme.lesions} != written
        return {
            "data_set": self.info.command,
            "version": self.info.version,
            "options": options.to_json(),
            "label_table": {str(source): value for source, value in scheme.values.items()},
            **scheme.dataset_json_entries(),
            **({"lesions": scheme.lesions} if told else {}),  # since organs and what is not labelled are none
        }
