"""An image on another scale than the training images is refused; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.intensities import refuse_other_scale

HU = np.array([[[-1000.0, -650.0, 40.0, 900.0]]])
GREY = np.array([[[0.0, 12.0, 130.0, 255.0]]])
MASK = np.array([[[0.0, 1.0, 1.0, 0.0]]])
OF_GREY = {"min": 0.0, "max": 251.0, "percentile_00_5": 3.0}
OF_CT = {"min": -1010.0, "max": 300.0, "percentile_00_5": -890.0}
OF_EFFUSION = {"min": -180.0, "max": 140.0, "percentile_00_5": -60.0}


def told(image: np.ndarray, intensities: dict, *normalisations: str) -> str:
    try:
        plans = {"foreground_intensity_properties_per_channel": {"0": intensities}}
        refuse_other_scale(image, "case a", plans, normalisations)
    except UserError as e:
        return str(e)
    return ""


def test_the_other_scale_is_refused_with_what_was_found():
    grey_for_ct = told(GREY, OF_CT, "CTNormalization")
    assert grey_for_ct.startswith(
        "case a holds values from 0 to 255, no Hounsfield units, but the plans are made of Hou"
    )
    ct_for_grey = told(HU, OF_GREY, "ZScoreNormalization")
    assert ct_for_grey.startswith(
        "case a holds values from -1000 to 900, but the plans are made of grey values up to 255"
    )


def test_only_the_first_channel_counts():
    assert told(np.concatenate([HU, MASK]), OF_CT, "CTNormalization", "NoNormalization") == ""
    assert "grey values" in told(np.concatenate([HU, MASK]), OF_GREY, "ZScoreNormalization", "NoNormalization")


@pytest.mark.parametrize(
    ("image", "intensities", "normalisation"),
    [
        (HU, OF_CT, "CTNormalization"),
        (GREY, OF_GREY, "ZScoreNormalization"),
        (GREY, OF_EFFUSION, "CTNormalization"),  # may have no air in it
        (HU, {"min": 0.0, "max": 4095.0}, "ZScoreNormalization"),  # 12 bits, shifted by some scanners
        (HU, {}, "ZScoreNormalization"),
        (GREY, {}, "CTNormalization"),
        (HU, OF_CT, "ZScoreNormalization"),
    ],
)
def test_what_the_plans_do_not_tell_is_let_through(image, intensities, normalisation):
    assert told(image, intensities, normalisation) == ""


def test_plans_without_intensities_are_let_through():
    refuse_other_scale(HU, "case a", {}, ["ZScoreNormalization"])
    refuse_other_scale(HU, "case a", {"foreground_intensity_properties_per_channel": None}, [])
