"""``nnunet-covid check`` of a data set whose dataset.json lists its training cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from image_files import blob, grey, write_picture

from nnunet_covid.cli import main
from nnunet_covid.dataset_check.dataset import open_dataset
from nnunet_covid.errors import UserError

NAMES = ["a_000", "b_000", "c_000"]


def listing(folder: Path, listed: dict[str, Any]) -> None:
    """Three cases in folders of other names, and labels that dataset.json does not list."""
    for seed, name in enumerate(NAMES):
        write_picture(folder / f"images/{name}_0000.png", grey((20, 24), seed))
        write_picture(folder / f"labels/{name}.png", blob((20, 24), seed, 7 if name == "b_000" else 1))
    write_picture(folder / "labelsTr/other.png", blob((20, 24), 9))
    description = {
        "labels": {"background": 0, "infection": 1},
        "file_ending": ".png",
        "channel_names": {"0": "grey_ct"},
        "dataset": listed,
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


LISTED = {name: {"images": [f"images/{name}_0000.png"], "label": f"labels/{name}.png"} for name in NAMES}


def test_they_are_checked_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    listing(tmp_path / "mine", LISTED)
    assert [case.name for case in open_dataset(str(tmp_path / "mine")).cases] == NAMES
    assert main(["check", str(tmp_path / "mine")]) == 1
    said = capsys.readouterr().out
    assert "7" in said
    assert "b_000" in said
    assert "other.png" not in said


def test_a_missing_file_and_an_empty_list_are_told(tmp_path: Path) -> None:
    listing(tmp_path / "mine", LISTED)
    (tmp_path / "mine/labels/a_000.png").unlink()
    with pytest.raises(UserError, match=r"labels/a_000\.png is missing; dataset\.json lists it"):
        open_dataset(str(tmp_path / "mine"))
    listing(tmp_path / "none", {})
    with pytest.raises(UserError, match=r"'dataset' in dataset\.json lists no cases; write"):
        open_dataset(str(tmp_path / "none"))
