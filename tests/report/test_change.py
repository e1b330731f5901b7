"""Changes between two reports, and the registration of their lungs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from box_chest import CLASSES, box_chest, rotation

from nnunet_covid.errors import UserError
from nnunet_covid.report import quantify
from nnunet_covid.report.change import changes, register_lungs
from nnunet_covid.report.document import Document, ModelFacts, ScanFacts, read_document

MODEL = ModelFacts("InfNetTrainer__nnUNetPlans__2d", "Dataset501", ("0",), ("infection",), "abc")


def document(day: str, labels: sitk.Image | None = None, model: ModelFacts = MODEL) -> dict[str, Any]:
    chest = box_chest()
    numbers = quantify(chest.image, labels or chest.labels, CLASSES, lungs=chest.lungs)
    scan = ScanFacts("visit", chest.image.GetSize(), chest.image.GetSpacing(), day)
    return json.loads(json.dumps(Document.of(scan, model, numbers).as_json()))


def test_a_change_is_the_new_less_the_old_in_millilitres_and_points() -> None:
    labels = box_chest().labels
    array = sitk.GetArrayFromImage(labels)
    array[30:31] = 0  # the left lung's lesion of 50 voxels is gone
    healed = sitk.GetImageFromArray(array)
    healed.CopyInformation(labels)
    change = changes(document("2020-03-28"), document("2020-04-04", healed))
    assert change["days"] == 7
    assert change["infection_ml"] == pytest.approx(-50 * 0.0075)
    assert change["regions"]["left lung"]["infection_percent"] == pytest.approx(-100 * 50 / (25 * 30 * 36))
    assert change["regions"]["right lung"]["infection_ml"] == 0
    assert change["severity_points"] == -1
    assert change["notes"] == []


def test_what_makes_a_change_doubtful_is_said() -> None:
    other = ModelFacts("nnUNetTrainer__nnUNetPlans__2d", "Dataset501", ("0",), ("infection",), "def")
    assert "another model" in changes(document("2020-03-28"), document("2020-04-04", model=other))["notes"][0]
    assert "order" in changes(document("2020-04-04"), document("2020-03-28"))["notes"][0]
    unknown = changes(document(""), document("2020-03-28"))
    assert unknown["days"] is None
    assert "no date" in unknown["notes"][0]


@pytest.mark.parametrize(("earlier", "now", "days"), [("P1", "P1", -7), ("P1", "P2", None)])
def test_no_days_are_told_between_two_pseudonyms_whose_dates_are_moved_differently(
    earlier: str, now: str, days: int | None
) -> None:
    before, after = document("2018-03-28"), document("2018-03-21")
    before["scan"] |= {"name": earlier, "pseudonymous": True}
    after["scan"] |= {"name": now, "pseudonymous": True}
    change = changes(before, after)
    assert change["days"] == days
    (note,) = change["notes"]
    assert ("check their order" in note) is (days is not None)
    assert ("not known: dates of two identifiers are moved differently" in note) is (days is None)


def test_a_report_is_read_back_and_anything_else_is_told(tmp_path: Path) -> None:
    chest = box_chest()
    numbers = quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs)
    written = Document.of(ScanFacts("a", (1, 1, 1), (1.0, 1.0, 1.0)), MODEL, numbers)
    written.write(tmp_path)
    assert read_document(tmp_path) == json.loads(json.dumps(written.as_json()))
    file = tmp_path / "report.json"
    for content, told in (
        ('{"schema": "other"}', "no report"),
        ("{", "cannot be read"),
        (json.dumps({**written.as_json(), "schema_version": 99}), "schema version 99"),
    ):
        file.write_text(content)
        with pytest.raises(UserError, match=told):
            read_document(file)
    with pytest.raises(UserError, match="does not exist"):
        read_document(tmp_path / "none")


def _lungs(matrix: np.ndarray, shift: tuple[float, float, float]) -> sitk.Image:
    """Two unlike ellipsoids whose points ``p`` are moved to ``matrix @ p + shift``."""
    image = sitk.Image(90, 80, 60, sitk.sitkUInt8)
    image.SetSpacing((4.0, 4.0, 5.0))
    image.SetOrigin((-180.0, -160.0, -150.0))
    z, y, x = np.indices((60, 80, 90))
    points = np.stack([x * 4.0 - 180, y * 4.0 - 160, z * 5.0 - 150], axis=-1) - np.asarray(shift)
    points = points @ np.linalg.inv(matrix).T
    inside = (((points - [-75, 0, 0]) / [50, 70, 110]) ** 2).sum(-1) < 1
    inside |= (((points - [75, 10, -10]) / [45, 60, 100]) ** 2).sum(-1) < 1
    moved = sitk.GetImageFromArray(inside.astype(np.uint8))
    moved.CopyInformation(image)
    return moved


def test_registration_brings_turned_moved_and_stretched_lungs_together() -> None:
    earlier = _lungs(np.eye(3), (0, 0, 0))
    new = _lungs(rotation(8, 2) @ rotation(5, 0) @ np.diag([1.0, 1.0, 1.15]), (20.0, -12.0, 15.0))
    before = 2 * (
        np.logical_and(*(sitk.GetArrayFromImage(i) > 0 for i in (earlier, new))).sum()
        / sum(int((sitk.GetArrayFromImage(i) > 0).sum()) for i in (earlier, new))
    )
    found = register_lungs(earlier, new)
    assert found is not None
    assert before < 0.8
    assert found.dice > 0.95
    assert found.is_good


def test_lungs_that_are_not_there_are_not_registered() -> None:
    lungs = _lungs(np.eye(3), (0, 0, 0))
    assert register_lungs(lungs * 0, lungs) is None
