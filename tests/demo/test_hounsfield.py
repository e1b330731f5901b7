import numpy as np
import pytest

from nnunet_covid.demo.hounsfield import to_grey


def test_window_is_linear_between_its_ends_and_flat_beyond():
    hounsfield = np.array([-3000.0, -1250.0, -500.0, 0.0, 250.0, 1000.0])
    assert to_grey(hounsfield).tolist() == [0, 0, 128, 212, 255, 255]
    assert to_grey(hounsfield).dtype == np.uint8


def test_window_equals_its_closed_form():
    hounsfield = np.linspace(-100.0, 200.0, 301)
    expected = [round(255 * min(max((h + 60.0) / 200.0, 0.0), 1.0)) for h in hounsfield]
    assert to_grey(hounsfield, (-60.0, 140.0)).tolist() == expected


def test_empty_window_is_refused():
    with pytest.raises(ValueError, match="ends at 10 HU but begins at 10 HU"):
        to_grey(np.zeros(1), (10, 10))
