"""One meaning of "same grid": spacing, direction and origin up to the rounding of file headers."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_covid.geometry import Geometry, Turn, difference_of

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


CODES = ["".join(code) for axes in itertools.permutations(("LR", "PA", "SI")) for code in itertools.product(*axes)]


@pytest.mark.parametrize("code", CODES)
def test_every_order_of_the_axes_is_turned_as_dicom_lays_a_patient_and_back(code):
    array = np.arange(24).reshape(2, 3, 4)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 1.0, 2.0))
    stored = sitk.DICOMOrient(image, code)
    geometry, voxels = Geometry.of_itk(stored), sitk.GetArrayFromImage(stored)
    turn = Turn.upright(geometry)
    np.testing.assert_array_equal(turn(voxels), array)
    np.testing.assert_array_equal(turn.back(array), voxels)
    assert turn.spacing(geometry) == (0.5, 1.0, 2.0)


def test_an_oblique_volume_is_turned_to_the_nearest_axes():
    angle = np.deg2rad(30)
    cosines = np.array([[0, -np.sin(angle), np.cos(angle)], [-1, 0, 0], [0, np.cos(angle), np.sin(angle)]])
    turn = Turn.upright(Geometry((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), tuple(cosines.ravel())))
    assert turn == Turn((1, 2, 0), (1,))


def test_slices_are_left_as_they_are():
    plane = np.arange(6).reshape(2, 3)
    for geometry in (None, Geometry((1.0, 1.0), (0.0, 0.0), (-1.0, 0.0, 0.0, -1.0))):
        turn = Turn.upright(geometry)
        assert turn(plane) is plane
        assert turn.back(plane) is plane


@pytest.mark.parametrize(
    ("changed", "blank"),
    [
        ({}, True),
        ({"direction": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)}, True),
        ({"spacing": (1.0, 1.0, 2.0)}, False),
        ({"origin": (0.0, 0.0, 5.0)}, False),
        ({"direction": SIDEWAYS}, False),
    ],
)
def test_a_blank_geometry(changed, blank):
    nowhere = {"spacing": (1.0, 1.0, 1.0), "origin": (0.0, 0.0, 0.0), "direction": UPRIGHT}
    assert Geometry(**{**nowhere, **changed}).is_blank is blank
