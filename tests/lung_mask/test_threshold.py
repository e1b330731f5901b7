"""The classical lung masks on a drawn chest, and on real patients."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from chest_phantom import chest_slice, chest_volume, dice, ellipse
from image_files import read_array

from nnunet_covid.lung_mask import segment_lungs
from nnunet_covid.lung_mask.threshold import close_regions, lungs_in_slice, lungs_in_volume
from nnunet_covid.raw_dataset.scan import to_8_bit

SPACING = (2.5, 2.5, 8.0)


def test_volume_without_trachea_couch_and_outer_air() -> None:
    image, lungs = chest_volume()
    mask = lungs_in_volume(image, SPACING)
    assert dice(mask, lungs) > 0.95
    assert not mask[:, ellipse(128, 0.4, 0.5, 0.03, 0.03)].any(), "trachea"
    assert not mask[:, ellipse(128, 0.95, 0.5, 0.03, 0.36)].any(), "couch"


def test_vessels_and_lesions_at_the_pleura_belong_to_the_lung() -> None:
    image, lungs = chest_slice(256)
    lesion = ellipse(256, 0.68, 0.3, 0.015, 0.03) & lungs
    image[lesion] = 0
    mask = lungs_in_volume(np.repeat(image[None], 4, axis=0), (1.5, 1.5, 5.0))[1]
    assert mask[lesion].mean() > 0.9
    assert mask[ellipse(256, 0.55, 0.72, 0.015, 0.015)].all(), "vessel"


@pytest.mark.parametrize("inverted_order", [False, True])
def test_grey_slice_of_the_whole_body(inverted_order: bool) -> None:
    image, lungs = chest_slice(256)
    grey = to_8_bit(image, -1250, 250)
    if inverted_order:
        grey, lungs = grey[::-1], lungs[::-1]
    mask = lungs_in_slice(grey)
    assert dice(mask, lungs) > 0.93
    couch = ellipse(256, 0.95, 0.5, 0.03, 0.36)
    assert not mask[couch[::-1] if inverted_order else couch].any()


def test_grey_slice_cut_to_the_lung_box_where_lungs_touch_the_edge() -> None:
    image, lungs = chest_slice(256)
    box = (slice(70, 180), slice(44, 212))
    mask = lungs_in_slice(to_8_bit(image, -1250, 250)[box])
    assert dice(mask, lungs[box]) > 0.95


def test_a_grey_scale_may_be_stretched() -> None:
    grey = to_8_bit(chest_slice(256)[0], -1250, 250)
    np.testing.assert_array_equal(lungs_in_slice(grey), lungs_in_slice(grey.astype(np.float32) * 3 - 40))


@pytest.mark.parametrize("value", [0, 255])
def test_nothing_in_a_constant_slice(value: int) -> None:
    assert not lungs_in_slice(np.full((40, 50), value, dtype=np.uint8)).any()


def test_nothing_in_a_volume_without_lungs() -> None:
    image, _ = chest_volume()
    assert not lungs_in_volume(np.maximum(image, -100), SPACING).any()


def test_closing_keeps_two_regions_apart() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[5:35, 5:19] = mask[5:35, 21:35] = True
    mask[15:18, 5:9] = False  # a notch in the first region
    closed = close_regions(mask, 5)
    assert not closed[:, 19:21].any()
    assert closed[15:18, 5:9].any()
    assert (closed | ~mask).all()


def test_closing_does_not_erode_at_the_edge() -> None:
    mask = np.zeros((30, 30), dtype=bool)
    mask[:, :12] = True
    np.testing.assert_array_equal(close_regions(mask, 6), mask)


def test_the_method_used_is_told() -> None:
    volume, _ = chest_volume()
    told = segment_lungs(volume, is_hu=True, spacing=SPACING, method="threshold").method
    assert told == "threshold (Hounsfield units)"
    grey = segment_lungs(to_8_bit(volume, -1250, 250), is_hu=False, method="threshold")
    assert grey.method == "threshold (grey values)"
    assert grey.mask.shape == volume.shape


def test_a_single_slice_in_hounsfield_units() -> None:
    image, lungs = chest_slice(256)
    found = segment_lungs(image, is_hu=True, spacing=(1.5, 1.5), method="threshold")
    assert dice(found.mask, lungs) > 0.93


def test_an_unknown_method() -> None:
    with pytest.raises(ValueError, match="unknown method 'magic'; there are auto, lungmask, threshold"):
        segment_lungs(np.zeros((4, 4)), is_hu=False, method="magic")


@pytest.mark.real_data
def test_real_patients_reach_the_documented_overlap(real_data: Path) -> None:
    """Dice per patient on every twelfth slice of the source; docs/explanation/lung-masks.md has all slices."""
    root = real_data / "covid19_ct_seg_2d"
    with (root / "cases.csv").open() as stream:
        rows = list(csv.DictReader(stream))[::4]
    overlap: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        mask = lungs_in_slice(read_array(root / "ct" / row["file"]))
        lungs = read_array(root / "lungs" / row["file"]) > 0
        overlap[row["case"]][0] += 2 * int((mask & lungs).sum())
        overlap[row["case"]][1] += int(mask.sum() + lungs.sum())
    scores = {case: twice / total for case, (twice, total) in overlap.items()}
    assert len(scores) == 10
    assert min(scores.values()) > 0.85
    assert np.mean(list(scores.values())) == pytest.approx(0.943, abs=0.01)
