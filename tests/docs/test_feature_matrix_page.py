"""The page of what works with what is that of the matrix as it is tested now."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from image_files import read_array

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_feature_matrix", REPOSITORY / "docs/draw_feature_matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_every_feature_family_and_exception_and_no_failure(script: ModuleType) -> None:
    page = script.PAGE.read_text(encoding="utf-8")
    outcomes = {sign: outcome for outcome, sign in script.SIGNS.items()}
    table = page.split("| --- |")[1].split("\n\n")[0].splitlines()[1:]
    rows = [line.strip("| ").split(" | ") for line in table]
    found = {
        (family, feature): outcomes[sign]
        for feature, row in zip(script.FEATURES, rows, strict=True)
        for family, sign in zip(script.FAMILIES, row[1:], strict=True)
    }
    assert page == script.page(found), "run the matrix and docs/draw_feature_matrix.py again"
    assert "fails" not in found.values()
    refused = {cell for cell, outcome in found.items() if outcome == "refused"}
    assert refused == {(t, f) for r in script.REFUSALS for t in r.trainers for f in r.features} & set(found)


def test_results_become_a_picture(script: ModuleType, tmp_path: Path) -> None:
    lines = [
        {"trainer": "InfNetTrainer", "family": "InfNetTrainer", "feature": "2D", "outcome": "works"},
        {"trainer": "InfNetDiceTrainer", "family": "InfNetTrainer", "feature": "2D", "outcome": "fails"},
        {"trainer": "SSANetTrainer", "family": "SSANetTrainer", "feature": "regions", "outcome": "works"},
        {"trainer": "SSANetReweightedTrainer", "family": "SSANetTrainer", "feature": "regions", "outcome": "refused"},
    ]
    (tmp_path / "results").write_text("\n".join(map(json.dumps, lines)))
    found = script.outcomes(tmp_path / "results")
    assert found["InfNetTrainer", "2D"] == "fails", "one trainer's failure is its family's"
    assert found["SSANetTrainer", "regions"] == "works"
    assert found["SSANetTrainer", "2D"] == "not run"
    assert len(found) == len(script.FAMILIES) * len(script.FEATURES)
    script.draw(found, tmp_path / "matrix.png")
    drawn, shown = read_array(tmp_path / "matrix.png"), read_array(script.PICTURE)
    assert drawn.shape[:2] == shown.shape[:2], "draw it again: docs/draw_feature_matrix.py"
