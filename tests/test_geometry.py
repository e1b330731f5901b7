"""One meaning of "same grid": spacing, direction and origin up to the rounding of file headers."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_covid.geometry import Geometry, difference_of

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Geometry((0.7, 0.8, 5.0), (-10.0, 20.0, -30.0), UPRIGHT)
SIDEWAYS = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0)  # slices follow each other along x


@pytest.mark.parametrize(
    ("changed", "aspect"),
    [
        ({}, None),
        ({"spacing": (0.7005, 0.8, 5.0)}, None),
        ({"spacing": (0.71, 0.8, 5.0)}, "spacing"),
        ({"direction": (1.0, 5e-4, 0.0, -5e-4, 1.0, 0.0, 0.0, 0.0, 1.0)}, None),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)}, "direction"),
        ({"origin": (-10.05, 20.0, -30.4)}, None),
        ({"origin": (-10.1, 20.0, -30.0)}, "origin"),
        ({"origin": (-10.0, 20.0, -30.6)}, "origin"),
        ({"origin": ()}, "origin"),
    ],
)
def test_grids_agree_up_to_rounding(changed, aspect):
    assert difference_of(Geometry(**{**vars(GRID), **changed}), GRID) == aspect


def test_the_shift_of_origins_is_measured_along_the_axes():
    reference = Geometry(GRID.spacing, (0.0, 0.0, 0.0), SIDEWAYS)
    assert difference_of(Geometry(GRID.spacing, (0.4, 0.0, 0.0), SIDEWAYS), reference) is None
    assert difference_of(Geometry(GRID.spacing, (0.0, 0.0, 0.4), SIDEWAYS), reference) == "origin"


def test_an_image_without_geometry_is_like_its_kind_only():
    assert difference_of(None, None) is None
    assert difference_of(None, GRID) == difference_of(GRID, None) == "spacing"


def test_everything_is_in_the_order_of_simpleitk():
    image = sitk.GetImageFromArray(np.zeros((4, 3, 2), dtype=np.uint8))
    image.SetSpacing(GRID.spacing)
    image.SetOrigin(GRID.origin)
    image.SetDirection(GRID.direction)
    assert Geometry.of_itk(image) == GRID
