"""Which channel is a lung mask, and whether there is anything in it."""

from __future__ import annotations

from typing import Any

import numpy as np
import planned
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.nnunet.channels import cases_without_lungs, check_channels, promises_lung_mask


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"0": "CT"}, False),
        ({"0": "CT", "1": "nonorm"}, True),
        ({"0": "CT", "1": "Lung mask"}, True),
        ({"0": "nonorm"}, False),
        ({"1": "nonorm", "0": "CT", "2": "CT"}, False),
        ({"0": "CT", "1": "MRI"}, False),
    ],
)
def test_the_last_of_several_channels_may_be_a_lung_mask(names: dict[str, str], expected: bool) -> None:
    assert promises_lung_mask({"channel_names": names}) == expected


def test_plans_for_fewer_channels_are_refused() -> None:
    configuration = PlansManager(planned.plans()).get_configuration("2d")
    check_channels({"channel_names": {"0": "CT"}}, configuration)
    with pytest.raises(ValueError, match=r"promises 2 input channels \(CT, nonorm, the last one a lung mask\).*for 1"):
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
    assert cases_without_lungs(Cases({"a": lungs, "b": empty}), ["a", "b"]) == ["b"]


def test_a_missing_channel_is_told_by_case() -> None:
    with pytest.raises(ValueError, match="image of a has no lung mask channel"):
        cases_without_lungs(Cases({"a": np.ones((1, 1, 4, 4))}), ["a"])
