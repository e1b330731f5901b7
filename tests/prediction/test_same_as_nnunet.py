"""Label maps are those of nnU-Net voxel for voxel, probabilities to 1e-4, over every kind of plan."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from kinds_of_models import KINDS, write_kind
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_covid.errors import UserError
from nnunet_covid.nnunet import resampling, sliding_window
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.conveyor import Limits
from nnunet_covid.prediction.folder import Options, predict_folder
from nnunet_covid.prediction.model_source import model_folder


def by_nnunet(model: Path, images: Path, output: Path, previous: Path | None, *, probabilities: bool) -> None:
    """What ``nnUNetv2_predict`` does, without its worker processes."""
    output.mkdir()
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folds = tuple(int(path.name[5:]) for path in sorted(model.glob("fold_*")))
    predictor.initialize_from_trained_model_folder(str(model), folds)
    before = None if previous is None else str(previous)
    predictor.predict_from_files_sequential(str(images), str(output), probabilities, True, before)


def same_files(expected: Path, found: Path, pattern: str) -> int:
    """How many files of the pattern there are; all of them are the same to the last byte."""
    names = {path.name for path in expected.glob(pattern)}
    assert {path.name for path in found.glob(pattern)} == names
    for name in names:
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    return len(names)


@pytest.mark.parametrize("patches_before", [0, 1000])
@pytest.mark.parametrize("name", KINDS)
def test_label_maps_are_identical(
    name: str, patches_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "SLAB_VOXELS", 1)  # plane by plane
    monkeypatch.setattr(sliding_window, "PATCHES_BEFORE", patches_before)  # mirrored in one forward pass, or never
    model, images, previous = write_kind(KINDS[name], tmp_path)
    by_nnunet(model, images, tmp_path / "expected", previous, probabilities=False)
    limits = Limits(memory=1, at_once=3)  # one image at a time, whatever it takes
    predict_folder(TrainedModel(model), images, tmp_path / "out", Options(previous, limits=limits))
    assert same_files(tmp_path / "expected", tmp_path / "out", f"*{KINDS[name].ending}") == len(KINDS[name].images)
    label_maps = (tmp_path / "out").glob(f"*{KINDS[name].ending}")
    assert all(len(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path))))) > 1 for path in label_maps)


@pytest.mark.parametrize("name", ["resampled slices", "regions", "folds", "thick slices in 3D"])
def test_probabilities_are_those_of_nnunet(name: str, tmp_path: Path) -> None:
    model, images, previous = write_kind(KINDS[name], tmp_path)
    by_nnunet(model, images, tmp_path / "expected", previous, probabilities=True)
    options = Options(previous, save_probabilities=True, limits=Limits(at_once=3))
    predict_folder(TrainedModel(model), images, tmp_path / "out", options)
    assert same_files(tmp_path / "expected", tmp_path / "out", f"*{KINDS[name].ending}")
    files = list((tmp_path / "expected").glob("*.npz"))
    assert len(files) == len(KINDS[name].images)
    for path in files:
        expected, found = (np.load(folder / path.name)["probabilities"] for folder in (path.parent, tmp_path / "out"))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        assert (tmp_path / "out" / path.name).with_suffix(".pkl").is_file()


@pytest.mark.parametrize("name", ["slices", "slices of thick volumes", "folds", "volumes"])
def test_many_patches_in_one_forward_pass_change_rounding_only(name: str, tmp_path: Path) -> None:
    model, images, _ = write_kind(KINDS[name], tmp_path)
    one, many = TrainedModel(model), TrainedModel(model, batch=8)
    cases = [one.prepare(case) for case in one.cases(images)]
    together = many.logits_of(cases)
    assert many.predictor.patches_at_once() == 8, "the network was found to allow it"
    for case, logits in zip(cases, together, strict=True):
        difference = torch.softmax(logits.float(), 0) - torch.softmax(one.predict_logits(case), 0)
        assert difference.abs().max() < 1e-3  # sums are rounded to half precision in either way


def test_a_network_that_looks_at_its_batch_is_given_one_patch_at_a_time(tmp_path: Path) -> None:
    class MeanOfBatch(torch.nn.Module):
        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.inner = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x - x.mean())

        def load_state_dict(self, *args: object, **kwargs: object) -> None:  # type: ignore[override]
            self.inner.load_state_dict(*args, **kwargs)

    path, images, _ = write_kind(KINDS["slices"], tmp_path)
    one, many = TrainedModel(path), TrainedModel(path, batch=4)
    for model in (one, many):
        model.predictor.network = MeanOfBatch(model.predictor.network)
    cases = [one.prepare(case) for case in one.cases(images)]
    for found, expected in zip(many.logits_of(cases), one.logits_of(cases), strict=True):
        assert torch.equal(found, expected)
    assert many.predictor.patches_at_once() == 1


def test_a_zip_file_of_nnunet_is_a_model(tmp_path: Path) -> None:
    model, images, _ = write_kind(KINDS["slices"], tmp_path)
    packed = tmp_path / "model.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in model.rglob("*"):
            archive.write(path, Path("Dataset999_Test", path.relative_to(tmp_path)))
    by_nnunet(model, images, tmp_path / "expected", None, probabilities=False)
    with model_folder(packed, "checkpoint_final.pth") as unpacked:
        predict_folder(TrainedModel(unpacked), images, tmp_path / "out")
    assert not unpacked.exists()
    trainer, *others = model.name.split("__")
    with model_folder(packed, "checkpoint_final.pth", (trainer, *others)) as named:
        assert named.name == model.name
    with pytest.raises(UserError, match="choose one"), model_folder(packed, "checkpoint_final.pth", ("B", None, None)):
        pass
    assert same_files(tmp_path / "expected", tmp_path / "out", "*.png")
