"""Manifest, class names and Dice, the data set of both kinds, and the picture, each on small arrays."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.figures.progress import draw_progress
from nnunet_covid.semi_supervised.labelling import Classes, with_ignore_label
from nnunet_covid.semi_supervised.options import make_options
from nnunet_covid.semi_supervised.state import RunState, history, summarise, write_manifest
from nnunet_covid.semi_supervised.training import PREFIX, LabelledAndPseudo

REGIONS = {"background": 0, "infection": [1, 2], "consolidation": 2}


def classes(labels: dict[str, Any] | None = None, **extra: Any) -> Classes:
    described = planned.dataset_json(labels, **extra)
    return Classes(described, PlansManager(planned.plans()))


def test_thresholds_go_by_class_name() -> None:
    three = classes({"background": 0, "ggo": 1, "consolidation": 2})
    assert three.thresholds(0.95, {"consolidation": 0.8}) == [0.95, 0.95, 0.8]
    assert three.thresholds(0.9, {"background": 0.5}) == [0.5, 0.9, 0.9]
    assert classes(REGIONS, regions_class_order=[1, 2]).thresholds(0.9, {"infection": 0.7}) == [0.7, 0.9]
    with pytest.raises(UserError, match="the classes are background, ggo, consolidation"):
        three.thresholds(0.95, {"GGO": 0.8})


def test_dice_is_nnunets_per_class_and_leaves_ignored_voxels_out() -> None:
    two = classes({"background": 0, "a": 1, "b": 2, "ignore": 3})
    reference = np.array([[1, 1, 2, 3, 0, -1]])
    predicted = np.array([[1, 0, 1, 1, 0, 0]])
    assert two.dice(predicted, reference) == {"a": pytest.approx(2 * 1 / (2 + 2)), "b": 0.0}
    empty = two.dice(np.zeros((1, 2), int), np.zeros((1, 2), int))
    assert all(math.isnan(d) for d in empty.values())
    regions = classes(REGIONS, regions_class_order=[1, 2])
    assert regions.dice(np.array([1, 2, 0]), np.array([2, 2, 0])) == {
        "infection": 1.0,
        "consolidation": pytest.approx(2 / 3),
    }


def test_voxels_are_counted_by_label_value_and_what_lies_outside_is_background() -> None:
    assert classes().counts(np.array([-1, -1, 0, 1])) == {"0": 3, "1": 1}
    assert classes({"background": 0, "a": 1, "ignore": 2}).counts(np.array([0, 1, 2, 2])) == {"0": 1, "1": 1}


def test_an_ignore_label_is_the_highest_value() -> None:
    described = planned.dataset_json(REGIONS, regions_class_order=[1, 2])
    extended = with_ignore_label(described)
    assert extended["labels"]["ignore"] == 3
    assert "ignore" not in described["labels"], "the original stays as it is"
    assert with_ignore_label(extended) == extended
    assert PlansManager(planned.plans()).get_label_manager(extended).ignore_label == 3


def test_the_manifest_has_one_row_per_image(tmp_path: Path) -> None:
    one = {"round": 2, "model": "abc", "counts": {"0": 5, "1": 3}}
    records = [
        {**one, "image": "a", "confidence": 0.75, "predicted": {"x": 4, "y": 0}, "kept": {"x": 3, "y": 0}},
        {**one, "image": "b", "confidence": 0.25, "predicted": {"x": 0, "y": 2}, "kept": {"x": 0, "y": 2}},
    ]
    write_manifest(tmp_path, records)
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [row["image"] for row in rows] == ["a", "b"]
    assert rows[0] == {
        "image": "a",
        "round": "2",
        "model": "abc",
        "confidence": "0.750000",
        "kept": "0.750000",
        "kept_x": "0.750000",
        "kept_y": "",
    }
    total = summarise(records)
    assert total["counts"] == {"0": 10, "1": 6}
    assert (total["predicted"], total["kept"]) == ({"x": 4, "y": 2}, {"x": 3, "y": 2})
    assert total["confidence"] == 0.5


class Labelled:
    """Stands for nnU-Net's data set of two labelled cases."""

    identifiers = ("un_0", "zzz")

    def load_case(self, identifier: str) -> tuple[Any, Any, None, dict[str, Any]]:
        return np.zeros((1, 1, 4, 6)), identifier, None, {"class_locations": {1: []}}


def test_a_pseudo_case_never_hides_a_labelled_one_of_the_same_name() -> None:
    both = LabelledAndPseudo(Labelled(), {"un_0": None})  # type: ignore[arg-type, dict-item]
    assert both.identifiers == ["un_0", "zzz", PREFIX + "un_0"]
    assert both.load_case("un_0")[1] == "un_0"
    assert LabelledAndPseudo(None, {"un_0": None}).identifiers == [PREFIX + "un_0"]  # type: ignore[dict-item]


def test_labelled_cases_without_an_ignore_label_are_annotated_everywhere() -> None:
    both = LabelledAndPseudo(Labelled(), {}, annotated=(-1, 0, 1))  # type: ignore[arg-type]
    locations = both.load_case("zzz")[3]["class_locations"][(-1, 0, 1)]
    assert locations.shape[1] == 4
    assert (locations.min(0) == 0).all()
    np.testing.assert_array_equal(locations.max(0), [0, 0, 3, 5])


def test_the_picture_is_drawn_at_every_stage(tmp_path: Path) -> None:
    state = RunState(tmp_path, make_options("iterative", {}), {"trainer": "T", "fold": 0})
    pool = {"cases": dict.fromkeys("abcd", "x")}
    units = {
        "pool": pool,
        "0/weights": [0.6, 4.0],
        "0/validate base": {"mean": 0.4, "classes": {"i": 0.4}},
        "1/select": ["a", "b"],
        "1/label": {"predicted": {"i": 10}, "kept": {"i": 7}, "confidence": 0.9},
        "1/weights": [0.6, 5.0],
        "1/validate round_001": {"mean": 0.5, "classes": {"i": 0.5}},
    }
    for name, result in units.items():
        state.units[name] = {"result": result, "seconds": 1.0}
        if name not in ("pool", "0/validate base", "1/validate round_001"):
            continue
        with Image.open(draw_progress(tmp_path, "title", history(state.units))) as picture:
            assert picture.size == (1760, 896)


def test_the_two_step_training_is_no_round_in_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("nnunet_covid.figures.progress.save", lambda figure, path: drawn.append(figure) or path)
    names = ("0/validate base", "1/validate round_001", "2/validate pre_trained", "2/validate fine_tuned")
    units = {name: {"result": {"mean": 0.5, "classes": {"i": 0.5}}, "seconds": 1.0} for name in names}
    rounds = history(units)
    assert [one.two_step for one in rounds] == [False, False, True]
    draw_progress(tmp_path, "title", rounds)
    for axes in drawn[0].axes[:4]:
        shown = axes.xaxis.get_major_formatter()
        assert [shown(position, None) for position in (0.0, 1.0, 2.0)] == ["0", "1", "two-step"]
