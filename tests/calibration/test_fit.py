"""Fits from histograms against the same fits from all voxels."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit

from nnunet_covid.calibration.fit import (
    EDGES,
    Calibration,
    CaseCounts,
    Reliability,
    dice_curves,
    fit,
    fit_temperatures,
    fit_thresholds,
    logit,
    summed,
)
from nnunet_covid.evaluation.labels import LabelScheme, scheme_of_labels

ONE = scheme_of_labels({"background": 0, "infection": 1})
REGIONS = scheme_of_labels({"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3})
TWO = scheme_of_labels({"consolidation": 2, "ground_glass": 1, "background": 0})


def case_of(seed: int, threshold: float, temperature: float, voxels: int = 4000) -> tuple[NDArray, NDArray]:
    """Probabilities of one class, and a reference drawn with what calibration should say."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-1, 3, voxels).astype(np.float32)
    reference = rng.random(voxels) < expit((odds - logit(threshold)) / temperature)
    p = expit(odds)
    return np.stack([1 - p, p]), reference.astype(np.uint8)


def counted(cases: list[tuple[NDArray, NDArray]], scheme: LabelScheme = ONE) -> list[CaseCounts]:
    return [CaseCounts.of_case(p, reference, scheme) for p, reference in cases]


def dice_at(threshold: float, p: NDArray, reference: NDArray) -> float:
    predicted = p[1] > threshold
    return 2 * (predicted & (reference == 1)).sum() / (predicted.sum() + reference.sum())


def test_the_threshold_is_the_best_of_all_edges_for_the_mean_dice_over_cases() -> None:
    cases = [case_of(seed, 0.3, 1.5) for seed in range(5)]
    (found,) = fit_thresholds(counted(cases))
    candidates = expit(EDGES[np.abs(EDGES) < 4.5])
    means = [np.mean([dice_at(t, *case) for case in cases]) for t in candidates]
    assert np.mean([dice_at(found, *case) for case in cases]) == pytest.approx(max(means), abs=1e-4)
    curve = dice_curves(counted(cases))[0]
    np.testing.assert_allclose(curve[: len(EDGES) - 1][np.abs(EDGES[:-1]) < 4.5], means, atol=2e-3)


def test_the_temperature_that_drew_the_reference_is_found() -> None:
    cases = [case_of(seed, 0.3, 1.8, voxels=40_000) for seed in range(3)]
    (found,) = fit_temperatures(summed(counted(cases)), (0.3,), softmax=True)
    assert found == pytest.approx(1.8, rel=0.03)


@pytest.mark.parametrize(("temperature", "at_a_limit"), [(1.8, False), (50.0, True)])
def test_probabilities_that_say_hardly_anything_are_known_by_the_limit(temperature: float, at_a_limit: bool) -> None:
    cases = counted([case_of(seed, 0.5, temperature, voxels=40_000) for seed in range(3)])
    assert fit(cases, softmax=True, threshold=False).at_a_limit is at_a_limit


def test_the_temperature_equals_the_fit_on_all_voxels() -> None:
    p, reference = case_of(0, 0.6, 0.7)
    (found,) = fit_temperatures(counted([(p, reference)])[0], (0.4,), softmax=False)
    distance = (np.log(p[1]) - np.log(p[0]) - logit(0.4)) * np.where(reference == 1, -1, 1)
    direct = minimize_scalar(lambda t: np.logaddexp(0, distance / t).sum(), bounds=(0.3, 9), method="bounded")
    assert found == pytest.approx(direct.x, rel=1e-3)


def test_keeping_the_threshold_fits_the_temperature_alone() -> None:
    kept = fit(counted([case_of(0, 0.3, 2.0)]), softmax=True, threshold=False)
    assert kept.thresholds == (0.5,)
    assert kept.temperatures[0] > 1.5


def test_classes_of_a_softmax_share_a_temperature_and_regions_do_not() -> None:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 3, 5000).astype(np.uint8)
    softmax = rng.dirichlet([1, 1, 1], 5000).T
    two = fit(counted([(softmax, reference)], TWO), softmax=True)
    assert len(set(two.temperatures)) == 1
    sigmoid = np.stack([np.where(reference > 0, 0.8, 0.3), rng.random(5000)]).astype(np.float32)
    regions = fit(counted([(sigmoid, reference)], REGIONS), softmax=False)
    assert len(set(regions.temperatures)) == 2


def test_classes_stand_in_the_order_of_the_heads_and_compete() -> None:
    p = np.array([[0.1, 0.2, 0.6], [0.6, 0.3, 0.3], [0.3, 0.5, 0.1]])
    counts = CaseCounts.of_case(p, np.array([1, 1, 0], np.uint8), TWO)
    np.testing.assert_array_equal(counts.sizes, [2, 0])
    np.testing.assert_array_equal(counts.hits.sum(axis=1), [1, 0])  # consolidation is stronger in the second voxel
    np.testing.assert_array_equal(counts.false_alarms.sum(axis=1), [1, 1])
    np.testing.assert_array_equal(counts.outside.sum(axis=1), [1, 1])


def test_a_voxel_that_is_surely_no_background_counts_for_the_class_that_gets_it() -> None:
    logits = np.array([[0, 0], [23, 25], [25, 23.0]])
    p = np.exp(logits) / np.exp(logits).sum(axis=0)
    counts = CaseCounts.of_case(p, np.array([2, 2], np.uint8), TWO)
    np.testing.assert_array_equal(counts.hits.sum(axis=1), [0, 1])
    np.testing.assert_array_equal(counts.false_alarms.sum(axis=1), [1, 0])


def test_ignored_voxels_do_not_count() -> None:
    p = np.full((2, 4), 0.7, np.float32)
    counts = CaseCounts.of_case(p, np.array([3, 1, 2, 0], np.uint8), REGIONS)
    np.testing.assert_array_equal(counts.inside.sum(axis=1), [2, 1])
    np.testing.assert_array_equal(counts.outside.sum(axis=1), [1, 2])


def test_a_class_that_no_case_shows_keeps_its_threshold_and_temperature() -> None:
    p, _ = case_of(0, 0.5, 1)
    empty = fit(counted([(p, np.zeros(p.shape[1], np.uint8))]), softmax=True)
    assert empty == Calibration.identity(1, softmax=True)


def test_both_masks_empty_count_as_a_dice_of_one() -> None:
    p = np.stack([np.full(9, 0.9), np.full(9, 0.1)])
    curve = dice_curves(counted([(p, np.zeros(9, np.uint8))]))[0]
    assert curve[EDGES[:-1] == 0] == 1
    assert curve[0] == 0


def test_reliability_equals_sums_over_all_voxels() -> None:
    p, reference = case_of(3, 0.4, 2.0)
    (counts,) = counted([(p, reference)])
    found = Reliability.of_counts(counts, 0, Calibration.identity(1, softmax=True))
    assert found.mae == pytest.approx(np.abs(p[1] - reference).mean(), abs=1e-4)
    bins = np.minimum((p[1] * 15).astype(int), 14)
    gaps = [abs((p[1] - reference)[bins == i].sum()) for i in range(15)]
    assert found.expected_calibration_error == pytest.approx(sum(gaps) / len(reference), abs=2e-3)
    assert (found + found).mae == pytest.approx(found.mae)
