"""What one data set contributes to its conversion: everything else is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask.segment import refuse_unused_weights
from nnunet_covid.raw_dataset.case import SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.data_set_info import DataSetInfo
from nnunet_covid.raw_dataset.options import Options
from nnunet_covid.raw_dataset.problems import Problems
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.splits import SplitRule, patient_folds


@dataclass(frozen=True)
class Recipe:
    """How to read one data set; without further words one of CT volumes.

    The functions live at module level, so that worker processes find them.

    Attributes:
        info: Facts about the data set.
        find_cases: Lists the cases of a source folder; what is wrong with the layout goes into the problems.
        read: Reads one case; its ``label`` already holds the scheme's values.
        schemes: Class schemes by name; the first is the default.
        channel: nnU-Net channel name, which chooses the normalisation.
        file_ending: Ending of the converted images.
        has_volumes: Whether the cases are volumes, from which slices can be taken.
        split: Which training cases are validated on in which fold.
        defaults: The options that apply if the user says nothing.
    """

    info: DataSetInfo
    find_cases: Callable[[Path, Problems], list[SourceCase]]
    read: Callable[[SourceCase, ClassScheme], Scan]
    schemes: Mapping[str, ClassScheme]
    channel: str = "CT"
    file_ending: str = ".nii.gz"
    has_volumes: bool = True
    split: SplitRule = patient_folds
    defaults: Options = field(default_factory=Options)

    @property
    def is_hu(self) -> bool:
        """Whether the images hold Hounsfield units."""
        return self.channel == "CT"

    def scheme(self, options: Options) -> ClassScheme:
        """The class scheme that the options ask for."""
        return self.schemes[options.classes or next(iter(self.schemes))]

    def check(self, options: Options) -> None:
        """Refuse options that make no sense for this data set.

        Raises:
            UserError: Naming the option.
        """
        name = self.info.command
        if options.classes is not None and options.classes not in self.schemes:
            raise UserError(f"{name} has no classes {options.classes!r}; choose from {', '.join(self.schemes)}")
        if options.window is not None and not self.is_hu:
            raise UserError(f"{name} holds grey values, not Hounsfield units; leave out --window")
        if options.window is not None and options.window[0] >= options.window[1]:
            raise UserError(f"--window {options.window[0]:g} {options.window[1]:g}: give the lower end first")
        if options.slices is not None and not self.has_volumes:
            raise UserError(f"{name} already consists of slices; leave out --slices")
        if options.splits is not None and not options.splits.is_file():
            raise UserError(f"{options.splits} does not exist; give a JSON file with folds")
        refuse_unused_weights(options.lung_method, options.lung_weights)
        if options.lung_weights is not None and not options.lung_weights.is_file():
            raise UserError(f"{options.lung_weights} does not exist; give the .pth file with lungmask's weights")
