"""The losses of Inf-Net equal their formulas, voxel by voxel, and ignored voxels count for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from nnunet_covid.losses import inf_net as losses
from nnunet_covid.losses.inf_net import InfNetLoss

SHAPES = [(2, 1, 13, 17), (2, 2, 9, 11), (1, 2, 3, 9, 7)]


def random_case(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits, a blobby reference, and a mask of valid voxels with about a fifth ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    reference = (torch.rand(shape, generator=generator) > 0.6).double()
    valid = (torch.rand((shape[0], 1, *shape[2:]), generator=generator) > 0.2).double()
    return logits, reference, valid


def naive_weight(g: np.ndarray, size: int) -> np.ndarray:
    """1 + 5 |mean over the in-plane square, zeros outside, minus g| for one channel (*spatial)."""
    half = size // 2
    result = np.zeros(g.shape)
    for position in itertools.product(*(range(s) for s in g.shape)):
        *leading, y, x = position
        plane = g[tuple(leading)]
        window = plane[max(0, y - half) : y + half + 1, max(0, x - half) : x + half + 1]
        result[position] = 1 + 5 * abs(window.sum() / size**2 - g[position])
    return result


def naive_structure_loss(logits: np.ndarray, g: np.ndarray, w: np.ndarray, bce_weight: float) -> float:
    """One image, one class, one voxel at a time."""
    intersection = total = bce = weights = 0.0
    for s, y, weight in zip(logits.ravel(), g.ravel(), w.ravel(), strict=True):
        p = 1 / (1 + np.exp(-s))
        bce -= weight * (y * np.log(p) + (1 - y) * np.log(1 - p))
        weights += weight
        intersection += weight * p * y
        total += weight * (p + y)
    return 1 - (intersection + 1) / (total - intersection + 1) + bce_weight * bce / weights


def naive_edge(g: np.ndarray) -> np.ndarray:
    """1 where a voxel differs from a direct neighbour."""
    edge = np.zeros(g.shape)
    for position in itertools.product(*(range(s) for s in g.shape)):
        for axis, step in itertools.product(range(g.ndim), (-1, 1)):
            neighbour = list(position)
            neighbour[axis] += step
            if 0 <= neighbour[axis] < g.shape[axis] and g[tuple(neighbour)] != g[position]:
                edge[position] = 1
    return edge


@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_weight_is_the_distance_from_the_neighbourhood_mean(shape: tuple[int, ...]) -> None:
    _, reference, _ = random_case(shape)
    expected = [[naive_weight(c, losses.NEIGHBOURHOOD) for c in image] for image in reference.numpy()]
    np.testing.assert_allclose(losses.pixel_weight(reference).numpy(), expected, atol=1e-12)


def test_neighbourhood_is_31_voxels_wide() -> None:
    point = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    point[0, 0, 20, 20] = 1
    mean = losses.neighbourhood_mean(point)[0, 0]
    assert mean.nonzero().min() == 5
    assert mean.nonzero().max() == 35
    np.testing.assert_allclose(mean[5:36, 5:36], 1 / 961)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bce_weight", [1.0, 0.3])
def test_structure_loss_equals_the_sum_over_voxels(shape: tuple[int, ...], bce_weight: float) -> None:
    logits, reference, _ = random_case(shape)
    weight = losses.pixel_weight(reference)
    terms = [
        naive_structure_loss(logits[b, c].numpy(), reference[b, c].numpy(), weight[b, c].numpy(), bce_weight)
        for b in range(shape[0])
        for c in range(shape[1])
    ]
    actual = losses.structure_loss(logits, reference, weight, bce_weight)
    assert actual.item() == pytest.approx(np.mean(terms), abs=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_edge_map_marks_voxels_that_differ_from_a_neighbour(shape: tuple[int, ...]) -> None:
    _, reference, _ = random_case(shape)
    expected = [[naive_edge(c) for c in image] for image in reference.numpy()]
    np.testing.assert_array_equal(losses.edge_map(reference).numpy(), expected)


def test_edge_map_of_a_square_is_two_voxels_wide_and_open_at_the_border() -> None:
    square = torch.zeros(1, 1, 6, 6)
    square[..., :3, 1:4] = 1
    expected = torch.tensor(
        [
            [1, 1, 0, 1, 1, 0],
            [1, 1, 0, 1, 1, 0],
            [1, 1, 1, 1, 1, 0],
            [0, 1, 1, 1, 0, 0],
            [0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 0, 0],
        ]
    )
    assert torch.equal(losses.edge_map(square)[0, 0].long(), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_match_finite_differences(shape: tuple[int, ...]) -> None:
    logits, reference, valid = random_case(shape)
    weight = losses.pixel_weight(reference, valid)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: losses.structure_loss(s, reference, weight), [logits], fast_mode=True)
    assert torch.autograd.gradcheck(lambda s: losses.edge_bce(s, reference, valid), [logits], fast_mode=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_ignored_voxels_change_no_loss_and_no_gradient(shape: tuple[int, ...]) -> None:
    logits, reference, valid = random_case(shape)
    ignored = (valid == 0).expand_as(reference)
    results = []
    for hidden_reference, hidden_logit in ((0.0, -3.0), (1.0, 7.0)):
        g = torch.where(ignored, hidden_reference, reference)
        s = torch.where(ignored, hidden_logit, logits).requires_grad_()
        loss = losses.structure_loss(s, g, losses.pixel_weight(g, valid)) + losses.edge_bce(s, g, valid)
        loss.backward()
        results.append((loss.detach(), s.grad))
    (loss_a, grad_a), (loss_b, grad_b) = results
    assert loss_a.item() == pytest.approx(loss_b.item(), abs=1e-12)
    torch.testing.assert_close(grad_a, grad_b, atol=1e-12, rtol=0)
    assert grad_a[ignored].abs().max() == 0
    assert grad_a[~ignored].abs().max() > 0


def test_an_all_valid_mask_changes_nothing() -> None:
    logits, reference, valid = random_case(SHAPES[1])
    everywhere = torch.ones_like(valid)
    torch.testing.assert_close(losses.pixel_weight(reference, everywhere), losses.pixel_weight(reference))
    torch.testing.assert_close(losses.edge_bce(logits, reference, everywhere), losses.edge_bce(logits, reference))


def test_an_image_without_valid_voxels_gives_zero_gradient() -> None:
    logits, reference, valid = random_case(SHAPES[0])
    nothing = torch.zeros_like(valid)
    logits.requires_grad_()
    loss = losses.structure_loss(logits, reference, losses.pixel_weight(reference, nothing))
    (loss + losses.edge_bce(logits, reference, nothing)).backward()
    assert torch.isfinite(loss)
    assert logits.grad.abs().max() == 0


def test_a_perfect_map_costs_nothing_and_an_inverted_one_a_lot() -> None:
    _, reference, _ = random_case(SHAPES[0])
    weight = losses.pixel_weight(reference)
    perfect = losses.structure_loss((reference * 2 - 1) * 40, reference, weight)
    inverted = losses.structure_loss((1 - reference * 2) * 40, reference, weight)
    assert perfect.item() == pytest.approx(0, abs=1e-9)
    assert inverted.item() > 10


def test_total_loss_is_the_sum_over_maps_and_the_edge() -> None:
    logits, reference, _ = random_case(SHAPES[1])
    maps = [logits * k for k in (1, 2, -1, 0.5)]
    edge = logits * 0.3
    background = torch.randn(2, 1, 9, 11, dtype=torch.float64)
    weight = losses.pixel_weight(reference.float())
    terms = [losses.structure_loss(losses.against_the_rest(m.float()), reference.float(), weight) for m in maps]
    of_the_edge = losses.edge_bce(edge.float(), reference.float())
    expected = sum(terms) + of_the_edge

    loss = InfNetLoss(lambda target: (target.float(), None), background=True, edge=True)
    first = torch.cat((background, maps[0]), dim=1)
    actual = loss([first, *maps[1:], edge], [reference])
    torch.testing.assert_close(actual, expected)
    only_result = InfNetLoss(lambda target: (target.float(), None), background=True, edge=True)(first, [reference])
    torch.testing.assert_close(only_result, terms[0])
    for kind, shares, share in (("mean", [1 / 4] * 4, 1 / 4), ("halving", [8 / 15, 4 / 15, 2 / 15, 1 / 15], 1 / 4)):
        loss = InfNetLoss(lambda target: (target.float(), None), background=True, edge=True, weights=kind)
        expected = sum(s * t for s, t in zip(shares, terms, strict=True)) + share * of_the_edge
        torch.testing.assert_close(loss([first, *maps[1:], edge], [reference]), expected)


def test_regions_are_not_set_against_each_other() -> None:
    logits, reference, _ = random_case(SHAPES[1])
    loss = InfNetLoss(lambda target: (target.float(), None), background=False, edge=False)
    expected = losses.structure_loss(logits.float(), reference.float(), losses.pixel_weight(reference.float()))
    torch.testing.assert_close(loss([logits], [reference]), expected)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_a_class_against_the_rest_is_what_the_softmax_says(classes: int) -> None:
    """What is trained as a sigmoid is what nnU-Net exports: two logits of 3 are 0.487 each, not 0.95."""
    logits = 3 * torch.randn(2, classes, 5, 6, dtype=torch.float64)
    read = torch.cat((torch.zeros_like(logits[:, :1]), logits), dim=1).softmax(dim=1)[:, 1:]
    torch.testing.assert_close(losses.against_the_rest(logits).sigmoid(), read)


def best_area(weigh: Callable[[torch.Tensor], torch.Tensor]) -> float:
    """Area that the best free map marks, over the mean area, of a lesion whose radius is 3, 5 or 7."""
    distance = (torch.cartesian_prod(torch.arange(48.0), torch.arange(48.0)) - 23.5).norm(dim=1).view(1, 1, 48, 48)
    references = [(distance < r).float() for r in (3, 5, 7)]
    logits = torch.zeros(1, 1, 48, 48, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimiser.zero_grad()
        sum(losses.structure_loss(logits, g, weigh(g)) for g in references).backward()
        optimiser.step()
    return (logits > 0).sum().item() / (sum(g.sum().item() for g in references) / 3)


def test_a_label_free_weight_does_not_draw_lesions_too_large() -> None:
    paper = best_area(losses.pixel_weight)
    label_free = best_area(lambda g: losses.pixel_weight(g, kind="label_free"))
    assert paper > 1.5
    assert label_free < paper - 0.2


def test_the_label_free_weight_is_its_formula_and_knows_no_label() -> None:
    _, reference, valid = random_case(SHAPES[0])
    mean = losses.neighbourhood_mean(reference * valid)
    actual = losses.pixel_weight(reference, valid, "label_free")
    torch.testing.assert_close(actual, (1 + 10 * mean * (1 - mean)) * valid)


def test_plain_cross_entropy_leaves_the_weight_to_the_iou() -> None:
    logits, reference, _ = random_case(SHAPES[0])
    logits, reference = logits.float(), reference.float()
    weight = losses.pixel_weight(reference)
    bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, reference)
    loss = InfNetLoss(lambda target: (target, None), background=False, edge=False, plain_bce=True)
    expected = losses.weighted_iou_loss(logits, reference, weight).mean() + bce
    torch.testing.assert_close(loss([logits], [reference]), expected)


def test_thick_slices_have_edges_in_their_plane_alone() -> None:
    """A lesion in one slice of three: across slices all of it is edge, in the plane its border is."""
    reference = torch.zeros(1, 1, 3, 9, 9)
    reference[:, :, 1, 2:7, 2:7] = 1
    everywhere = losses.edge_map(reference)
    in_plane = losses.edge_map(reference, (False, True, True))
    assert everywhere[reference > 0].all()
    assert not in_plane[:, :, [0, 2]].any()
    torch.testing.assert_close(in_plane[:, :, 1], losses.edge_map(reference[:, :, 1]))
    assert in_plane[0, 0, 1, 4, 4] == 0
