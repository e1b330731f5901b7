"""What counts as done in a folder of predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from image_files import write_picture
from kinds_of_models import KINDS, write_kind

from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.finished import Finished, described
from nnunet_covid.prediction.folder import Options, predict_folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_picture(tmp_path / "in/case_0000.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "out").mkdir()
    return tmp_path / "in/case_0000.png"


def made(image: Path, model: str, part: tuple[int, int] = (1, 1)) -> None:
    """A label map of a model, which has the size of every other one."""
    Finished(image.parents[1] / "out", model, part).record("case", described([image]), {".png": 1})
    (image.parents[1] / "out/case.png").write_bytes(model.encode())


def done(image: Path, model: str) -> bool:
    return Finished(image.parents[1] / "out", model).has("case", [image], (".png",))


@pytest.mark.parametrize("part_of_b", [(1, 1), (2, 3)])
def test_a_label_map_is_of_the_model_that_was_last(image: Path, part_of_b: tuple[int, int]) -> None:
    made(image, "A")
    assert done(image, "A")
    made(image, "B", part_of_b)
    assert done(image, "B")
    assert not done(image, "A")
    made(image, "A", (1, 2))
    assert done(image, "A")
    assert not done(image, "B")


def test_records_of_earlier_versions_have_no_times(image: Path) -> None:
    made(image, "A")
    record = image.parents[1] / "out/predicted.jsonl"
    line = json.loads(record.read_text(encoding="utf-8"))
    lines = [{key: value for key, value in {**line, "model": model}.items() if key != "time"} for model in "AB"]
    record.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert done(image, "B")
    assert not done(image, "A")
    made(image, "A", (1, 2))
    assert done(image, "A")
    assert not done(image, "B")


def test_probabilities_of_another_model_do_not_stay_beside_a_label_map(tmp_path: Path) -> None:
    model, images, _ = write_kind(KINDS["slices"], tmp_path)
    options, output = Options(save_probabilities=True), tmp_path / "out"
    predict_folder(TrainedModel(model), images, output, options)
    predict_folder(TrainedModel(model), images, output)
    assert len(list(output.glob("case_*.npz"))) == len(list(output.glob("case_*.pkl"))) == 3, "of the same model"
    predict_folder(TrainedModel(model, mirroring=False), images, output)
    assert {path.suffix for path in output.glob("case_*")} == {".png"}


def _tiff(folder: Path) -> tuple[Path, Path]:
    (folder / "case.json").write_text('{"spacing": [5, 1, 1]}', encoding="utf-8")
    return folder / "case_0000.tif", folder / "case.json"


def _detached_nrrd(folder: Path) -> tuple[Path, Path]:
    (folder / "case.raw").write_bytes(bytes(64))
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 4 4\nencoding: raw\ndata file: case.raw\n\n"
    (folder / "case_0000.nrrd").write_text(header, encoding="utf-8")
    return folder / "case_0000.nrrd", folder / "case.raw"


@pytest.mark.parametrize("written", [_tiff, _detached_nrrd])
def test_what_lies_beside_an_image_belongs_to_it(written: Callable[[Path], tuple[Path, Path]], tmp_path: Path) -> None:
    path, beside = written(tmp_path)
    path.touch()
    case = CaseFiles("case", (path,))
    (tmp_path / "out").mkdir()
    Finished(tmp_path / "out", "A").record("case", described(case.sources), {".png": 1})
    (tmp_path / "out/case.png").write_bytes(b"1")
    before, finished = case.content(), Finished(tmp_path / "out", "A")
    assert finished.has("case", case.sources, (".png",))
    beside.write_bytes(beside.read_bytes().replace(b"5", b"1") + b" ")
    assert not finished.has("case", case.sources, (".png",))
    assert case.content() != before


def test_an_image_is_predicted_again_where_the_file_behind_its_header_changed(tmp_path: Path) -> None:
    model, images, _ = write_kind(replace(KINDS["slices of thin volumes"], ending=".nrrd"), tmp_path)
    (image,) = images.iterdir()
    header, voxels = image.read_bytes().split(b"\n\n", 1)
    image.write_bytes(header + b"\ndata file: voxels.raw\n\n")
    for content, written in ((voxels, 1), (voxels, 0), (voxels[::-1], 1)):
        (images / "voxels.raw").write_bytes(content)
        assert predict_folder(TrainedModel(model), images, tmp_path / "out").written == written
