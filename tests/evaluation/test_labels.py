"""What dataset.json's labels mean for scoring and for the channels of saved probabilities."""

import json

import numpy as np
import pytest

from nnunet_covid.dataset_json import read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.labels import find_dataset_json, scheme_of_labels

REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3, "ignore": 4}


def test_labels_are_scored_without_background_and_keep_its_channel():
    scheme = scheme_of_labels({"background": 0, "consolidation": 2, "ggo": 1})
    assert [(c.name, c.values, c.channel) for c in scheme.classes] == [("consolidation", (2,), 2), ("ggo", (1,), 1)]
    assert scheme.channels == 3
    assert not scheme.has_regions
    assert scheme.known_values == {0, 1, 2}


def test_regions_have_one_channel_each_in_their_order():
    scheme = scheme_of_labels(REGIONS)
    assert [(c.name, c.channel) for c in scheme.classes] == [("whole", 0), ("core", 1), ("rim", 2)]
    assert scheme.channels == 3
    assert scheme.ignore == 4
    assert scheme.known_values == {0, 1, 2, 3, 4}


def test_a_region_is_the_union_of_its_labels():
    whole, core, _ = scheme_of_labels(REGIONS).classes
    labels = np.array([0, 1, 2, 3, 4])
    np.testing.assert_array_equal(whole.mask(labels), [False, True, True, True, False])
    np.testing.assert_array_equal(core.mask(labels), [False, False, True, True, False])


@pytest.mark.parametrize("labels", [{"background": 0, "a": 1, "b": 2, "ignore": 3}, REGIONS, {"background": 0, "x": 3}])
def test_channels_agree_with_nnunet(labels):
    label_handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
    scheme = scheme_of_labels(labels)
    order = [3, 2, 1] if labels is REGIONS else None
    manager = label_handling.LabelManager({k: tuple(v) if isinstance(v, list) else v for k, v in labels.items()}, order)
    assert scheme.channels == manager.num_segmentation_heads
    assert scheme.ignore == manager.ignore_label
    if manager.has_regions:
        ours = [c.values if len(c.values) > 1 else c.values[0] for c in sorted(scheme.classes, key=lambda c: c.channel)]
        assert ours == manager.foreground_regions
    else:
        assert all(manager.all_labels[c.channel] == c.values[0] for c in scheme.classes)


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [
        ({"infection": 1}, "must declare 'background': 0"),
        ({"background": 1, "infection": 2}, "must declare 'background': 0"),
        ({"background": 0, "ignore": 1}, "no class besides"),
        ({"background": 0, "x": 1, "ignore": [2, 3]}, "single value"),
        ({"background": 0, "x": "one"}, "label 'x' is .*, but must be a whole number"),
        ({"background": 0, "x": []}, "label 'x' is .*, but must be a whole number"),
        ({"background": 0, "x": None}, "label 'x' is .*, but must be a whole number"),
    ],
)
def test_labels_that_make_no_sense_are_refused(labels, complaint):
    with pytest.raises(UserError, match=complaint):
        scheme_of_labels(labels)


def test_dataset_json_is_looked_for_beside_predictions_first(tmp_path):
    predictions, references = tmp_path / "run" / "predictions", tmp_path / "raw" / "labelsTs"
    for folder in (predictions, references):
        folder.mkdir(parents=True)
    with pytest.raises(UserError, match="name one from elsewhere, or give the labels") as e:
        find_dataset_json(predictions, references)
    assert e.value.about == "dataset_json"
    above = references.parent / "dataset.json"
    above.write_text("{}")
    assert find_dataset_json(predictions, references) == above
    beside = predictions / "dataset.json"
    beside.write_text("{}")
    assert find_dataset_json(predictions, references) == beside


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "not valid JSON"), ("[]", "has no 'labels'"), (json.dumps({"labels": 3}), "no 'labels'")],
)
def test_a_broken_dataset_json_is_refused(tmp_path, text, complaint):
    path = tmp_path / "dataset.json"
    path.write_text(text)
    with pytest.raises(UserError, match=complaint):
        read_dataset_json(path)


def test_a_missing_dataset_json_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        read_dataset_json(tmp_path / "nowhere.json")
