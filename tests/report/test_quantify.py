"""Numbers of a report against closed forms, whatever the grid's direction and storage order."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from box_chest import CLASSES, SPACING, box_chest, rotation

from nnunet_covid.errors import UserError
from nnunet_covid.report import Quantities, Settings, quantify
from nnunet_covid.report.regions import sides

ML = float(np.prod(SPACING)) / 1000
LUNG = 25 * 30 * 36  # voxels of one lung
GLASS, DENSE = 6 * 30 * 25, 200 + 50
OBLIQUE = rotation(12, 0) @ rotation(-7, 1) @ rotation(20, 2)


def measured(direction: np.ndarray | None = None, *, lobes: bool = False) -> Quantities:
    chest = box_chest(direction)
    return quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs, lobes=chest.lobes if lobes else None)


@pytest.mark.parametrize("direction", [None, OBLIQUE], ids=["straight", "oblique"])
def test_volumes_and_shares_are_those_of_the_boxes(direction: np.ndarray | None) -> None:
    found = measured(direction)
    assert found.infection_ml == pytest.approx((GLASS + DENSE) * ML, rel=1e-9)
    assert found.classes_ml == pytest.approx({"ground glass": GLASS * ML, "consolidation": DENSE * ML})
    assert found.outside_percent == pytest.approx(0)
    both, right, left = (found.region(name) for name in ("lungs", "right lung", "left lung"))
    assert both is not None
    assert right is not None
    assert left is not None
    assert both.volume_ml == pytest.approx(2 * LUNG * ML)
    assert both.infection_percent == pytest.approx(100 * (GLASS + DENSE) / (2 * LUNG))
    assert right.infection_percent == pytest.approx(100 * (GLASS + 200) / LUNG)
    assert left.classes_ml == pytest.approx({"ground glass": 0, "consolidation": 50 * ML})


@pytest.mark.parametrize("direction", [None, OBLIQUE], ids=["straight", "oblique"])
def test_zones_are_thirds_of_a_lungs_height(direction: np.ndarray | None) -> None:
    found = measured(direction)
    lower, middle, upper = (found.region(f"right {zone} zone") for zone in ("lower", "middle", "upper"))
    assert lower is not None
    assert middle is not None
    assert upper is not None
    assert [zone.volume_ml for zone in (lower, middle, upper)] == pytest.approx([LUNG / 3 * ML] * 3)
    assert lower.infection_percent == pytest.approx(100 * (GLASS + 200) / (LUNG / 3))
    assert upper.infection_ml == 0
    assert found.severity is not None
    # lower right: 52.2 % is above 25 and 50 -> 3 points; upper left holds 50 voxels of 9000 -> 1 point
    assert (found.severity.points, found.severity.of) == (4, 24)
    assert found.severity.parts["right lower zone"] == 3
    assert "lobes" in found.missing


def test_lobes_give_the_25_point_score() -> None:
    found = measured(lobes=True)
    assert found.severity is not None
    assert (found.severity.points, found.severity.of) == (5, 25)  # 4700 of 9000 voxels: above 50 -> 4; 50 of 13500 -> 1
    assert found.severity.parts["right lower lobe"] == 4
    assert found.severity.parts["left upper lobe"] == 1
    assert not any("zone" in region.name for region in found.regions)


def test_hounsfield_units_and_bands() -> None:
    found = measured()
    lung = np.repeat([-850.0, -400.0, 20.0], [2 * LUNG - GLASS - DENSE, GLASS, DENSE])
    assert found.lung_hu is not None
    assert found.lesion_hu is not None
    assert found.lung_hu.mean == pytest.approx(lung.mean())
    assert (found.lung_hu.median, found.lung_hu.p5, found.lung_hu.p95) == (-850, -850, -400)
    assert found.lesion_hu.mean == pytest.approx((-400 * GLASS + 20 * DENSE) / (GLASS + DENSE))
    assert found.bands_percent == pytest.approx(
        {
            "overinflated": 0,
            "aerated": 100 * (2 * LUNG - GLASS - DENSE) / (2 * LUNG),
            "ground glass": 100 * GLASS / (2 * LUNG),
            "consolidation": 100 * DENSE / (2 * LUNG),
        }
    )


def test_lesions_are_counted_and_the_largest_is_measured() -> None:
    lesions = measured().lesions
    assert lesions.count == 2
    assert lesions.largest_ml == pytest.approx((GLASS + 200) * ML)
    x, y, z = SPACING
    ends = np.array([[24 * x, 29 * y, 5 * z], [24 * x, 24 * y, 7 * z], [9 * x, 14 * y, 7 * z]])
    assert lesions.largest_mm == pytest.approx(np.linalg.norm(ends, axis=1).max())


def test_small_specks_are_no_lesions_of_their_own() -> None:
    chest = box_chest()
    settings = Settings(smallest_lesion_ml=51 * ML)
    assert quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs, settings=settings).lesions.count == 1


def test_the_longest_diameter_of_a_ball_and_of_a_flat_slanted_line() -> None:
    chest = box_chest()
    z, y, x = np.indices((48, 60, 80))
    ball = (((x - 25) * 1.5) ** 2 + ((y - 30) * 2.0) ** 2 + ((z - 24) * 2.5) ** 2 <= 12**2).astype(np.uint8)
    line = ((x == y) & (y == z) & (x > 10) & (x < 20)).astype(np.uint8)
    for array, expected, tolerance in ((ball, 24.0, 1.0), (line, 8 * np.linalg.norm(SPACING), 1e-6)):
        labels = sitk.GetImageFromArray(array)
        labels.CopyInformation(chest.labels)
        found = quantify(chest.image, labels, {"infection": 1}, lungs=chest.lungs)
        assert found.lesions.largest_mm == pytest.approx(expected, abs=tolerance)


STORED = ["".join(a[i] for a, i in zip(axes, signs, strict=True))
          for axes in permutations(("LR", "PA", "SI")) for signs in product((0, 1), repeat=3)]  # fmt: skip


@pytest.mark.parametrize("direction", [None, OBLIQUE], ids=["straight", "oblique"])
def test_every_storage_order_of_one_patient_gives_the_same_report(direction: np.ndarray | None) -> None:
    chest, expected = box_chest(direction), measured(direction).as_json()
    assert len(STORED) == 48
    for order in STORED:
        image, labels, lungs = (sitk.DICOMOrient(i, order) for i in (chest.image, chest.labels, chest.lungs))
        assert quantify(image, labels, CLASSES, lungs=lungs).as_json() == expected, order


def test_lungs_that_touch_are_taken_apart_where_they_meet() -> None:
    lungs = np.zeros((12, 40, 81), bool)
    lungs[2:10, 5:35, 10:40] = lungs[2:10, 5:35, 42:72] = True
    lungs[4:6, 15:20, 40:42] = True  # a bridge of 20 voxels
    image = np.where(lungs, -850.0, 40.0)
    parts = sides(lungs, image, (2.0, 2.0, 2.0))
    assert (parts["right lung"] | parts["left lung"]).sum() == lungs.sum()
    assert not (parts["right lung"] & parts["left lung"]).any()
    assert parts["left lung"].sum() == pytest.approx(30 * 30 * 8, abs=20)
    assert not parts["left lung"][..., :40].any()


def test_one_lung_alone_and_lungs_that_cannot_be_told_apart_are_said() -> None:
    chest = box_chest()
    array = sitk.GetArrayFromImage(chest.lungs)
    one = array.copy()
    one[..., 40:] = 0
    stray = one.copy()
    stray[20:23, 20, 60] = 1
    joined = array.copy()
    joined[6:42, 15:45, 35:45] = 1
    right = {"right lung"}
    for mask, missing, kept in ((one, "left lung", right), (stray, "left lung", right), (joined, "sides", set())):
        lungs = sitk.GetImageFromArray(mask)
        lungs.CopyInformation(chest.lungs)
        found = quantify(chest.image, chest.labels, CLASSES, lungs=lungs)
        assert missing in found.missing
        assert {r.name for r in found.regions if r.name.endswith(" lung")} == kept
        assert found.severity is None
        assert "severity" in found.missing


def test_without_lungs_nothing_of_them_is_invented() -> None:
    chest = box_chest()
    empty = chest.lungs * 0
    found = quantify(chest.image, chest.labels, CLASSES, lungs=empty)
    assert found.regions == ()
    assert found.outside_percent is None
    assert found.bands_percent is None
    assert found.missing["lungs"]
    assert found.infection_ml == pytest.approx((GLASS + DENSE) * ML)


def test_the_lung_mask_is_made_where_none_is_given() -> None:
    chest = box_chest()
    found = quantify(chest.image, chest.labels, CLASSES)
    both = found.region("lungs")
    assert found.lungs_by.startswith("threshold")
    assert both is not None
    assert both.volume_ml == pytest.approx(2 * LUNG * ML, rel=0.15)


def test_wrong_grids_and_settings_are_told() -> None:
    chest = box_chest()
    moved = sitk.Image(chest.labels)
    moved.SetOrigin((0, 0, 0))
    with pytest.raises(UserError, match="label map has another origin"):
        quantify(chest.image, moved, CLASSES)
    with pytest.raises(UserError, match="lung mask has"):
        quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs[:-1])
    with pytest.raises(UserError, match="2 axes"):
        quantify(chest.image[:, :, 3], chest.labels, CLASSES)
    with pytest.raises(UserError, match="band"):
        Settings(bands={"aerated": (-500, -900)})
    with pytest.raises(UserError, match="no class"):
        quantify(chest.image, chest.labels, {})
