"""Scripts of ``benchmarks`` that are given a data set."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("few_label_splits", []),
        ("pseudo_label_curves", ["--folds", "0", "-o", "curves.png"]),
        ("distillation_scale", ["2d"]),
    ],
)
def test_an_unknown_data_set_ends_with_one_line(
    script: str, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(sys, "argv", [script, "977", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(BENCHMARKS / f"{script}.py"), run_name="__main__")
    assert str(ended.value) == f"data set '977': there is none in {' or '.join([str(tmp_path)] * 3)}; there are none"
