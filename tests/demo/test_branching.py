import numpy as np
import pytest

from nnunet_covid.demo.branching import MURRAY, Tubes, grow


@pytest.fixture(scope="module")
def tree():
    targets = np.random.default_rng(0).uniform(-50.0, 50.0, (300, 3))
    return grow(np.array([0.0, 0.0, -60.0]), targets, 0.5)


def test_tree_has_one_piece_per_target_and_is_connected(tree):
    assert len(tree.radius) == 300
    reached = {tuple(np.array([0.0, 0.0, -60.0]))}
    for start, end in zip(tree.start, tree.end, strict=True):  # in order of growth
        assert tuple(start) in reached
        reached.add(tuple(end))


def test_radii_follow_murrays_law_at_every_branching(tree):
    for i, end in enumerate(tree.end):
        children = np.flatnonzero((tree.start == end).all(axis=1))
        if len(children):
            assert tree.radius[i] ** MURRAY == pytest.approx((tree.radius[children] ** MURRAY).sum())
        else:
            assert tree.radius[i] == pytest.approx(0.5)


def test_way_from_the_root_is_not_much_longer_than_straight(tree):
    way = {(0.0, 0.0, -60.0): 0.0}
    for start, end in zip(tree.start, tree.end, strict=True):
        way[tuple(end)] = way[tuple(start)] + np.linalg.norm(end - start)
    straight = [np.linalg.norm(np.array(p) - (0.0, 0.0, -60.0)) for p in way]
    assert np.mean(np.array(list(way.values())[1:]) / straight[1:]) < 1.6


def test_a_tube_through_the_slice_is_a_disc_and_one_within_it_a_bar():
    x = np.arange(-20.0, 20.5, 0.5)
    upright = Tubes(np.array([[0.0, 0.0, -9.0]]), np.array([[0.0, 0.0, 9.0]]), np.array([4.0]))
    lying = Tubes(np.array([[-10.0, 0.0, 0.0]]), np.array([[10.0, 0.0, 0.0]]), np.array([2.0]))
    assert upright.share(x, x, 0.0).sum() * 0.25 == pytest.approx(np.pi * 16.0, rel=0.05)
    assert lying.share(x, x, 0.0).sum() * 0.25 == pytest.approx(20.0 * 4.0 + np.pi * 4.0, rel=0.05)
    assert upright.share(x, x, 30.0).max() == 0.0


def test_a_thread_thinner_than_a_pixel_is_faint():
    x = np.arange(-20.0, 21.0, 2.0)
    thin = Tubes(np.array([[-10.0, 0.0, 0.0]]), np.array([[10.0, 0.0, 0.0]]), np.array([0.2]))
    assert 0.0 < thin.share(x, x, 0.0).max() < 0.5
