"""The greedy choice: against a plain loop over all images, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_covid.suggestion.spread import Labelled, spread_out


def naive(
    scores: list[float], patients: list[str], features: np.ndarray, number: int, labelled: Labelled
) -> list[tuple[int, float | None]]:
    """Every distance computed anew for every choice."""
    looks = [row / features.std(0) for row in features]
    there = [
        (patient, row / features.std(0)) for patient, row in zip(labelled.patients, labelled.features, strict=True)
    ]
    order: list[tuple[int, float | None]] = []
    for _ in range(number):
        best: tuple[float, int, float | None] | None = None
        for i, (score, patient, look) in enumerate(zip(scores, patients, looks, strict=True)):
            if i in [chosen for chosen, _ in order]:
                continue
            distances = [float(np.sqrt(np.mean((look - row) ** 2))) for _, row in there]
            nearest = min(distances) if distances else None
            value = score * (1 if nearest is None else nearest) / (1 + sum(owner == patient for owner, _ in there))
            if best is None or value > best[0]:
                best = value, i, nearest
        assert best is not None
        order.append((best[1], best[2]))
        there.append((patients[best[1]], looks[best[1]]))
    return order


@pytest.mark.parametrize("known", [0, 3])
def test_every_choice_is_the_best_of_those_left(known: int) -> None:
    random = np.random.default_rng(known)
    scores = random.random(25).tolist()
    patients = [f"p{n}" for n in random.integers(0, 6, 25)]
    features = random.normal(size=(25, 7)) * np.arange(1, 8)
    labelled = Labelled([f"p{n}" for n in range(known)], random.normal(size=(known, 7)))
    found = spread_out(scores, patients, features, 12, labelled)
    expected = naive(scores, patients, features, 12, labelled)
    assert [one.index for one in found] == [index for index, _ in expected]
    assert [one.distance for one in found] == [d if d is None else pytest.approx(d) for _, d in expected]


def test_of_two_images_alike_only_one_comes_first() -> None:
    features = np.array([[0.0, 0.0], [0.01, 0.0], [5.0, 5.0]])
    found = spread_out([1.0, 0.99, 0.3], ["a", "b", "c"], features, 3)
    assert [one.index for one in found] == [0, 2, 1]


def test_another_patient_comes_before_a_second_image_of_the_same() -> None:
    found = spread_out([1.0, 0.9, 0.6], ["a", "a", "b"], None, 3)
    assert [one.index for one in found] == [0, 2, 1]
    assert [one.distance for one in found] == [None, None, None]


def test_what_looks_like_a_labelled_image_waits() -> None:
    features = np.array([[0.0], [4.0], [5.0]])
    labelled = Labelled(["x"], np.array([[0.01]]))
    assert [one.index for one in spread_out([1.0, 0.5, 0.5], ["a", "b", "c"], features, 2, labelled)] == [2, 1]


def test_a_feature_that_never_varies_changes_nothing() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(9, 3))
    scores, patients = random.random(9).tolist(), [str(n) for n in range(9)]
    constant = np.concatenate([features, np.full((9, 1), 3.0)], 1)
    plain, more = (spread_out(scores, patients, each, 9) for each in (features, constant))
    assert plain == more


def test_images_without_disagreement_are_still_spread() -> None:
    features = np.array([[0.0], [1.0], [10.0], [5.0]])
    found = spread_out([0.0] * 4, list("abcd"), features, 4)
    assert [one.index for one in found] == [0, 2, 3, 1]
