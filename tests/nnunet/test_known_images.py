"""Images of a data set that are known by their content."""

from __future__ import annotations

import shutil
from pathlib import Path

import planned
import pytest
from image_files import grey, write_picture
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.cases import list_cases
from nnunet_covid.nnunet.known_images import checksums, known_among, known_voxels, not_compared

PLANS = PlansManager(planned.plans())


def test_training_images_that_dataset_json_lists_are_known_wherever_they_are(tmp_path: Path) -> None:
    raw, unlabelled = tmp_path / "Dataset999_Test", tmp_path / "unlabelled"
    places = {"a": tmp_path / "elsewhere/first.png", "b": raw / "own/second.png", "gone": raw / "own/gone.png"}
    for seed, path in enumerate(places.values()):
        write_picture(path, grey((8, 9), seed))
    places["gone"].unlink()
    write_picture(raw / "imagesTs/t_0000.png", grey((8, 9), 7))
    listed = {
        "a": {"images": [str(places["a"])], "label": "a.png"},
        "b": {"images": ["own/second.png"], "label": "b.png"},
        "gone": {"images": ["own/gone.png"], "label": "gone.png"},
    }
    description = planned.dataset_json(dataset=listed)
    write_picture(unlabelled / "new_0000.png", grey((8, 9), 8))
    for name, source in (("x", places["a"]), ("y", places["b"]), ("z", raw / "imagesTs/t_0000.png")):
        shutil.copy(source, unlabelled / f"{name}_0000.png")

    own = checksums(list_cases(unlabelled, ".png", 1), PLANS, description, "unlabelled images")
    known = known_voxels(raw, PLANS, description)
    found = known_among({case: one.voxels for case, one in own.items()}, known)
    assert found == {"x": "imagesTr/a", "y": "imagesTr/b", "z": "imagesTs/t"}
    assert set(known_voxels(raw, PLANS, description, ["b"]).values()) == {"imagesTr/b", "imagesTs/t"}
    assert not_compared(raw, description, ["a", "b"]) == ""
    assert "lacks 1 image(s), with which none was compared: imagesTr/gone" in not_compared(raw, description, listed)
    assert description["dataset"]["b"]["images"] == ["own/second.png"], "what a training writes down stays as it is"


def test_a_list_of_no_cases_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'dataset' in dataset\.json lists no cases; write"):
        known_voxels(tmp_path, PLANS, planned.dataset_json(dataset={"a": {}}))
