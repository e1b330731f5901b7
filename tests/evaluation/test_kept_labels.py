"""Label maps kept in memory: without loss, only where it pays, and within a budget."""

import numpy as np
import pytest
from PIL import Image

from nnunet_covid.evaluation import evaluate_folders, folders
from nnunet_covid.evaluation.kept_labels import KeptCase, KeptLabels, keep_labels, within_budget
from nnunet_covid.evaluation.label_files import PIXELS, Geometry


def labels_of(dtype):
    labels = np.zeros((3, 40, 50), dtype=dtype)
    labels[1, 5:20, 7:40], labels[2] = 1, np.iinfo(dtype).max
    return labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
def test_label_maps_come_back_as_they_were(dtype, axes):
    labels = labels_of(dtype).transpose(axes)
    kept = keep_labels(labels)
    assert kept is not None
    restored = kept.restored()
    np.testing.assert_array_equal(restored, labels)
    assert restored.dtype == labels.dtype
    assert 10 * len(kept.block) < labels.nbytes


def test_noise_and_nothing_are_not_kept():
    assert keep_labels(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)) is None
    assert keep_labels(np.empty((0, 4), dtype=np.uint8)) is None


def test_cases_beyond_the_budget_are_dropped():
    def case(size):
        labels = KeptLabels((1, 1), np.dtype(np.uint8), bytes(size))
        return KeptCase(labels, labels, Geometry((1, 1), (1.0, 1.0), PIXELS))

    sizes = [10, 30, 5]
    kept = list(within_budget([*map(case, sizes), None], budget=35))
    assert [None if c is None else c.nbytes for c in kept] == [20, None, 10, None]


def test_every_label_map_is_decoded_once(png_folders, monkeypatch):
    read = []

    def counted(path, fmt):
        read.append(path)
        return read_labels(path, fmt)

    read_labels = folders.read_labels
    monkeypatch.setattr(folders, "read_labels", counted)
    evaluate_folders(png_folders.predictions, png_folders.references)
    assert sorted(read) == sorted([*png_folders.predictions.iterdir(), *png_folders.references.iterdir()])


def test_cases_that_are_not_kept_are_read_again_with_the_same_scores(png_folders, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 2, (20, 30), dtype=np.uint8)
    Image.fromarray(noise).save(png_folders.predictions / "b.png")
    before = evaluate_folders(png_folders.predictions, png_folders.references).scores
    monkeypatch.setattr(folders, "keep_labels", lambda _: None)
    assert evaluate_folders(png_folders.predictions, png_folders.references).scores == before
