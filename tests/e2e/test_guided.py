"""Two stages on slices: cross-validate the first, guide the second by its maps, predict a folder, look at the maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from skimage import io
from tiny_covid_semiseg import write_tiny_covid_semiseg
from workspace import Workspace

from nnunet_covid.cli import main

pytestmark = pytest.mark.e2e
FIRST, LESIONS, GUIDED = "Dataset511_COVIDSemiSeg", "Dataset512_COVIDSemiSegMultiClass", "Dataset513_Guided"
STAGE_ONE, STAGE_TWO = "InfNetTrainerBackbone_1epochs_1its_seed1", "nnUNetTrainer_1epochs_1its_seed1"


@pytest.fixture(scope="module")
def stages(workspace: Workspace) -> Workspace:
    """Both stages trained: the first on two folds, the second on fold 0 of the data set that 'guide' makes."""
    source = write_tiny_covid_semiseg(workspace.root / "source_guided", training=4, test=1)
    names = [str(number) for number in range(1, 5)]
    folds = [{"train": names[:2], "val": names[2:]}, {"train": names[2:], "val": names[:2]}]
    cases = [{side: [f"covidsemiseg_{int(n):03d}" for n in fold[side]] for side in fold} for fold in folds]
    splits = workspace.root / "folds.json"
    splits.write_text(json.dumps(cases))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            patch.setenv(f"nnUNet_{name}", str(getattr(workspace, name)))
        for command, number in (("covid-semiseg", 511), ("covid-semiseg-multiclass", 512)):
            assert main(["convert", command, str(source), "-d", str(number), "--splits", str(splits)]) == 0
        plan(workspace, FIRST)
        for fold in (0, 1):
            workspace.run("nnUNetv2_train", 511, "2d", fold, "-tr", STAGE_ONE, "-device", "cpu", "--npz")
        first = workspace.trained(FIRST, STAGE_ONE, "2d")
        options = ["-d", "513", "--name", "Guided", "--map", "probability"]
        assert main(["guide", "512", "-m", str(first), *options]) == 0
    plan(workspace, GUIDED)
    workspace.run("nnUNetv2_train", 513, "2d", 0, "-tr", STAGE_TWO, "-device", "cpu")
    return workspace


def plan(workspace: Workspace, data_set: str) -> None:
    """Plan and pre-process, then make the network narrow."""
    workspace.plan(data_set[7:10], "2d")
    path = workspace.preprocessed / data_set / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    kwargs = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [8] * kwargs["n_stages"]
    path.write_text(json.dumps(plans))


def test_nnunet_trains_on_the_guided_data_set(stages: Workspace) -> None:
    folds = json.loads((stages.preprocessed / GUIDED / "splits_final.json").read_text())
    assert folds == json.loads((stages.raw / FIRST / "splits_final.json").read_text())
    plans = json.loads((stages.preprocessed / GUIDED / "nnUNetPlans.json").read_text())
    assert plans["configurations"]["2d"]["normalization_schemes"] == ["ZScoreNormalization", "RGBTo01Normalization"]
    for fold, split in enumerate(folds):
        for case in split["val"]:
            path = stages.trained(FIRST, STAGE_ONE, "2d") / f"fold_{fold}/validation/{case}.npz"
            expected = 1 - np.load(path)["probabilities"][0, 0]
            channel = io.imread(stages.raw / GUIDED / f"imagesTr/{case}_0001.png")
            np.testing.assert_allclose(channel / 255, expected, atol=0.51 / 255)


def test_prediction_of_a_folder_with_both_stages(stages: Workspace, tmp_path: Path) -> None:
    images = stages.raw / LESIONS / "imagesTs"
    models = [str(stages.trained(FIRST, STAGE_ONE, "2d")), str(stages.trained(GUIDED, STAGE_TWO, "2d"))]
    assert main(["predict-guided", *models, str(images), str(tmp_path), "-device", "cpu", "--disable_tta"]) == 0
    for path in images.iterdir():
        labels = io.imread(tmp_path / path.name.replace("_0000", ""))
        assert labels.shape == io.imread(path).shape
        assert set(np.unique(labels)) <= {0, 1, 2}


def test_saliency_of_a_trained_model(stages: Workspace, tmp_path: Path) -> None:
    images, model = stages.raw / FIRST / "imagesTs", stages.trained(FIRST, STAGE_ONE, "2d")
    options = ["-device", "cpu", "-f", "1", "--class", "infection", "--score-over", "image", "--disable_tta"]
    assert main(["saliency", str(model), str(images), str(tmp_path), *options]) == 0
    for path in images.iterdir():
        case = path.name.removesuffix("_0000.png")
        shape = io.imread(path).shape
        assert io.imread(tmp_path / f"{case}.png").shape[2] == 3
        maps = {p.name: sitk.GetArrayFromImage(sitk.ReadImage(str(p))) for p in tmp_path.glob(f"{case}_*.nii.gz")}
        assert f"{case}_attention_stage1.nii.gz" in maps
        assert all(each.shape == shape for each in maps.values())
        assert maps[next(name for name in maps if "hirescam" in name)].max() == pytest.approx(1)
