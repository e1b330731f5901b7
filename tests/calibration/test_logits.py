"""Scale and shift in closed form: thresholds, temperatures, and what they commute with."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_covid.calibration.fit import Calibration, calibrated_probabilities, log_odds

SOFTMAX = Calibration(True, (2.0, 2.0), (0.3, 0.8))
SIGMOID = Calibration(False, (0.5, 3.0), (0.3, 0.8))


def random_logits(heads: int, dims: int = 2) -> torch.Tensor:
    return 3 * torch.randn((2, heads, *(17,) * dims), generator=torch.Generator().manual_seed(heads))


def test_one_class_is_above_one_half_where_its_probability_was_above_the_threshold() -> None:
    logits = random_logits(2).double()
    p = logits.softmax(dim=1)[:, 1]
    for threshold, temperature in ((0.2, 1.0), (0.7, 4.0), (0.5, 0.3)):
        after = Calibration(True, (temperature,), (threshold,)).of_logits(logits)
        assert torch.equal(after.argmax(dim=1) == 1, p > threshold)
        expected = torch.sigmoid((torch.logit(p) - np.log(threshold / (1 - threshold))) / temperature)
        torch.testing.assert_close(after.softmax(dim=1)[:, 1], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_every_region_has_its_own_temperature_and_threshold(dims: int) -> None:
    logits = random_logits(2, dims)
    after = SIGMOID.of_logits(logits).sigmoid()
    for k, threshold in enumerate(SIGMOID.thresholds):
        assert torch.equal(after[:, k] > 0.5, logits[:, k].sigmoid() > threshold)


def test_several_classes_are_told_from_background_by_their_thresholds_whatever_the_temperature() -> None:
    logits = random_logits(3)
    p = logits.softmax(dim=1)
    above = torch.stack([p[:, k] / (p[:, k] + p[:, 0]) > t for k, t in ((1, 0.3), (2, 0.8))])
    labels = SOFTMAX.of_logits(logits).argmax(dim=1)
    assert torch.equal(labels > 0, above.any(dim=0))
    assert above[0][labels == 1].all()
    assert above[1][labels == 2].all()
    hotter = Calibration(True, (7.0, 7.0), SOFTMAX.thresholds)
    assert torch.equal(hotter.of_logits(logits).argmax(dim=1), labels)


@pytest.mark.parametrize(("calibration", "heads"), [(SOFTMAX, 3), (SIGMOID, 2)])
def test_weighted_means_of_logits_may_be_taken_before_or_after(calibration: Calibration, heads: int) -> None:
    first, second = random_logits(heads), random_logits(heads).flip(2)
    mean = calibration.of_logits(0.3 * first + 0.7 * second)
    torch.testing.assert_close(
        0.3 * calibration.of_logits(first) + 0.7 * calibration.of_logits(second), mean, atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("calibration", "heads"), [(SOFTMAX, 3), (SIGMOID, 2)])
def test_saved_probabilities_are_enough(calibration: Calibration, heads: int) -> None:
    logits = random_logits(heads)
    shifted = logits + (5 * torch.randn(2, 1, 17, 17) if calibration.softmax else 0)
    to_probabilities = (lambda z: z.softmax(dim=1)) if calibration.softmax else torch.sigmoid
    expected = to_probabilities(calibration.of_logits(shifted))[0].numpy()
    saved = to_probabilities(logits)[0].numpy()
    np.testing.assert_allclose(calibrated_probabilities(saved, calibration), expected, atol=1e-4)


@pytest.mark.parametrize("softmax", [True, False])
def test_the_identity_changes_no_probability(softmax: bool) -> None:
    logits = random_logits(3)
    after = Calibration.identity(2 if softmax else 3, softmax=softmax).of_logits(logits)
    if softmax:
        logits, after = logits.softmax(dim=1), after.softmax(dim=1)
    torch.testing.assert_close(after, logits)


@pytest.mark.parametrize("softmax", [True, False])
def test_certain_probabilities_have_finite_log_odds(softmax: bool) -> None:
    certain = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    odds = log_odds(certain, softmax=softmax)
    assert np.isfinite(odds).all()
    assert odds.dtype == np.float32
    np.testing.assert_array_equal(np.sign(odds), [[1, -1]] if softmax else [[-1, 1], [1, -1]])


@pytest.mark.parametrize("calibration", [SOFTMAX, Calibration.identity(2, softmax=True)])
def test_classes_that_are_surely_no_background_keep_their_order(calibration: Calibration) -> None:
    logits = torch.tensor([[0.0, 0, 0], [23, 45, 20.5], [25, 44, 33]])[None]
    expected = calibration.of_logits(logits)[0]
    saved = calibrated_probabilities(logits.softmax(dim=1)[0].numpy(), calibration)
    np.testing.assert_array_equal(saved.argmax(axis=0), expected.argmax(dim=0))
    np.testing.assert_allclose(saved, expected.softmax(dim=0), atol=1e-4)


def test_a_calibration_survives_json() -> None:
    assert Calibration.from_json(SOFTMAX.to_json()) == SOFTMAX


def test_half_precision_logits_are_calibrated_in_single_precision() -> None:
    assert SOFTMAX.of_logits(random_logits(3).half()).dtype == torch.float32
