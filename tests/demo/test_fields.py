import numpy as np
import pytest

from nnunet_covid.demo.fields import SmoothField, scanner_noise


def test_field_on_a_grid_equals_the_field_at_its_points():
    field = SmoothField.draw(np.random.default_rng(1), 20.0)
    x, y = np.linspace(-50.0, 60.0, 7), np.linspace(-40.0, 10.0, 5)
    at_points = field(*np.meshgrid(x, y), 12.5)
    np.testing.assert_allclose(field(x[None, :], y[:, None], 12.5), at_points, atol=1e-12)


def test_field_has_mean_0_and_variance_1():
    x = np.arange(0.0, 4000.0, 10.0)
    values = SmoothField.draw(np.random.default_rng(2), 20.0)(x[None, :], x[:, None], 0.0)
    assert abs(values.mean()) < 0.05
    assert values.var() == pytest.approx(1.0, abs=0.05)


def test_field_changes_little_within_a_feature_and_freely_beyond():
    field = SmoothField.draw(np.random.default_rng(3), 30.0)
    x = np.linspace(0.0, 2000.0, 800)[None, :]
    here, near, far = (field(x + shift, np.zeros((1, 1)), 0.0).ravel() for shift in (0.0, 3.0, 300.0))
    assert np.corrcoef(here, near)[0, 1] > 0.95
    assert abs(np.corrcoef(here, far)[0, 1]) < 0.5


def neighbours(noise):
    return np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]


@pytest.mark.parametrize("sharpness", [0.0, 0.5, 1.0])
def test_scanner_noise_has_the_deviation_asked_for(sharpness):
    noise = scanner_noise(np.random.default_rng(4), (200, 200), 30.0, sharpness)
    assert noise.std() == pytest.approx(30.0)
    assert abs(noise.mean()) < 3.0


def test_noise_is_smeared_by_a_soft_kernel_and_edgy_with_a_sharp_one():
    """Real slices lie between about -0.15 and 0.77."""
    soft, middle, sharp = (
        neighbours(scanner_noise(np.random.default_rng(5), (200, 200), 1.0, s)) for s in (0.0, 0.5, 1.0)
    )
    assert 0.5 < soft < 0.8
    assert 0.2 < middle < 0.5
    assert -0.2 < sharp < 0.0
