"""The earlier slice beside the new one: what was infected then, by the values of the model that said so."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from box_chest import box_chest
from PIL import Image
from reported import CPU, write_series

from nnunet_covid.cli import main
from nnunet_covid.report import quantify
from nnunet_covid.report.anatomy import Anatomy
from nnunet_covid.report.document import Document, ModelFacts, ScanFacts
from nnunet_covid.report.drawing import pictures, preview
from nnunet_covid.whole_volumes import write_volume

NEW = ModelFacts("new", "Dataset505", ("0",), ("infection",), "n", {"infection": (2,)})
OLD = ModelFacts("old", "Dataset501", ("0",), ("infection",), "o", {"infection": (1,)})


def compared(folder: Path, earlier: ModelFacts, labels: sitk.Image, new: ModelFacts) -> tuple[np.ndarray, str]:
    """Then and now of one chest, coloured where they are infected, and the caption."""
    chest = box_chest()
    for image, name in ((preview(chest.image), "preview"), (chest.lungs, "lungs"), (labels, "labels")):
        write_volume(image, folder / f"{name}.nii.gz")
    numbers = quantify(chest.image, labels, earlier.values or {"infection": 1}, lungs=chest.lungs)
    Document.of(ScanFacts("then", (80, 60, 48), (1.5, 2.0, 2.5)), earlier, numbers).write(folder)
    infection = sitk.Cast(chest.labels > 0, sitk.sitkUInt8)
    classes = {name: values[0] for name, values in new.values.items()}
    now = Anatomy.of(chest.image, infection * classes["infection"], classes, chest.lungs, None)
    shown = pictures(now, folder, new)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown.comparison.split(",")[1])))).astype(int)
    return picture[..., 0] - picture[..., 1] > 20, shown.comparison_caption


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("then", ["infection as 1", "lungs as 2, infection as 1", "several classes", "no infection"])
def test_the_earlier_slice_is_drawn_by_its_own_values(tmp_path: Path, then: str, told: bool) -> None:
    chest = box_chest()
    infection, earlier = sitk.Cast(chest.labels > 0, sitk.sitkUInt8), OLD
    labels = {
        "infection as 1": infection, "lungs as 2, infection as 1": chest.lungs * 2 - infection,
        "several classes": infection * 7, "no infection": infection * 0,
    }[then]  # fmt: skip
    if then == "several classes":
        earlier = replace(OLD, values={"ground glass": (4,), "consolidation": (7,)})
    coloured, caption = compared(tmp_path, earlier if told else replace(earlier, values={}), labels, NEW)
    width = (coloured.shape[1] - 8) // 2
    then_infected, now_infected = coloured[:, :width].sum(), coloured[:, width + 8 :].sum()
    assert now_infected > 40
    assert ("not drawn" in caption) is not told
    if told and then != "no infection":
        assert then_infected == pytest.approx(now_infected, rel=0.2)
    else:
        assert then_infected == 0


def test_an_earlier_report_of_the_same_model_need_not_tell_its_values(tmp_path: Path) -> None:
    labels = sitk.Cast(box_chest().labels > 0, sitk.sitkUInt8) * 2
    coloured, caption = compared(tmp_path, replace(NEW, values={}), labels, NEW)
    assert coloured[:, :60].sum() > 40
    assert "not drawn" not in caption


def test_key_slices_and_comparison_are_drawn_round_as_the_slider_is(tmp_path: Path) -> None:
    chest = box_chest()
    chest.image.SetSpacing((0.5, 2.0, 2.5))
    write_volume(preview(chest.image), tmp_path / "preview.nii.gz")
    for image, name in ((chest.lungs, "lungs"), (chest.labels, "labels")):
        image.SetSpacing(chest.image.GetSpacing())
        write_volume(image, tmp_path / f"{name}.nii.gz")
    numbers = quantify(chest.image, chest.labels, {"infection": 1}, lungs=chest.lungs)
    Document.of(ScanFacts("then", (80, 60, 48), (0.5, 2.0, 2.5)), OLD, numbers).write(tmp_path)
    shown = pictures(Anatomy.of(chest.image, chest.labels, {"infection": 1}, chest.lungs, None), tmp_path, OLD)
    key = next(iter(shown.key_slices.values()))
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size
        for uri in (shown.slices[0].picture, key, shown.comparison)
    ]
    assert sizes == [(27, 80), (27, 80), (2 * 27 + 8, 80)]


def test_one_identifier_of_two_issuers_is_told_as_two_patients(model: Path, tmp_path: Path) -> None:
    image = box_chest().image[:, :, 10:20]
    for name, issuer in (("earlier", "North"), ("same", "North"), ("other", "South")):
        folder, output = write_series(tmp_path / name, image, IssuerOfPatientID=issuer), tmp_path / f"{name}_out"
        previous = [] if name == "earlier" else ["--previous", str(tmp_path / "earlier_out")]
        assert main(["report", str(folder), "-m", str(model), "-o", str(output), *previous, *CPU]) == 0
        change = json.loads((output / "report.json").read_text(encoding="utf-8"))["change"] or {"notes": []}
        assert ("another patient identifier" in " ".join(change["notes"])) is (name == "other")
