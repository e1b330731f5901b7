"""Training with links: the batches it gets, and the links with which it does not begin."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import linked
import numpy as np
import planned
import pytest
import torch
from linked import COVID, EFFUSION, link
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.batches import (
    ImageTransforms,
    JoinedBatches,
    LinkedDataset,
    linked_batches,
    linked_loader,
)
from nnunet_covid.auxiliary_data.links import find_link, record_file
from nnunet_covid.trainers.collaborative import CollaborativeTrainer

LINKED = "nnUNetPlans_from_Dataset601_Covid"
pytestmark = pytest.mark.usefixtures("work")


def training_refused(capsys: pytest.CaptureFixture[str], work: Path, plans: dict[str, Any] | None = None) -> str:
    """The one line with which a training ends before anything is written."""
    plans = plans or linked.covid_plans()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        CollaborativeTrainer(plans, next(iter(plans["configurations"])), 0, planned.dataset_json(), torch.device("cpu"))
    assert stop.value.code == 2
    assert list((work / "results").iterdir()) == []
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_batches_join_the_covid_batch_with_linked_images_of_its_shape(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    link("-a", "602", "--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))
    plans = PlansManager(linked.covid_plans())
    found = find_link(work / "preprocessed", plans, "2d")
    assert found is not None
    assert found.unlabelled is not None

    def stream(cases: Any, share: float) -> Any:
        loader = linked_loader(
            LinkedDataset(work / "preprocessed", cases),
            ImageTransforms(lambda image: {"image": image}, masked=False),
            plans,
            batch_size=2,
            initial_patch_size=(16, 16),
            patch_size=(16, 16),
            lesion_share=share,
        )
        return linked_batches(loader, device=torch.device("cpu"), loaders=2)

    joined = JoinedBatches(
        iter([{"data": 1, "target": 2}]),
        {"other": stream(found.others, 1.0), "unlabelled": stream((found.unlabelled,), 0)},
    )
    np.random.seed(0)
    batch = next(joined)
    assert (batch["data"], batch["target"]) == (1, 2)
    assert batch["other"].shape == batch["unlabelled"].shape == (2, 1, 16, 16)
    assert batch["other"].dtype == torch.float32
    np.random.seed(0)
    again = stream(found.others, 1.0)
    torch.testing.assert_close(next(again)["data"], batch["other"])


@pytest.mark.parametrize(("used", "weight"), [(True, 0.1), (False, 0.1), (True, 0.0)])
def test_unlabelled_images_are_used_where_asked_for(work: Path, used: bool, weight: float) -> None:
    link("-a", "602", "--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))
    settings = {"use_unlabelled": used, "general_weight": weight, "target_weight": weight}
    kind: Any = type("Variant", (CollaborativeTrainer,), settings)
    made = kind(linked.covid_plans(), "2d", 0, planned.dataset_json(), torch.device("cpu"))
    found = made.usable_link(PlansManager(linked.covid_plans()), "2d")
    assert (found is not None and found.unlabelled is not None) == (used and weight > 0)


def test_worker_processes_make_batches_and_end(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    link("-a", "602")
    plans = PlansManager(linked.covid_plans())
    found = find_link(work / "preprocessed", plans, "2d")
    assert found is not None
    transforms = CollaborativeTrainer.get_training_transforms((16, 16), (-0.1, 0.1), None, (0, 1), False, [False])
    parts = LinkedDataset(work / "preprocessed", found.others), ImageTransforms(transforms, masked=False)
    dataset, whole = pickle.loads(pickle.dumps(parts))  # as spawn and forkserver hand them on
    size = {"initial_patch_size": (20, 20), "patch_size": (16, 16)}
    loader = linked_loader(dataset, whole, plans, batch_size=3, lesion_share=0.33, **size)
    stream = linked_batches(loader, device=torch.device("cpu"), loaders=2)
    joined = JoinedBatches(iter([{"data": 1}]), {"other": stream})
    assert next(joined)["other"].shape == (3, 1, 16, 16)
    workers = list(stream._processes)
    assert len(workers) == 1
    joined.finish()
    assert not any(worker.is_alive() for worker in workers)


# --- bad input, at the command line


def test_training_without_a_link_names_the_command(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run nnunet-covid link -d Dataset601_Covid -a OTHER" in training_refused(capsys, work)


def test_training_with_unlabelled_images_alone_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link("--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))
    assert "no data set of another disease is linked" in training_refused(capsys, work)


@pytest.mark.parametrize("deleted", ["", "case1.pkl"])
def test_training_after_linked_data_were_deleted_is_refused(
    deleted: str, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link("-a", "602")
    folder = work / "preprocessed" / EFFUSION / f"{LINKED}_2d"
    if deleted:
        (folder / deleted).unlink()
    else:
        shutil.rmtree(folder)
    error = training_refused(capsys, work)
    assert ("linked data are incomplete" if deleted else "linked data are gone") in error
    assert "run nnunet-covid link -d Dataset601_Covid -a Dataset602_Effusion -p nnUNetPlans -c 2d" in error
    link("--show")
    assert "cannot be used: linked data are" in capsys.readouterr().out
    link("-a", "602")
    assert find_link(work / "preprocessed", PlansManager(linked.covid_plans()), "2d") is not None


def test_training_with_other_plans_than_the_link_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link("-a", "602")
    changed = linked.covid_plans(spacing=[2.0, 2.0])
    assert "were pre-processed with other plans" in training_refused(capsys, work, changed)


def test_training_in_3d_with_a_link_for_2d_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link("-a", "602")
    error = training_refused(capsys, work, linked.covid_plans(dims=3))
    assert "linked to configuration '3d_fullres' (3D)" in error
    assert "(there is one for 2d (2D))" in error


def test_training_without_any_linked_lesion_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link("-a", "602")
    file = record_file(work / "preprocessed" / COVID, "nnUNetPlans")
    content = json.loads(file.read_text())
    content["links"]["nnUNetPlans_2d"]["others"][0]["cases_with_lesion"] = 0
    file.write_text(json.dumps(content))
    assert "none of the cases of Dataset602_Effusion holds a lesion" in training_refused(capsys, work)
    file.write_text("{}")
    assert "is no record of links" in training_refused(capsys, work)
