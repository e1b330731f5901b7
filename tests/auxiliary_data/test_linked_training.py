"""Training with links: the batches it gets, and the links with which it does not begin."""

from __future__ import annotations

import itertools
import json
import pickle
import random
import shutil
from pathlib import Path
from typing import Any

import linked
import numpy as np
import planned
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from linked import COVID, EFFUSION, link
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.batches import (
    ImageTransforms,
    JoinedBatches,
    LinkedDataset,
    TwoViews,
    linked_batches,
    linked_loader,
    put_beside,
)
from nnunet_covid.auxiliary_data.links import find_link, record_file
from nnunet_covid.nnunet.training import spare_channels
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


def unlabelled_loader(work: Path) -> Any:
    """nnU-Net's loader of three linked unlabelled images, each sample being its first voxels."""
    plans = PlansManager(linked.covid_plans())
    found = find_link(work / "preprocessed", plans, "2d", require_unlabelled=True)
    assert found is not None
    assert found.unlabelled is not None
    size = {"initial_patch_size": (20, 20), "patch_size": (16, 16)}
    transforms = CollaborativeTrainer.get_training_transforms((16, 16), (-0.1, 0.1), None, (0, 1), False, [False])
    views = TwoViews(transforms, masked=False, probability=1.0)
    dataset = LinkedDataset(work / "preprocessed", [found.unlabelled])
    return linked_loader(dataset, views, plans, batch_size=2, lesion_share=0.0, **size)


class Counting:
    """A labelled loader whose batches are random numbers of every kind."""

    def set_thread_id(self, thread_id: int) -> None:
        self.thread_id = thread_id

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> dict[str, Any]:
        return {"data": (random.random(), np.random.random(), torch.rand(1).item())}


def test_unlabelled_images_stand_beside_labelled_ones_and_take_no_random_number_of_theirs(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    link("--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))

    def seeded() -> None:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)

    seeded()
    alone = [next(Counting())["data"] for _ in range(3)]
    draws = []
    for seed in (1, 1, 2):
        stream = SingleThreadedAugmenter(Counting(), None)
        put_beside(JoinedBatches(stream, {}), unlabelled_loader(work), "views", (seed, 5))
        seeded()
        batches = [next(stream) for _ in range(3)]
        assert [one["data"] for one in batches] == alone
        draws.append(torch.stack([one["views"] for one in batches]))
    assert draws[0].shape == (3, 2, 2, 16, 16)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_same_worker_processes_make_both_and_no_two_draw_alike(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    link("--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))
    stream = NonDetMultiThreadedAugmenter(Counting(), None, 2, num_cached=2, wait_time=0.002)
    assert set(next(stream)) == {"data"}
    put_beside(stream, unlabelled_loader(work), "views", (1,))
    batches = [next(stream) for _ in range(6)]
    assert len(stream._processes) == 2
    stream._finish()
    batches += [next(stream) for _ in range(6)]  # as where a training goes on
    stream._finish()
    views = [batch["views"] for batch in batches]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(views, 2))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_strong_view_is_the_weak_one_after_every_change_of_intensity(dims: int) -> None:
    size = (16,) * dims if dims == 2 else (4, 16, 16)
    arguments = (size, (-3.0, 3.0), None, (0, 1), dims == 3)  # anisotropic volumes are turned in their planes
    transforms = CollaborativeTrainer.get_training_transforms(*arguments, use_mask_for_norm=[True, False])
    spared = spare_channels(transforms, [1])
    outside = torch.zeros(1, *size, dtype=torch.int16)
    outside[..., :5] = -1
    torch.manual_seed(0)
    np.random.seed(0)
    image = torch.rand(2, *size) + 1
    changed, moved = 0, 0
    for _ in range(6):
        views = TwoViews(spared, masked=True, probability=1.0)(image.clone(), outside.clone())["image"]
        weak, strong = views.chunk(2)
        assert weak.shape == strong.shape == (2, *size)
        assert torch.equal(weak[1], strong[1]), "a mask is no image"
        assert torch.equal(strong[0] == 0, weak[0] == 0), "outside is outside in both"
        changed += int(not torch.allclose(weak[0], strong[0], atol=0.01))
        moved += int(not torch.equal(weak[1], image[1]))
    assert changed == 6
    assert moved > 0
    never = TwoViews(spared, masked=True, probability=0.0)(image, outside)["image"].chunk(2)
    assert torch.equal(*never)


# --- bad input, at the command line


def test_training_without_a_link_names_the_command(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run nnunet-covid link -d Dataset601_Covid -a OTHER" in training_refused(capsys, work)


def test_training_with_unlabelled_images_alone_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link("--unlabelled", str(work / "raw" / EFFUSION / "imagesTr"))
    assert "no data set of another disease is linked" in training_refused(capsys, work)


@pytest.mark.parametrize("name", ["", "case1.pkl", "case1.b2nd", "case1_seg.b2nd"])
@pytest.mark.parametrize("cut", [False, True])
def test_training_after_linked_data_were_deleted_or_damaged_is_refused(
    name: str, cut: bool, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link("-a", "602")
    folder = work / "preprocessed" / EFFUSION / f"{LINKED}_2d"
    if not name:
        shutil.rmtree(folder)
    elif cut:
        (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    else:
        (folder / name).unlink()
    error = training_refused(capsys, work)
    assert ("linked data are incomplete or damaged" if name else "linked data are gone") in error
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
