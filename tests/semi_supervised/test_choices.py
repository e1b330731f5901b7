"""Selection, confidence, soft labels, stopping and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_covid.semi_supervised.labelling import STEPS, Heads, mean_confidence
from nnunet_covid.semi_supervised.rounds import best_round, draw_at_random, most_confident, no_longer_improves, seed_for

CLASSES, REGIONS = Heads((0, 1, 2)), Heads((1, 2), regions=True)


def test_a_draw_depends_on_the_set_and_the_seed_alone() -> None:
    cases = [f"c{i:02d}" for i in range(40)]
    drawn = draw_at_random(cases, 5, 7)
    assert drawn == draw_at_random(reversed(cases), 5, 7)
    assert drawn != draw_at_random(cases, 5, 8)
    assert len(set(drawn)) == 5
    assert set(drawn) < set(cases)
    assert draw_at_random(cases[:3], 5, 7) == cases[:3]


def test_every_case_is_drawn_about_as_often() -> None:
    cases = [f"c{i}" for i in range(10)]
    times = dict.fromkeys(cases, 0)
    for seed in range(2000):
        for case in draw_at_random(cases, 3, seed):
            times[case] += 1
    # binomial, n = 2000, p = 0.3: standard deviation 20.5
    assert all(abs(n - 600) < 5 * 20.5 for n in times.values())


def test_the_most_confident_come_first_and_ties_by_name() -> None:
    assert most_confident({"a": 0.1, "c": 0.9, "b": 0.9, "d": 0.5}, 3) == ["b", "c", "d"]


def test_seeds_differ_between_units_and_not_between_processes() -> None:
    seeds = {seed_for(s, r, p) for s in range(3) for r in range(30) for p in ("select", "train x", "initialise x")}
    assert len(seeds) == 270
    assert seed_for(1, 2, "select") == 3150545541, "runs that are interrupted go on with the seeds they began with"
    assert min(seeds) >= 0
    assert max(seeds) < 2**32


def test_confidence_counts_the_predicted_foreground() -> None:
    sure = np.array([1.0, 0.9, 0.7, 1.0])
    assert mean_confidence(sure, np.array([0, 1, 2, 0])) == pytest.approx(0.8)
    assert mean_confidence(sure, np.zeros(4, int)) == pytest.approx(0.9), "all voxels where nothing is predicted"


def test_confidence_of_regions_is_that_of_the_least_sure_one() -> None:
    probabilities = np.array([[0.9, 0.2], [0.4, 0.01]])
    np.testing.assert_allclose(REGIONS.certainty_of_prediction(probabilities, probabilities), [0.6, 0.8])
    np.testing.assert_allclose(CLASSES.certainty_of_prediction(probabilities, probabilities), [0.9, 0.2])


def test_what_is_predicted_and_how_certain_it_is_may_come_from_different_arrays() -> None:
    probabilities, voted = np.array([[0.6, 0.1], [0.4, 0.9]]), np.array([[0.25, 0.0], [0.75, 1.0]])
    np.testing.assert_allclose(CLASSES.certainty_of_prediction(probabilities, voted), [0.25, 1.0])
    np.testing.assert_allclose(REGIONS.certainty_of_prediction(probabilities, voted), [0.25, 1.0])


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4)])
def test_votes_are_counted_over_the_mirrored_predictions(shape: tuple[int, ...]) -> None:
    logits = list(np.random.default_rng(0).normal(size=(4, 3, *shape)))
    for regions in (False, True):
        found = Heads((0, 1, 2), regions).votes(logits)
        for index in np.ndindex(shape):
            expected = np.zeros(3)
            for one in logits:
                scores = one[(slice(None), *index)]
                expected += (scores > 0) if regions else (np.arange(3) == scores.argmax())
            np.testing.assert_allclose(found[(slice(None), *index)], expected / 4)


def test_soft_labels_have_each_class_as_often_as_its_probability() -> None:
    probabilities = np.array([[0.2, 0.0], [0.5, 1.0], [0.3, 0.0]], np.float32)
    stored = CLASSES.to_bytes(probabilities)
    levels = (np.arange(STEPS) + 0.5) / STEPS
    drawn = np.array([CLASSES.draw(stored, u) for u in levels])
    for value in range(3):
        np.testing.assert_allclose((drawn == value).mean(0), probabilities[value], atol=1 / STEPS)


def test_soft_regions_stay_inside_each_other() -> None:
    probabilities = np.array([[0.9, 0.6, 0.1], [0.7, 0.2, 0.1]], np.float32)
    stored = REGIONS.to_bytes(probabilities)
    levels = (np.arange(STEPS) + 0.5) / STEPS
    drawn = np.array([REGIONS.draw(stored, u) for u in levels])
    np.testing.assert_allclose((drawn > 0).mean(0), probabilities[0], atol=1 / STEPS)
    np.testing.assert_allclose((drawn == 2).mean(0), probabilities[1], atol=1 / STEPS)


def test_one_draw_is_a_shape() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32)[None]
    region = Heads((1,), regions=True)
    label = region.draw(region.to_bytes(ramp), 0.5)
    assert np.abs(np.diff(label)).sum() == 1, "one threshold for the whole image"


@pytest.mark.parametrize(
    ("dice", "patience", "ends", "best"),
    [
        ([0.5], 1, False, 0),
        ([0.5, 0.6], 1, False, 1),
        ([0.5, 0.6, 0.6], 1, True, 1),
        ([0.5, 0.4], 1, True, 0),
        ([0.5, 0.4], 2, False, 0),
        ([0.5, 0.4, 0.45], 2, True, 0),
        ([0.5, 0.4, 0.55], 2, False, 2),
        ([math.nan, 0.1], 1, False, 1),
        ([0.1, math.nan], 1, True, 0),
        ([math.nan], 1, False, 0),
        ([math.nan, math.nan], 1, True, 1),
    ],
)
def test_the_iteration_ends_when_dice_no_longer_improves(
    dice: list[float], patience: int, ends: bool, best: int
) -> None:
    assert no_longer_improves(dice, patience) is ends
    assert best_round(dice) == best
