"""The lung mask among the input channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from tqdm import tqdm

UNTOUCHED = "nonorm"
"""The channel name that our converters give a lung mask: nnU-Net leaves its values 0 and 1 alone."""


def channel_names(dataset_json: dict[str, Any]) -> list[str]:
    """Names of the input channels in order."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def promises_lung_mask(dataset_json: dict[str, Any]) -> bool:
    """Whether the last of several channels is a lung mask, by our converters' name or by a name with "lung" in it."""
    *images, last = channel_names(dataset_json)
    return bool(images) and (last.lower() == UNTOUCHED or "lung" in last.lower())


def check_channels(dataset_json: dict[str, Any], configuration: ConfigurationManager) -> None:
    """Do the plans know every channel of the data set?

    Raises:
        ValueError: If they were made for another number of channels.
    """
    promised = channel_names(dataset_json)
    planned = len(configuration.normalization_schemes)
    if len(promised) != planned:
        mask = ", the last one a lung mask" if promises_lung_mask(dataset_json) else ""
        msg = (
            f"dataset.json promises {len(promised)} input channels ({', '.join(promised)}{mask}), "
            f"but the plans are made for {planned}: run nnUNetv2_plan_and_preprocess again"
        )
        raise ValueError(msg)


def cases_without_lungs(dataset: Any, cases: Sequence[str]) -> list[str]:
    """The cases of an nnU-Net data set whose last channel is zero everywhere.

    Raises:
        ValueError: If a pre-processed image has fewer than two channels.
    """
    empty = []
    for case in tqdm(cases, desc="lung masks", unit="case", leave=False):
        data = dataset.load_case(case)[0]
        if data.shape[0] < 2:
            msg = f"the pre-processed image of {case} has no lung mask channel: run nnUNetv2_preprocess again"
            raise ValueError(msg)
        if not data[data.shape[0] - 1].any():
            empty.append(case)
    return empty
