import numpy as np
import pytest

from nnunet_covid.demo.geometry import coverage, ellipse, ellipsoid_section, intersection, paint, union

X, Y = np.meshgrid(np.arange(-40.0, 40.5, 0.5), np.arange(-40.0, 40.5, 0.5))


def test_circle_is_an_exact_distance():
    np.testing.assert_allclose(ellipse(X, Y, (3.0, -2.0), (10.0, 10.0)), np.hypot(X - 3.0, Y + 2.0) - 10.0, atol=1e-9)


def test_turned_ellipse_covers_its_area_and_points_where_asked():
    inside = ellipse(X, Y, (0.0, 0.0), (20.0, 8.0), angle=90.0) < 0.0
    assert inside.sum() * 0.25 == pytest.approx(np.pi * 20.0 * 8.0, rel=0.02)
    assert inside[:, 80].sum() > 2 * inside[80].sum()


def test_ellipsoid_section_shrinks_with_height_and_vanishes_beyond():
    areas = [(ellipsoid_section(X, Y, z, (0.0, 0.0, 0.0), (20.0, 20.0, 30.0)) < 0.0).sum() for z in (0, 18, 31)]
    assert areas[1] == pytest.approx(areas[0] * (1.0 - 0.6**2), rel=0.03)
    assert areas[2] == 0


def test_union_and_intersection_agree_with_sets_away_from_the_seam():
    left, right = ellipse(X, Y, (-8.0, 0.0), (12.0, 12.0)), ellipse(X, Y, (8.0, 0.0), (12.0, 12.0))
    clear = (np.abs(left - right) > 8.0) & (np.minimum(np.abs(left), np.abs(right)) > 1.0)
    assert ((union(left, right, blend=1.0) < 0.0) == ((left < 0.0) | (right < 0.0)))[clear].all()
    assert ((intersection(left, right, blend=1.0) < 0.0) == ((left < 0.0) & (right < 0.0)))[clear].all()


def test_coverage_is_half_on_the_border():
    assert coverage(np.array([-50.0, 0.0, 50.0]), 2.0).tolist() == pytest.approx([1.0, 0.5, 0.0])


def test_paint_mixes_by_share():
    canvas = np.array([0.0, 0.0, 0.0])
    paint(canvas, np.array([0.0, 0.25, 1.0]), 100.0)
    assert canvas.tolist() == [0.0, 25.0, 100.0]
