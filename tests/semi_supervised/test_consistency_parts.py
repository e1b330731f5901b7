"""Targets, the joined loss and an epoch's sums against nnU-Net's own transforms and against counting by hand."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import planned
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn import functional

from nnunet_covid.errors import UserError
from nnunet_covid.losses.reweighted_cross_entropy import ReweightedCrossEntropy, class_weights
from nnunet_covid.semi_supervised.consistency import (
    EpochSums,
    JoinedLoss,
    RunningCounts,
    label_maps,
    loss_targets,
)
from nnunet_covid.semi_supervised.labelling import Classes, Heads
from nnunet_covid.semi_supervised.training import make_nothing_of_no_voxel, weigh_classes

LABELS = {"background": 0, "ground_glass": 1, "consolidation": 2}
REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


def classes(labels: dict[str, Any], **more: Any) -> Classes:
    return Classes(planned.dataset_json(labels, **more), PlansManager(planned.plans()), ignore=True)


CASES = [classes(LABELS), classes(REGIONS, regions_class_order=[1, 2])]


@pytest.mark.parametrize(
    ("regions", "order", "said"),
    [
        ({"a": [1, 3], "b": [2, 3]}, [1, 2], "label 3 lies in a and b, but a label map keeps it as 2, which lies in b"),
        ({"a": [1, 2], "b": 2}, [2, 1], "label 1 lies in a, but a label map keeps it as 2, which lies in a and b"),
        ({"a": 2, "b": [1, 2]}, [2, 1], "label 2 lies in a and b, but a label map keeps it as 1, which lies in b"),
        ({"a": [1, 2], "b": [3, 4]}, [1, 3], None),
        ({"a": [1, 2, 3], "b": [2, 3], "c": 3}, [1, 2, 3], None),
    ],
)
def test_regions_that_no_label_map_keeps_are_refused(regions: dict[str, Any], order: list[int], said: Any) -> None:
    with pytest.raises(UserError, match=said) if said else nullcontext():
        classes({"background": 0, **regions}, regions_class_order=order)


@pytest.mark.parametrize("size", [(8, 8), (4, 6, 8)])
@pytest.mark.parametrize("known", CASES, ids=["labels", "regions"])
def test_targets_are_what_nnunets_own_transforms_make(known: Classes, size: tuple[int, ...]) -> None:
    manager = known.manager
    labels = torch.randint(0, 4, (3, *size), generator=torch.Generator().manual_seed(0)).short()
    scales = [[1.0] * len(size), [0.5] * len(size)]
    transforms = nnUNetTrainer.get_validation_transforms(
        scales,
        foreground_labels=manager.foreground_labels,
        regions=manager.foreground_regions if manager.has_regions else None,
        ignore_label=manager.ignore_label,
    )
    found = loss_targets(labels, manager, scales)
    for i, one in enumerate(labels):
        expected = transforms(image=torch.zeros(1, *size), segmentation=one[None].clone())["segmentation"]
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine[i], theirs)
    assert torch.equal(loss_targets(labels, manager, None), found[0])
    assert torch.equal(label_maps(found[0], manager), labels)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_joined_loss_is_the_sum_and_does_not_ask_the_student_without_weight(weight: float) -> None:
    asked = []

    def answer() -> torch.Tensor:
        asked.append(True)
        return torch.tensor(7.0)

    joined = JoinedLoss(torch.sub, torch.mul, answer, torch.tensor(2.0), weight)
    total = joined(torch.tensor(5.0), torch.tensor(1.0))
    assert float(total) == pytest.approx(4.0 + weight * 14.0)
    assert bool(asked) == bool(weight)


@pytest.mark.parametrize("known", CASES, ids=["labels", "regions"])
def test_sums_of_an_epoch_are_those_of_counting_voxels(known: Classes) -> None:
    rng = np.random.default_rng(0)
    sums = EpochSums(known, torch.device("cpu"))
    predicted, kept, student = (rng.integers(0, 3, (4, 5, 6)) for _ in range(3))
    kept = np.where(rng.random(kept.shape) < 0.5, predicted, 3)
    for i in range(2):
        part = slice(2 * i, 2 * i + 2)
        mine, theirs, said = (torch.from_numpy(one[part]).short() for one in (predicted, kept, student))
        sums.add_trust(mine, theirs)
        sums.add_targets(theirs)
        sums.add_answer(said, mine, torch.tensor(1.0 + i))
    assert sums.loss() == pytest.approx(1.5)
    assert sums.trusted() == pytest.approx((kept != 3).mean())
    dice = []
    for name, values in known.names.items():
        inside = np.isin(predicted, values)
        share = (inside & (kept != 3)).sum() / inside.sum()
        assert sums.trusted_by_class()[name] == pytest.approx(share)
        both = (inside & np.isin(student, values)).sum()
        dice.append(2 * both / (inside.sum() + np.isin(student, values).sum()))
    assert sums.agreement() == pytest.approx(np.mean(dice))
    assert sums.counts("seen") == {str(v): int((kept == v).sum()) for v in range(3)}
    assert sums.never_trusted() == []


def test_a_class_never_trusted_is_named() -> None:
    sums = EpochSums(CASES[0], torch.device("cpu"))
    sums.add_trust(torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 1, 3, 3]]))
    assert sums.never_trusted() == ["consolidation"]
    assert sums.trusted_by_class() == {"ground_glass": 1.0, "consolidation": 0.0}


def test_running_counts_forget_by_half_and_give_equation_8() -> None:
    running = RunningCounts()
    assert running.weights() is None
    running.add({"0": 80, "1": 0})
    assert running.weights() is None, "a class that was never seen has no share"
    running.add({"0": 40, "1": 20})
    assert running.counts == {"0": 80.0, "1": 20.0}
    weights = running.weights()
    assert weights == pytest.approx([1 / (2 * 0.8), 1 / (2 * 0.2)])
    assert weights == pytest.approx(class_weights([80, 20]).tolist())
    for loss in (torch.nn.CrossEntropyLoss(ignore_index=2), ReweightedCrossEntropy(2)):
        weigh_classes(loss, torch.tensor(weights))
        logits = torch.tensor([[[0.3, 1.0, 2.0]], [[0.1, -1.0, 0.0]]]).transpose(0, 1)
        labels = torch.tensor([[0, 1, 2]])
        by_hand = [weights[c] * -torch.log_softmax(logits, 1)[0, c, i] for i, c in enumerate([0, 1])]
        divisor = sum(weights) if isinstance(loss, torch.nn.CrossEntropyLoss) else 2
        assert float(loss(logits, labels)) == pytest.approx(float(sum(by_hand)) / divisor, rel=1e-5)


def test_trust_of_a_batch_is_that_of_its_images_with_an_eta_for_each_class() -> None:
    logits = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2
    probabilities = logits.softmax(1)
    etas = CASES[0].thresholds(0.8, {"consolidation": 0.5})
    assert etas == [0.8, 0.8, 0.5]
    kept, predicted = CASES[0].heads.trusted(probabilities.movedim(1, 0), etas, 3)
    for b, y, x in np.ndindex(4, 5, 6):
        column = probabilities[b, :, y, x]
        best = int(column.argmax())
        assert predicted[b, y, x] == best
        assert kept[b, y, x] == (best if float(column[best]) > etas[best] else 3)
    assert 0 < float((kept == 3).float().mean()) < 1


def test_trust_of_regions_wants_every_region_sure() -> None:
    heads = Heads((1, 2), regions=True)
    sigmoid = torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    kept, predicted = heads.trusted(sigmoid.movedim(1, 0), [0.7, 0.6], 3)
    for b, y, x in np.ndindex(3, 4, 4):
        whole, core = sigmoid[b, :, y, x].tolist()
        assert predicted[b, y, x] == (2 if core > 0.5 else 1 if whole > 0.5 else 0)
        sure = max(whole, 1 - whole) > 0.7 and max(core, 1 - core) > 0.6
        assert kept[b, y, x] == (predicted[b, y, x] if sure else 3)
    assert not math.isnan(float(kept.float().mean()))


@pytest.mark.parametrize("weights", [None, [0.2, 0.8]])
@pytest.mark.parametrize("named", [False, True])
def test_cross_entropy_is_torchs_where_voxels_count_and_nothing_where_none_does(weights: Any, *, named: bool) -> None:
    weight = None if weights is None else torch.tensor(weights)
    loss = torch.nn.Sequential(torch.nn.CrossEntropyLoss(ignore_index=2, label_smoothing=0.1))
    make_nothing_of_no_voxel(loss)
    weigh_classes(loss, weight)
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)

    def found(target: torch.Tensor) -> torch.Tensor:
        return loss[0](input=logits, target=target) if named else loss[0](logits, target)

    target = torch.randint(0, 3, (2, 8, 8))
    expected = functional.cross_entropy(logits, target, weight, ignore_index=2, label_smoothing=0.1)
    assert torch.equal(found(target), expected)
    nothing = found(torch.full_like(target, 2))
    nothing.backward()
    assert nothing == 0
    assert not logits.grad.any()
