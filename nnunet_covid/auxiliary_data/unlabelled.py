"""Linked unlabelled images as a training uses them: none of them a validation or test image."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.links import LinkedCases, find_link, link_again, preprocessed_folder
from nnunet_covid.errors import UserError
from nnunet_covid.files import environment_folder, some_of
from nnunet_covid.nnunet.dataset import read_splits
from nnunet_covid.nnunet.known_images import known_voxels, not_compared
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

    def unseen(
        self,
        plans: PlansManager,
        dataset_json: dict[str, Any],
        validation: Collection[str],
        *,
        refuse: bool,
        fewest: int = 2,
    ) -> LinkedCases:
        """These images, none of which is a validation or test image by the content of its files.

        Args:
            plans, dataset_json: Of the data set; its raw data are compared where nnU-Net knows of them.
            validation: Its cases that the training is validated on.
            refuse: Whether to refuse all if one is among them, or to leave that one out. Of the data set's own
                ``imagesTr`` it is always left out: who links that folder knows that they are in it.
            fewest: How many must be left.

        Raises:
            UserError: If one is refused, an image cannot be read, or too few are left.
        """
        raw = environment_folder("nnUNet_raw")
        raw = raw and raw / plans.dataset_name
        if line := not_compared(raw, dataset_json, validation):
            print(line)
        known = known_voxels(raw, plans, dataset_json, validation)
        if not known:
            return self.cases
        folder = preprocessed_folder() / self.cases.folder
        try:
            voxels = {case: load_pickle(str(folder / f"{case}.pkl"))[VOXELS] for case in self.cases.cases}
        except KeyError:
            raise UserError(f"the images in {folder} were linked by an earlier version; run {self.again}") from None
        found = {case: known[one] for case, one in voxels.items() if one in known}
        own = raw is not None and Path(self.cases.name).resolve() == (raw / "imagesTr").resolve()
        if found and refuse and not own:
            pairs = some_of([f"{case} = {other}" for case, other in found.items()])
            raise UserError(
                f"{len(found)} unlabelled image(s) are validation or test images ({pairs}): remove them from "
                f"{self.cases.name} and run {self.again}, or set leave_out_known = True"
            )
        left = tuple(case for case in self.cases.cases if case not in found)
        return replace(self, cases=replace(self.cases, cases=left)).at_least(fewest).cases

    def at_least(self, fewest: int) -> UnlabelledCases:
        """These, if there are so many, one or two.

        Raises:
            UserError: If there are not.
        """
        number = len(self.cases.cases)
        if number < fewest:
            why = ", but boxes of one are put into another, which needs two" if fewest > 1 else ""
            raise UserError(
                f"{number or 'no'} unlabelled image of {self.cases.name} can be used{why}: link a folder with more"
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
    link = find_link(preprocessed_folder(), plans, configuration, require_unlabelled=True)
    assert link is not None
    assert link.unlabelled is not None
    return UnlabelledCases(link.unlabelled, link_again(plans, configuration, link.unlabelled)).at_least(2)


def validation_cases(dataset: str, fold: int | str) -> list[str] | None:
    """Of a fold; ``None`` while nnU-Net has not made it. With fold ``all`` no case is kept out."""
    if fold == "all":
        return []
    splits = read_splits(dataset)
    return splits[int(fold)]["val"] if splits is not None and int(fold) < len(splits) else None
