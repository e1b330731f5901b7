"""Statistics of two methods on the same cases, against figures computed otherwise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_covid.evaluation.paired_statistics import (
    bootstrap_interval,
    cohen_dz,
    holm,
    paired_statistics,
    rank_biserial,
    t_test_p,
    wilcoxon_p,
)

DIFFERENCES = arrays(np.float64, st.integers(2, 12), elements=st.integers(-5, 5).map(float))


def test_t_test_of_an_example_computed_by_hand():
    # d = 1, 2, 3: mean 2, s = 1, t = 2√3; two-sided p for 2 degrees of freedom is 1 − t/√(t² + 2).
    t = 2 * math.sqrt(3)
    assert t_test_p(np.array([1.0, 2, 3])) == pytest.approx(1 - t / math.sqrt(t * t + 2))


def test_wilcoxon_of_an_example_counted_by_hand():
    # Of the 2⁵ sign patterns of five differences, one has a rank sum of 15 and one of 0.
    assert wilcoxon_p(np.array([1.0, 2, 3, 4, 5])) == pytest.approx(2 / 32)
    # Only the smallest is negative: a smaller rank sum W ≤ 1 has 2 patterns on either side.
    assert wilcoxon_p(np.array([-1.0, 2, 3, 4, 5])) == pytest.approx(4 / 32)
    assert wilcoxon_p(np.array([-1.0, 2, 3, 4, 5, 0])) == pytest.approx(4 / 32)


def test_effect_sizes_of_an_example_computed_by_hand():
    difference = np.array([-1.0, 2, 3, 4])
    assert cohen_dz(difference) == pytest.approx(2 / np.std(difference, ddof=1))
    assert rank_biserial(difference) == pytest.approx((2 + 3 + 4 - 1) / 10)


def test_methods_that_never_differ():
    values = np.array([0.5, 0.7, 0.9])
    result = paired_statistics(values, values.copy())
    assert (result.t_test_p, result.wilcoxon_p) == (1.0, 1.0)
    assert (result.cohen_dz, result.rank_biserial, result.ties) == (0.0, 0.0, 3)
    assert result.interval == (0.0, 0.0)


def test_a_constant_difference_is_beyond_any_chance():
    result = paired_statistics(np.arange(6.0) + 1, np.arange(6.0))
    assert result.t_test_p == 0.0
    assert result.cohen_dz == math.inf
    assert result.rank_biserial == 1.0
    assert result.interval == (1.0, 1.0)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_cases_give_no_p_value(n):
    result = paired_statistics(np.ones(n), np.zeros(n))
    assert result.n == n
    assert math.isnan(result.t_test_p)
    assert math.isnan(result.wilcoxon_p)
    assert math.isnan(result.interval[0])


def test_a_case_without_a_value_is_dropped_for_both():
    a, b = np.array([1.0, math.nan, 3, 4]), np.array([0.0, 5, math.nan, 3])
    result = paired_statistics(a, b)
    assert (result.n, result.mean_a, result.mean_b) == (2, 2.5, 1.5)


def test_the_bootstrap_interval_approaches_that_of_the_normal_distribution():
    difference = np.random.default_rng(3).normal(0.2, 1, 400)
    half_width = 1.96 * difference.std() / math.sqrt(400)
    low, high = bootstrap_interval(difference)
    assert low == pytest.approx(difference.mean() - half_width, abs=0.01)
    assert high == pytest.approx(difference.mean() + half_width, abs=0.01)
    assert bootstrap_interval(difference, seed=0) == (low, high)
    assert bootstrap_interval(difference, seed=1) != (low, high)


@settings(max_examples=10)  # SciPy counts the exact distribution anew each time
@given(DIFFERENCES)
def test_swapping_the_methods_turns_the_signs_and_keeps_p(difference):
    zero = np.zeros_like(difference)
    there, back = paired_statistics(difference, zero), paired_statistics(zero, difference)
    assert there.mean_difference == -back.mean_difference
    assert there.rank_biserial == pytest.approx(-back.rank_biserial)
    assert (there.wins, there.losses) == (back.losses, back.wins)
    assert there.t_test_p == pytest.approx(back.t_test_p)
    assert there.wilcoxon_p == pytest.approx(back.wilcoxon_p)


@settings(max_examples=10)  # SciPy counts the exact distribution anew each time
@given(DIFFERENCES)
def test_all_figures_keep_their_bounds(difference):
    result = paired_statistics(difference, np.zeros_like(difference))
    assert 0 <= result.t_test_p <= 1
    assert 0 <= result.wilcoxon_p <= 1
    assert -1 <= result.rank_biserial <= 1
    assert difference.min() <= result.interval[0] <= result.interval[1] <= difference.max()
    assert result.wins + result.ties + result.losses == result.n


def test_holm_of_an_example_computed_by_hand():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_lists_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="same cases"):
        paired_statistics(np.ones(3), np.ones(4))
