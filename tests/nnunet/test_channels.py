"""Which channel is a lung mask, and whether there is anything in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import planned
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.dataset_json import GUIDED_KEY, lung_mask_channel
from nnunet_covid.nnunet.preprocess import cases_without_lungs, check_channels


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"0": "CT"}, None),
        ({"0": "CT", "1": "nonorm"}, 1),
        ({"0": "CT", "1": "Lung mask"}, 1),
        ({"0": "nonorm"}, None),
        ({"1": "nonorm", "0": "CT", "2": "CT"}, None),
        ({"0": "CT", "1": "MRI"}, None),
    ],
)
def test_the_last_of_several_channels_may_be_a_lung_mask(names: dict[str, str], expected: int | None) -> None:
    assert lung_mask_channel({"channel_names": names}) == expected


def test_an_infection_map_is_no_lung_mask() -> None:
    guided = {GUIDED_KEY: {"map": "label"}}
    assert lung_mask_channel({"channel_names": {"0": "CT", "1": "nonorm"}, **guided}) is None
    assert lung_mask_channel({"channel_names": {"0": "CT", "1": "nonorm", "2": "nonorm"}, **guided}) == 1


def test_plans_for_fewer_channels_are_refused() -> None:
    configuration = PlansManager(planned.plans()).get_configuration("2d")
    check_channels({"channel_names": {"0": "CT"}}, configuration)
    with pytest.raises(ValueError, match=r"promises 2 input channels \(CT, nonorm; number 1 is a lung mask\).*for 1"):
        check_channels({"channel_names": {"0": "CT", "1": "nonorm"}}, configuration)


class Cases:
    """As much of nnU-Net's data set as is looked at."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        self.images = images

    def load_case(self, case: str) -> tuple[Any, ...]:
        return self.images[case], None, None, {}


def test_empty_masks_are_found_whatever_the_image_holds() -> None:
    lungs = np.zeros((2, 1, 4, 4))
    lungs[1, 0, 2, 2] = 1
    empty = np.ones((2, 1, 4, 4))
    empty[1] = 0
    assert cases_without_lungs(Cases({"a": lungs, "b": empty}), ["a", "b"], 1) == ["b"]
    assert cases_without_lungs(Cases({"a": lungs, "b": empty}), ["a", "b"], 0) == ["a"]


def test_a_missing_channel_is_told_by_case() -> None:
    with pytest.raises(ValueError, match="image of a has no lung mask channel"):
        cases_without_lungs(Cases({"a": np.ones((1, 1, 4, 4))}), ["a"], 1)
