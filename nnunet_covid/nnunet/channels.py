"""The lung mask among the input channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager
from tqdm import tqdm

GUIDED_KEY = "nnunet_covid_guided"
"""Entry of a guided data set's dataset.json that says how its last channel, the infection map, was made."""
UNTOUCHED = "nonorm"
"""The channel name that our converters give a lung mask: nnU-Net leaves its values 0 and 1 alone."""


def channel_names(dataset_json: dict[str, Any]) -> list[str]:
    """Names of the input channels in order."""
    names = dataset_json.get("channel_names") or dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def lung_mask_channel(dataset_json: dict[str, Any]) -> int | None:
    """Index of the lung mask: the last of several channels, by our converters' name or by a name with "lung" in it.

    The infection map of a guided data set, which is the last of all, does not count. ``None`` if there is no mask.
    """
    names = channel_names(dataset_json)
    if GUIDED_KEY in dataset_json:
        names.pop()
    last = names[-1].lower()
    return len(names) - 1 if len(names) > 1 and (last == UNTOUCHED or "lung" in last) else None


def check_channels(dataset_json: dict[str, Any], configuration: ConfigurationManager) -> None:
    """Do the plans know every channel of the data set?

    Raises:
        ValueError: If they were made for another number of channels.
    """
    promised = channel_names(dataset_json)
    planned = len(configuration.normalization_schemes)
    if len(promised) != planned:
        channel = lung_mask_channel(dataset_json)
        mask = "" if channel is None else f"; number {channel} is a lung mask"
        msg = (
            f"dataset.json promises {len(promised)} input channels ({', '.join(promised)}{mask}), "
            f"but the plans are made for {planned}: run nnUNetv2_plan_and_preprocess again"
        )
        raise ValueError(msg)


def cases_without_lungs(dataset: Any, cases: Sequence[str], channel: int) -> list[str]:
    """The cases of an nnU-Net data set whose lung mask is zero everywhere.

    Args:
        channel: Index of the mask.

    Raises:
        ValueError: If a pre-processed image has no such channel.
    """
    empty = []
    for case in tqdm(cases, desc="lung masks", unit="case", leave=False):
        data = dataset.load_case(case)[0]
        if data.shape[0] <= channel:
            msg = f"the pre-processed image of {case} has no lung mask channel: run nnUNetv2_preprocess again"
            raise ValueError(msg)
        if not data[channel].any():
            empty.append(case)
    return empty
