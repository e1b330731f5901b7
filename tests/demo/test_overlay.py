import numpy as np
from PIL import Image

from nnunet_covid.demo.overlay import blended, ranked, write_overlay


def test_cases_go_from_worst_to_best_and_keep_both_ends():
    dice = {f"case_{i}": score for i, score in enumerate((0.5, 0.9, 0.1, 0.7, 0.3))}
    assert ranked(dice, 9) == ["case_2", "case_4", "case_0", "case_3", "case_1"]
    assert ranked(dice, 3) == ["case_2", "case_0", "case_1"]


def test_only_the_mask_is_coloured():
    image = np.full((2, 2), 100, dtype=np.uint8)
    mask = np.array([[True, False], [False, False]])
    out = blended(image, mask, "#ff0000", opacity=0.5)
    assert out[0, 0].tolist() == [178, 50, 50]
    assert (out[~mask] == 100).all()


def test_picture_is_written_for_slices_of_different_sizes(tmp_path):
    folders = {name: tmp_path / name for name in ("images", "references", "predictions")}
    for name, folder in folders.items():
        folder.mkdir()
        for i in range(3):
            suffix = "_0000" if name == "images" else ""
            Image.fromarray(np.full((20 + i, 30), i, dtype=np.uint8)).save(folder / f"case_{i}{suffix}.png")
    path = tmp_path / "overlay.png"
    write_overlay(path, *folders.values(), {f"case_{i}": 0.1 * i for i in range(3)}, title="three cases")
    picture = Image.open(path).convert("RGB")
    assert picture.width > 500
    assert picture.getextrema()[0][0] < 60
