from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_covid import dataset_json as d
from nnunet_covid.errors import UserError

LABELS = {"background": 0, "lung": [1, 2], "lesion": 2, "ignore": 3}


def test_labels_and_regions_keep_their_order_and_foreground_leaves_background_and_ignore_out() -> None:
    assert d.label_values(LABELS) == {"background": (0,), "lung": (1, 2), "lesion": (2,), "ignore": (3,)}
    assert d.foreground_values(LABELS) == {"lung": (1, 2), "lesion": (2,)}
    assert d.ignore_label(LABELS) == 3
    assert d.ignore_label({"background": 0}) is None
    assert d.has_regions(LABELS)
    assert not d.has_regions({"background": 0, "lesion": [2], "ignore": [3]})


@pytest.mark.parametrize(
    ("names", "organ"),
    [
        (("left_lung", "right_lung", "lungs", "Lung-Left", "left upper lobe", "liver"), True),
        (("infection", "lesion", "tumour", "pleural_effusion", "ground_glass_opacity", "consolidation"), False),
        (("lung_infection", "lung lesions", "liver-tumour", "plunge"), False),
    ],
)
def test_an_organ_is_told_by_a_word_of_its_name_unless_a_lesion_of_it_is_named(
    names: tuple[str, ...], organ: bool
) -> None:
    assert [d.is_organ(name) for name in names] == [organ] * len(names)


@pytest.mark.parametrize("value", ["two", "1", [], None, ["a"], 1.5, True])
def test_values_that_are_no_integers_are_refused(value: object) -> None:
    with pytest.raises(UserError, match="must be a whole number"):
        d.label_values({"background": 0, "lesion": value})  # type: ignore[dict-item]


def test_an_ignore_label_of_several_values_is_refused() -> None:
    with pytest.raises(UserError, match="single value"):
        d.ignore_label({"ignore": [1, 2]})


def test_channels_are_ordered_by_number_under_their_old_name_too() -> None:
    names = {"10": "c", "2": "b", "0": "a"}
    assert d.channel_names({"channel_names": names}) == d.channel_names({"modality": names}) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("{", "not valid JSON"), (json.dumps({"name": "x"}), "no 'labels'")]
)
def test_unusable_documents_are_told_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "dataset.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message):
        d.read_dataset_json(path)


@pytest.mark.parametrize("names", [{}, {"channel_names": None}, {"channel_names": None, "modality": None}])
def test_channels_that_are_nothing_are_missing(tmp_path: Path, names: dict[str, None]) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0}, "file_ending": ".png", **names}))
    with pytest.raises(UserError, match="it has no 'channel_names'"):
        d.read_dataset_json(path, needed=d.IMAGES)
