"""Linked unlabelled images as a training uses them: at least two, none of them a validation or test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.links import LinkedCases, find_link, link_again
from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of
from nnunet_covid.nnunet.preprocess import VOXELS


@dataclass(frozen=True)
class UnlabelledCases:
    """Unlabelled images that are linked to a configuration.

    Attributes:
        cases: Which.
        again: The command that links them anew.
    """

    cases: LinkedCases
    again: str

    def without(self, known: Mapping[str, str], *, refuse: bool) -> UnlabelledCases:
        """The same without images that are known by the content of their files.

        Args:
            known: Checksum of voxels to what it is of (:func:`nnunet_covid.nnunet.known_images.known_voxels`).
            refuse: Whether to refuse all if one is known.

        Raises:
            UserError: If one is known, or fewer than two are left.
        """
        folder = Path(nnUNet_preprocessed.get() or ".") / self.cases.folder
        try:
            voxels = {case: load_pickle(str(folder / f"{case}.pkl"))[VOXELS] for case in self.cases.cases}
        except KeyError:
            raise UserError(f"the images in {folder} were linked by an earlier version; run {self.again}") from None
        found = {case: known[one] for case, one in voxels.items() if one in known}
        if found and refuse:
            pairs = some_of([f"{case} = {other}" for case, other in found.items()])
            raise UserError(
                f"{len(found)} unlabelled image(s) are validation or test images ({pairs}): remove them from "
                f"{self.cases.name} and run {self.again}, or set leave_out_known = True"
            )
        left = tuple(case for case in self.cases.cases if case not in found)
        return replace(self, cases=replace(self.cases, cases=left)).at_least_two()

    def at_least_two(self) -> UnlabelledCases:
        """These, if there are two.

        Raises:
            UserError: If there are not.
        """
        number = len(self.cases.cases)
        if number < 2:
            raise UserError(
                f"{number or 'no'} unlabelled image of {self.cases.name} can be used, but boxes of one are put into "
                "another, which needs two: link a folder with more"
            )
        return self


def linked_unlabelled(plans: PlansManager, configuration: str) -> UnlabelledCases:
    """The unlabelled images that are linked to a configuration.

    Raises:
        UserError: If there are fewer than two, or this is the second stage of a cascade.
    """
    if plans.get_configuration(configuration).previous_stage_name is not None:
        raise UserError(
            "nothing of the previous stage is known of unlabelled images, so a cascade's second stage cannot use "
            "them: train 3d_fullres"
        )
    link = find_link(Path(nnUNet_preprocessed.get() or "."), plans, configuration, require_unlabelled=True)
    assert link is not None
    assert link.unlabelled is not None
    return UnlabelledCases(link.unlabelled, link_again(plans, configuration, link.unlabelled)).at_least_two()
