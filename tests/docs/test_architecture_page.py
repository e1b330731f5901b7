"""The page for the next engineer says what is so: its examples run, its places exist, its picture is the contract's."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from image_files import blob, grey, read_array, write_picture

from nnunet_covid import dataset_conversion, trainers
from nnunet_covid.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = (REPOSITORY / "docs/explanation/architecture.md").read_text(encoding="utf-8")


def code_blocks(heading: str) -> list[str]:
    """The Python blocks of one section of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


def files_named(text: str) -> set[str]:
    """Whole paths in backticks."""
    return set(re.findall(r"`((?:nnunet_covid|trainers|dataset_conversion|docs|tests|benchmarks)/[\w/.]*)`", text))


@pytest.mark.parametrize("page", ["docs/explanation/architecture.md", "CONTRIBUTING.md"])
def test_every_place_exists(page: str) -> None:
    examples = {"trainers/inf_net_tversky.py", "dataset_conversion/Dataset599_Example.py"}
    examples.add("dataset_conversion/DatasetNNN_Name.py")
    named = files_named((REPOSITORY / page).read_text(encoding="utf-8")) - examples
    assert named
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_what_people_come_to_change_is_where_the_page_says() -> None:
    table = PAGE.split("\n## Where do I change …?\n")[1].split("\n## ")[0]
    checked = []
    for names, file in re.findall(r"((?:`[\w.]+`(?: and )?)+)(?: of `\w+`)? in `([\w/]+\.py)`", table):
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        for name in re.findall(r"[\w.]+", names.replace(" and ", " ")):
            for part in name.split("."):
                assert re.search(rf"^ *(def|class) {part}\b|^{part}\b", text, flags=re.MULTILINE), f"{name} in {file}"
            checked.append(name)
    assert {"differing_sizes", "differing_grids", "METRICS"} <= set(checked)
    assert any("trusted" in name for name in checked)


def test_every_room_is_on_the_map() -> None:
    rooms = {path.parent for path in (REPOSITORY / "nnunet_covid").glob("*/__init__.py")}
    named = files_named(PAGE.split("\n## Map\n")[1].split("\n## ")[0])
    assert {f"nnunet_covid/{room.name}/" for room in rooms} <= named


@pytest.mark.parametrize("labels", [None, {"background": 0, "infection": [1, 2], "consolidation": 2, "ignore": 3}])
def test_the_example_of_a_trainer_trains(
    labels: dict[str, Any] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, entry = code_blocks("Add a trainer")
    (tmp_path / "inf_net_tversky.py").write_text(module, encoding="utf-8")
    monkeypatch.setattr(trainers, "__path__", [*trainers.__path__, str(tmp_path)])
    monkeypatch.setattr(trainers, "TRAINERS", {**trainers.TRAINERS, **ast.literal_eval("{" + entry + "}")})
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", lambda folder: None)
    more = {} if labels is None else {"regions_class_order": [1, 2]}
    dataset_json = planned.dataset_json(labels, **more)
    trainer = trainers.InfNetTverskyTrainer(planned.plans(), "2d", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    trainer.network.train()
    batch = {"data": torch.randn(2, 1, 64, 64), "target": [torch.zeros(2, 1 if labels is None else 3, 64, 64).short()]}
    batch["target"][0][..., 8:20, 8:20] = 1
    before = [parameter.detach().clone() for parameter in trainer.network.parameters()]
    assert np.isfinite(trainer.train_step(batch)["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.network.parameters(), strict=True))
    assert issubclass(trainers.InfNetTverskyTrainer_30epochs, trainers.InfNetTverskyTrainer)


def test_the_example_of_a_converter_converts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (module,) = code_blocks("Add a converter")
    (tmp_path / "Dataset599_Example.py").write_text(module, encoding="utf-8")
    monkeypatch.setattr(dataset_conversion, "__path__", [*dataset_conversion.__path__, str(tmp_path)])
    dataset_conversion.recipes.cache_clear()
    try:
        for number in (1, 2):
            write_picture(tmp_path / f"source/images/{number}.png", grey((12, 14), number))
            write_picture(tmp_path / f"source/masks/{number}.png", blob((12, 14), number, 255))
        command = ["convert", "example", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
        assert main(command) == 0
        label = read_array(tmp_path / "raw/Dataset599_Example/labelsTr/example_001.png")
        np.testing.assert_array_equal(label, blob((12, 14), 1))
        (tmp_path / "source/masks/2.png").unlink()
        assert main([*command, "-d", "600"]) == 2
        assert "has no mask" in capsys.readouterr().err
    finally:
        dataset_conversion.recipes.cache_clear()


def test_the_layers_can_be_drawn(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("draw_layers", REPOSITORY / "docs/draw_layers.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    layers = script.layers_of(REPOSITORY / "pyproject.toml")
    rooms = {path.parent.name for path in (REPOSITORY / "nnunet_covid").glob("*/__init__.py")}
    assert rooms | {"trainers", "dataset_conversion"} <= {room for layer in layers for room in layer}
    script.draw(layers, tmp_path / "layers.png")
    drawn, shown = read_array(tmp_path / "layers.png"), read_array(REPOSITORY / "docs/images/layers.png")
    assert drawn.std() > 5
    assert drawn.shape[1] == pytest.approx(shown.shape[1], rel=0.1)
    assert drawn.shape[0] == pytest.approx(shown.shape[0], rel=0.05), "draw it again: python docs/draw_layers.py"
