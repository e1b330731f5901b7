"""``nnunet-covid saliency`` on small model folders: where the maps lie, how tiles are joined, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import SimpleITK as sitk
import torch
from image_files import grey, write_picture, write_volume
from model_folders import complete_plans, write_model
from numpy.typing import NDArray

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.calibration.model_folder import write_calibration
from nnunet_covid.cli import main
from nnunet_covid.nnunet.export import to_image_grid
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.nnunet.sliding_window import Tiles
from nnunet_covid.nnunet.written_images import write_map

TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
"""Direction cosines of a volume that lies on its side."""
QUICK = ("--disable_tta",)


def two_classes(**extra: Any) -> dict[str, Any]:
    labels = {"background": 0, "ground_glass": 1, "consolidation": 2}
    return planned.dataset_json(labels, **extra)


@pytest.fixture(scope="module")
def slices_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2D, one channel, two classes, patch 32, two folds."""
    folder = tmp_path_factory.mktemp("model") / "nnUNetTrainer__testPlans__2d"
    plans = complete_plans(two_classes(), stages=3, patch=[32, 32])
    return write_model(folder, plans, two_classes(), folds=(0, 1))


@pytest.fixture(scope="module")
def volume_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3D, two channels, planned at 2 mm, axes exchanged by the plan; its first convolution copies the first channel."""
    dataset_json = planned.dataset_json(channel_names={"0": "CT", "1": "nonorm"}, file_ending=".nii.gz")
    plans = complete_plans(dataset_json, dims=3, stages=3, patch=[16, 16, 16], spacing=[2.0, 2.0, 2.0])
    plans |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    folder = write_model(tmp_path_factory.mktemp("model") / "a__b__3d_fullres", plans, dataset_json)
    path = folder / "fold_0/checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if name.startswith("encoder.stages.0.") and weight.ndim == 5:
            weight.zero_()
            weight[:, 0, 1, 1, 1] = 1
    torch.save(checkpoint, path)
    return folder


def saliency(model: Path, images: Path, output: Path, *options: object) -> int:
    return main(["saliency", str(model), str(images), str(output), "-device", "cpu", *map(str, options)])


def read(path: Path) -> NDArray[np.float32]:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_pictures_get_maps_of_their_size(slices_model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a_0000.png", grey((40, 50), 0))
    write_picture(tmp_path / "in/b_0000.png", grey((20, 70), 1))
    assert (
        saliency(slices_model, tmp_path / "in", tmp_path / "out", "--class", "consolidation", "--activation", *QUICK)
        == 0
    )
    names = [f"{kind}_stage{stage}" for kind in ("attention", "activation") for stage in (1, 2, 3)]
    names += ["gradcam_consolidation_stage3", "hirescam_consolidation_stage3"]
    expected = {f"{case}_{name}.nii.gz" for case in "ab" for name in names} | {"a.png", "b.png", "saliency.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == expected
    for case, shape in (("a", (40, 50)), ("b", (20, 70))):
        for name in names:
            image = sitk.ReadImage(str(tmp_path / f"out/{case}_{name}.nii.gz"))
            assert image.GetSize() == shape[::-1]
            assert image.GetSpacing() == (1.0, 1.0)
        attention = [read(tmp_path / f"out/{case}_attention_stage{stage}.nii.gz") for stage in (1, 2, 3)]
        assert all(each.sum() == pytest.approx(1, rel=1e-4) for each in attention)
        for method in ("gradcam", "hirescam"):
            cam = read(tmp_path / f"out/{case}_{method}_consolidation_stage3.nii.gz")
            assert cam.min() >= 0
            assert cam.max() <= 1
    report = json.loads((tmp_path / "out/saliency.json").read_text())
    assert report["folds"] == ["0", "1"]
    assert [stage["size"] for stage in report["stages"]] == [[32, 32], [16, 16], [8, 8]]
    assert set(report["cases"]) == {"a", "b"}


def test_classes_whose_names_differ_in_punctuation_have_maps_of_their_own(tmp_path: Path) -> None:
    described = planned.dataset_json({"background": 0, "a/b": 1, "A:b": 2})
    plans = complete_plans(described, stages=3, patch=[32, 32])
    model = write_model(tmp_path / "nnUNetTrainer__testPlans__2d", plans, described)
    write_picture(tmp_path / "in/a_0000.png", grey((40, 50), 0))
    assert saliency(model, tmp_path / "in", tmp_path / "out", *QUICK) == 0
    assert {path.name for path in (tmp_path / "out").glob("*gradcam*")} == {
        "a_gradcam_a_b_stage3.nii.gz", "a_gradcam_A_b_2_stage3.nii.gz",
    }  # fmt: skip


@pytest.mark.parametrize(
    "trainer", ["InfNetTrainer", "InfNetPretrainedTrainer", "SSANetTrainer", "CollaborativeTrainer"]
)
def test_every_family_of_trainers_has_an_encoder_to_look_into(trainer: str, tmp_path: Path) -> None:
    plans = complete_plans(planned.dataset_json(), stages=6, patch=[64, 64])
    model = write_model(tmp_path / f"{trainer}__testPlans__2d", plans, planned.dataset_json(), trainer=trainer)
    write_picture(tmp_path / "in/a_0000.png", grey((60, 70), 0))
    options = ("--stages", "all", "--score-over", "image", *QUICK)
    assert saliency(model, tmp_path / "in", tmp_path / "out", *options) == 0
    report = json.loads((tmp_path / "out/saliency.json").read_text())
    sizes = [stage["size"][0] for stage in report["stages"]]
    assert len(sizes) >= 4
    assert sizes == sorted(sizes, reverse=True)
    for stage in range(1, len(sizes) + 1):
        assert read(tmp_path / f"out/a_attention_stage{stage}.nii.gz").sum() == pytest.approx(1, rel=1e-4)
    assert read(tmp_path / f"out/a_hirescam_infection_stage{len(sizes)}.nii.gz").max() == pytest.approx(1)


def test_calibration_changes_no_map(slices_model: Path, tmp_path: Path) -> None:
    calibrated = shutil.copytree(slices_model, tmp_path / slices_model.name)
    write_calibration(list(calibrated.glob("fold_*/*.pth")), Calibration(True, (2.0, 2.0), (0.3, 0.6)))
    write_picture(tmp_path / "in/a_0000.png", grey((40, 50), 0))
    for model, name in ((slices_model, "before"), (calibrated, "after")):
        assert saliency(model, tmp_path / "in", tmp_path / name, "--score-over", "image", *QUICK) == 0
    files = [path.name for path in (tmp_path / "before").glob("*.nii.gz")]
    assert files
    for file in files:
        np.testing.assert_allclose(read(tmp_path / "after" / file), read(tmp_path / "before" / file), atol=1e-4)


def test_several_folds_are_averaged(slices_model: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "in/a_0000.png", grey((40, 50), 0))
    folds = {"0": [0], "1": [1], "both": [0, 1]}
    for name, numbers in folds.items():
        assert (
            saliency(slices_model, tmp_path / "in", tmp_path / name, "-f", *numbers, "--score-over", "image", *QUICK)
            == 0
        )
    for file in ("a_attention_stage2.nii.gz", "a_hirescam_ground_glass_stage3.nii.gz"):
        alone = [read(tmp_path / name / file) for name in ("0", "1")]
        assert not np.allclose(*alone)
        np.testing.assert_allclose(read(tmp_path / "both" / file), np.mean(alone, axis=0), atol=1e-6)


def test_a_volume_keeps_its_geometry_and_the_blob_its_place(volume_model: Path, tmp_path: Path) -> None:
    """Spacing, axes and extent differ from the plan, and the border of zeros is cropped away."""
    array = np.zeros((16, 44, 52), np.int16)
    array[2:-2, 3:-4, 5:-6] = np.random.default_rng(0).integers(90, 110, (12, 37, 41))
    blob = np.zeros(array.shape, bool)
    blob[7:9, 20:26, 32:38] = True
    array[blob] = 1000
    for channel, values in enumerate((array, (array > 0).astype(np.int16))):
        write_volume(tmp_path / f"in/v_000{channel}.nii.gz", values, spacing=(1.0, 1.5, 3.0), direction=TURNED)
    assert saliency(volume_model, tmp_path / "in", tmp_path / "out", "--activation", *QUICK) == 0

    source = sitk.ReadImage(str(tmp_path / "in/v_0000.nii.gz"))
    for path in (tmp_path / "out").glob("*.nii.gz"):
        image = sitk.ReadImage(str(path))
        assert image.GetSize() == source.GetSize()
        np.testing.assert_allclose(image.GetSpacing(), source.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(image.GetOrigin(), source.GetOrigin(), rtol=1e-6)
        np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-6)

    activation = read(tmp_path / "out/v_activation_stage1.nii.gz")
    brightest = activation > activation.max() / 2
    centre = np.argwhere(brightest).mean(axis=0)
    np.testing.assert_allclose(centre, np.argwhere(blob).mean(axis=0), atol=1.2)
    outside = np.ones(array.shape, bool)
    outside[2:-2, 3:-4, 5:-6] = False
    assert not read(tmp_path / "out/v_attention_stage3.nii.gz")[outside].any()
    assert np.array_equal(read(tmp_path / "out/v_activation_stage3.nii.gz") == 0, outside)


@pytest.mark.parametrize("shape", [(1, 45, 70), (2, 20, 50)])
def test_tiles_join_as_nnunet_joins_its_logits(slices_model: Path, shape: tuple[int, ...]) -> None:
    """Images larger and smaller than the patch, and a stack of slices for a 2D network."""
    model = TrainedModel(slices_model, folds=["1"], device="cpu", mirroring=False)
    data = torch.randn((1, *shape), generator=torch.Generator().manual_seed(0))
    expected = model.predictor.predict_logits_from_preprocessed_data(data).float()
    tiles = Tiles(model.predictor, data)
    canvas = tiles.canvas(len(expected))
    with torch.no_grad():
        for position in tiles.positions:
            tiles.paint(canvas, position, model.network(tiles.cut(position))[0])
    # nnU-Net adds up halves, which hold the weight at the far corners of the image with few digits
    certain = tiles.unpad(tiles.total[None])[0] > 1e-4
    assert certain.float().mean() > 0.95
    torch.testing.assert_close(tiles.unpad(canvas)[:, certain], expected[:, certain], atol=5e-3, rtol=5e-3)
    mask = torch.arange(np.prod(shape)).reshape(shape)
    assert torch.equal(tiles.unpad(tiles.pad(mask)[None])[0], mask)


def test_a_ramp_survives_the_way_back(volume_model: Path) -> None:
    """Linear maps are what linear interpolation must not change, wherever it is not at the border."""
    model = TrainedModel(volume_model, device="cpu")
    predictor = model.predictor
    properties = {
        "spacing": [3.0, 1.5, 1.0],
        "shape_before_cropping": (44, 16, 52),
        "shape_after_cropping_and_before_resampling": (40, 12, 48),
        "bbox_used_for_cropping": [[2, 42], [1, 13], [4, 52]],
    }
    planned_shape = (30, 18, 24)  # 40 × 1.5 / 2, 12 × 3 / 2, 48 × 1 / 2: the plan exchanges the first two axes
    ramps = np.stack(np.meshgrid(*[np.arange(n) for n in planned_shape], indexing="ij")).astype(np.float32)
    back, inside = to_image_grid(
        torch.from_numpy(ramps), properties, predictor.plans_manager, predictor.configuration_manager
    )
    assert back.shape == (3, 16, 44, 52)
    assert inside.sum() == 40 * 12 * 48
    z, y, x = np.meshgrid(*[np.arange(n) for n in (16, 44, 52)], indexing="ij")
    for actual, index, start, count, step in (
        (back[0], y, 2, 40, 0.75),
        (back[1], z, 1, 12, 1.5),
        (back[2], x, 4, 48, 0.5),
    ):
        expected = (index - start + 0.5) * step - 0.5
        middle = inside & (index > start + 1) & (index < start + count - 2)
        np.testing.assert_allclose(actual[middle], expected[middle], atol=1e-3)
    assert not back[:, ~inside].any()


def test_maps_of_a_reader_that_turns_images_are_turned_back(tmp_path: Path) -> None:
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    write_volume(tmp_path / "v.nii.gz", array, direction=TURNED)
    for reader in (SimpleITKIO(), SimpleITKIOWithReorient(), NibabelIO(), NibabelIOWithReorient()):
        image, properties = reader.read_images([str(tmp_path / "v.nii.gz")])
        write_map(tmp_path / "map.nii.gz", image[0], properties)
        np.testing.assert_allclose(read(tmp_path / "map.nii.gz"), array, rtol=1e-6)
        written, source = (sitk.ReadImage(str(tmp_path / name)) for name in ("map.nii.gz", "v.nii.gz"))
        np.testing.assert_allclose(written.GetDirection(), source.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(written.GetOrigin(), source.GetOrigin(), atol=1e-4)
    assert [path.name for path in tmp_path.glob(".*")] == []


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["a_0000.png"], ["--class", "effusion"], "no class 'effusion'; it knows ground_glass, consolidation"),
        (["a_0000.png"], ["--stages", "4"], "stages 1 to 3, not 4"),
        (["a_0000.png"], ["--stages", "deep"], "takes numbers, from 1 on, or 'all', not deep"),
        (["a_0000.png"], ["-z", "0.5"], "must be at least 1 and finite, not 0.5"),
        (["a_0000.png"], ["-f", "7"], "has no fold 7 with checkpoint_final.pth; there are 0, 1"),
        (["a_0000.png"], ["--checkpoint", "best.pth"], "no best.pth in any fold; present: checkpoint_final.pth"),
        (["a_0000.png"], ["--encoder", "trunk"], "no module 'trunk'"),
        ([], [], "holds no image that ends in .png"),
        (["a.png"], [], "rename it to a_0000.png"),
        (["a_0000.png", "a_0001.png"], [], "channels 0000, 0001, but 0000 is expected"),
        (["a_0001.png"], [], "channels 0001, but 0000 is expected"),
    ],
)
def test_mistakes(
    slices_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: list[str],
    options: list[str],
    message: str,
) -> None:
    (tmp_path / "in").mkdir()
    for name in files:
        write_picture(tmp_path / "in" / name, grey((8, 8), 0))
    assert saliency(slices_model, tmp_path / "in", tmp_path / "out", *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_colour_pictures_and_broken_files_are_refused(
    slices_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "colour/a_0000.png", grey((8, 8, 3), 0))
    assert saliency(slices_model, tmp_path / "colour", tmp_path / "out") == 2
    assert "has 3 channel(s), the model was trained on 1" in capsys.readouterr().err
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a_0000.png").write_bytes(b"no picture")
    assert saliency(slices_model, tmp_path / "broken", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "a_0000.png cannot be read: " in error
    assert ".cxx" not in error, "where in another library's source it was noticed helps nobody"
    assert not (tmp_path / "out").exists()


def test_a_model_whose_labels_are_no_numbers(
    slices_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / slices_model.name
    shutil.copytree(slices_model, folder)
    dataset_json = json.loads((folder / "dataset.json").read_text())
    dataset_json["labels"]["consolidation"] = "a"
    (folder / "dataset.json").write_text(json.dumps(dataset_json))
    assert saliency(folder, tmp_path, tmp_path / "out") == 2
    assert "dataset.json: label 'consolidation' is 'a', but must be a whole number" in capsys.readouterr().err


def test_previous_stages_of_a_model_without_one_are_refused(
    slices_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "in/a_0000.png", grey((32, 32), 0))
    assert saliency(slices_model, tmp_path / "in", tmp_path / "out", "-prev_stage_predictions", tmp_path) == 2
    assert "is no second stage of a cascade" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_told_before_the_work(
    slices_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_picture(tmp_path / "in/a_0000.png", grey((32, 32), 0))
    (tmp_path / "file").write_text("in the way")
    assert saliency(slices_model, tmp_path / "in", tmp_path / "file/out") == 2
    assert "cannot be written into" in capsys.readouterr().err


def test_a_folder_that_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert saliency(tmp_path, tmp_path, tmp_path / "out") == 2
    assert "is no trained model: it has no plans.json" in capsys.readouterr().err
