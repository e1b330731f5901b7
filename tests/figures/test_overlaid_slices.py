"""Masks and maps over slices, and sheets of slices as files."""

import numpy as np
import pytest
from PIL import Image

from nnunet_covid.figures.sheets import HEADING_CHARACTERS, ranked, shortened, write_heat_maps, write_predictions
from nnunet_covid.figures.slices import BLUE, RED, WHITE, as_rgb, blended, grey_slice, heat_over, outlined, sheet


def test_only_the_mask_is_coloured():
    picture = as_rgb(np.full((2, 2), 100, dtype=np.uint8))
    mask = np.array([[True, False], [False, False]])
    out = blended(picture, (255, 0, 0), 0.5, mask)
    assert out.dtype == np.uint8
    assert out[0, 0].tolist() == [178, 50, 50]
    assert (out[~mask] == 100).all()
    assert (picture == 100).all()


def test_a_slice_is_stretched_and_later_outlines_lie_over_earlier_ones():
    image = np.linspace(-1000, 400, 49).reshape(7, 7)
    inner, outer = np.zeros((7, 7), dtype=bool), np.ones((7, 7), dtype=bool)
    inner[2:5, 2:5] = True
    picture = outlined(image, {RED: outer, BLUE: inner})
    assert picture[0, 0].tolist() == list(RED)
    assert picture[2, 2].tolist() == list(BLUE)
    assert picture[3, 3].tolist() == [127, 127, 127]
    on_picture = outlined(as_rgb(np.full((7, 7), 9, dtype=np.uint8)), {WHITE: inner})
    assert on_picture[0, 0].tolist() == [9, 9, 9]
    assert on_picture[2, 2].tolist() == [255, 255, 255]


def test_hounsfield_units_are_shown_in_the_lung_window_and_others_by_their_range():
    assert grey_slice(np.array([[-1250.0, -500.0, 250.0, 3000.0]])).tolist() == [[0, 127, 255, 255]]
    assert grey_slice(np.linspace(0, 1, 1001)[None]).min() == 0
    assert grey_slice(np.linspace(0, 1, 1001)[None]).max() == 255


def test_heat_colours_what_is_warm_differently_from_what_is_cold():
    picture = heat_over(np.full((1, 2), 100, dtype=np.uint8), np.array([[0.0, 1.0]], dtype=np.float32))
    assert picture.shape == (1, 2, 3)
    assert picture[0, 1, 0] > picture[0, 0, 0]


def test_tiles_of_different_sizes_stand_side_by_side_on_black():
    tiles = [np.full((2, 3, 3), 7, dtype=np.uint8), np.full((4, 1, 3), 9, dtype=np.uint8)] * 2
    page = sheet(tiles, columns=3)
    assert page.shape == (8, 9, 3)
    assert (page[2:4, :3] == 0).all()
    assert (page[:4, 3] == 9).all()


def test_cases_go_from_worst_to_best_and_keep_both_ends():
    dice = {f"case_{i}": score for i, score in enumerate((0.5, 0.9, 0.1, 0.7, 0.3))}
    assert ranked(dice, 9) == ["case_2", "case_4", "case_0", "case_3", "case_1"]
    assert ranked(dice, 3) == ["case_2", "case_0", "case_1"]


def test_predictions_of_slices_of_different_sizes(tmp_path):
    folders = {name: tmp_path / name for name in ("images", "references", "predictions")}
    for name, folder in folders.items():
        folder.mkdir()
        for i in range(3):
            suffix = "_0000" if name == "images" else ""
            Image.fromarray(np.full((20 + i, 30), i, dtype=np.uint8)).save(folder / f"case_{i}{suffix}.png")
    path = tmp_path / "overlay.png"
    write_predictions(path, *folders.values(), {f"case_{i}": 0.1 * i for i in range(3)}, title="three cases")
    picture = Image.open(path).convert("RGB")
    assert picture.width > 500
    assert picture.getextrema()[0][0] < 60


@pytest.mark.parametrize("aspect", [1.0, 4.0])
def test_heat_maps_have_the_images_proportions(tmp_path, aspect):
    image = np.random.default_rng(0).normal(size=(20, 40)).astype(np.float32)
    path = tmp_path / "maps.png"
    write_heat_maps(path, image, image > 1, {"first": abs(image) / 9, "second": image * 0}, title="a", aspect=aspect)
    with Image.open(path) as picture:
        assert picture.width == 780
        assert picture.height == pytest.approx(260 * aspect / 2 + 63, abs=2)
    assert [p.name for p in tmp_path.iterdir()] == ["maps.png"]


def test_a_long_heading_keeps_its_ends():
    assert shortened("1. case_7") == "1. case_7"
    name = "12. radiopaedia_org_covid-19-pneumonia-27_86410_0-dcm_029, 0.1731"
    short = shortened(name)
    assert len(short) == HEADING_CHARACTERS
    front, end = short.split("…")
    assert name.startswith(front)
    assert name.endswith(end)
    assert "dcm_029, 0.1731" in end
