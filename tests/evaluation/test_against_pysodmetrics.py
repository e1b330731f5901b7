"""S-measure, E-measure, MAE and Dice over thresholds equal pysodmetrics' figures.

Its pins clash with this project's, so its figures are stored; ``golden/make_pysodmetrics_golden.py`` made them.
"""

from pathlib import Path

import numpy as np
import pytest

from nnunet_covid.evaluation.map_metrics import (
    e_measure_curve,
    grey_histogram,
    map_mae,
    mean_e_measure,
    s_measure,
    sweep_of_map,
    threshold_sweep,
)
from nnunet_covid.evaluation.toolbox import toolbox_scores

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def golden():
    """The stored slices and figures."""
    with np.load(Path(__file__).parent / "golden" / "pysodmetrics.npz") as archive:
        return dict(archive)


def test_the_toolbox_protocol_equals_pysodmetrics_on_every_slice(golden):
    for i, name in enumerate(golden["names"]):
        scores = toolbox_scores(golden["maps"][i], golden["references"][i] > 128)
        expected = [golden["s"][i], golden["e"][i].mean(), golden["mae"][i], golden["dice"][i].mean()]
        found = [scores.s_measure, scores.e_measure, scores.mae, scores.dice]
        assert found == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE), name


def test_curves_equal_pysodmetrics_at_every_threshold(golden):
    compared = 0
    for i, name in enumerate(golden["names"]):
        grey, reference = golden["maps"][i], golden["references"][i] > 128
        if (grey.min(), grey.max()) != (0, 255):
            continue  # pysodmetrics would stretch it first
        sweep = threshold_sweep(grey_histogram(grey, reference).by_class)
        np.testing.assert_allclose(e_measure_curve(sweep, less_one=True), golden["e"][i], atol=TOLERANCE, err_msg=name)
        np.testing.assert_allclose(sweep.dice(), golden["dice"][i], atol=TOLERANCE, err_msg=name)
        compared += 1
    assert compared > 20


def test_floating_point_maps_equal_pysodmetrics(golden):
    for i, (probability, reference) in enumerate(
        zip(golden["probability_maps"], golden["probability_references"], strict=True)
    ):
        assert s_measure(probability, reference) == pytest.approx(golden["probability_s"][i], abs=TOLERANCE)
        assert map_mae(probability, reference) == pytest.approx(golden["probability_mae"][i], abs=TOLERANCE)
        found = e_measure_curve(sweep_of_map(probability, reference), less_one=True)
        assert found.mean() == pytest.approx(golden["probability_e"][i].mean(), abs=TOLERANCE)
        curve = sweep_of_map(probability, reference).dice()
        np.testing.assert_allclose(curve, golden["probability_dice"][i], atol=TOLERANCE)


def test_the_paper_divides_by_all_pixels_and_the_toolbox_by_one_less(golden):
    probability, reference = golden["probability_maps"][6], golden["probability_references"][6]
    n = reference.size
    toolbox = e_measure_curve(sweep_of_map(probability, reference), less_one=True).mean()
    assert mean_e_measure(probability, reference) * n == pytest.approx(toolbox * (n - 1))
