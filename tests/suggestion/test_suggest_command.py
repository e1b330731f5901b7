"""``nnunet-covid suggest`` on small model folders: what is compared, chosen, left out and written."""

from __future__ import annotations

import copy
import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from image_files import grey, hounsfield, write_picture, write_volume
from model_folders import complete_plans, write_model
from PIL import Image

from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.calibration.model_folder import write_calibration
from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.suggestion.look import Observer

SHAPE = (40, 50)


def slices_model(folder: Path, folds: Sequence[int] = (0, 1)) -> Path:
    dataset = planned.dataset_json()
    plans = complete_plans(dataset, stages=3, patch=[32, 32])
    return write_model(folder / "nnUNetTrainer__testPlans__2d", plans, dataset, folds=folds)


def many(folder: Path, count: int = 8) -> Path:
    """Slices of four patients and, as in every folder, other files' names in between."""
    for number in range(count):
        write_picture(folder / f"p{number % 4}_{number:02d}_0000.png", grey(SHAPE, number))
    return folder


def suggest(model: Path, images: Path, output: Path, *options: object) -> int:
    return main(["suggest", str(model), "-i", str(images), "-o", str(output), "-device", "cpu", *map(str, options)])


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "suggestions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(autouse=True)
def _no_raw_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)


def test_the_score_is_what_the_folds_and_mirrorings_say(tmp_path: Path) -> None:
    """Each prediction is made by nnU-Net's own predictor, and compared in plain numpy."""
    model, images = slices_model(tmp_path), many(tmp_path / "in")
    assert suggest(model, images, tmp_path / "out", "-n", 8) == 0
    found = {row["image"]: row for row in rows(tmp_path / "out")}
    assert set(found) == {f"p{n % 4}_{n:02d}" for n in range(8)}
    assert [row["rank"] for row in rows(tmp_path / "out")] == [str(n) for n in range(1, 9)]

    trained = TrainedModel(model, device="cpu", mirroring=False)
    case = next(case for case in trained.cases(images) if case.name == "p1_01")
    data = trained.prepare(case).data
    given = np.empty((2, 4, 2, *SHAPE))
    for fold in range(2):
        trained.use_fold(fold)
        trained.predictor.list_of_parameters, kept = (
            [trained.predictor.list_of_parameters[fold]],
            trained.predictor.list_of_parameters,
        )
        for number, axes in enumerate([(), (2,), (3,), (2, 3)]):
            logits = trained.predictor.predict_sliding_window_return_logits(torch.flip(data, axes))
            given[fold, number] = torch.softmax(torch.flip(logits.float(), axes), 0)[:, 0].numpy()
        trained.predictor.list_of_parameters = kept

    def bits(p: np.ndarray) -> float:
        return float(-(p * np.log2(p)).sum(-3).mean())

    of_folds = bits(given.mean((0, 1))) - bits(given.mean(1))
    of_mirrorings = bits(given.mean(1)) - bits(given)
    row = found["p1_01"]
    assert float(row["folds"]) == pytest.approx(of_folds, rel=2e-3)
    assert float(row["mirrorings"]) == pytest.approx(of_mirrorings, rel=2e-3)
    assert float(row["teacher_student"]) == 0
    assert float(row["score"]) == pytest.approx(of_folds + of_mirrorings, rel=2e-3)


def test_patients_and_looks_are_spread(tmp_path: Path) -> None:
    """The same slice of one patient eight times, hardly changed, and one slice each of two others."""
    model = slices_model(tmp_path)
    pixels = grey(SHAPE, 0)
    for number in range(8):
        changed = pixels.copy()
        changed[number, 0] ^= 1
        write_picture(tmp_path / f"in/same_{number}_0000.png", changed)
    for name in ("b_1", "c_1"):
        write_picture(tmp_path / f"in/{name}_0000.png", grey(SHAPE, ord(name[0])))
    assert suggest(model, tmp_path / "in", tmp_path / "out", "-n", 3) == 0
    assert {row["patient"] for row in rows(tmp_path / "out")} == {"same", "b_1", "c_1"}
    distances = [row["distance"] for row in rows(tmp_path / "out")]
    assert distances[0] == ""
    assert float(distances[1]) > 0.1


def test_teacher_and_student_are_compared_where_a_checkpoint_holds_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = slices_model(tmp_path, folds=(0,))
    path = model / "fold_0/checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    student = {
        name: weight * 1.5 if weight.is_floating_point() else weight
        for name, weight in checkpoint["network_weights"].items()
    }
    torch.save({**checkpoint, "consistency": {"student": student, "counts": None}}, path)
    images = many(tmp_path / "in", 3)
    assert suggest(model, images, tmp_path / "out", "-n", 3, "--disable_tta") == 0
    assert (
        "2 predictions of each image: 1 fold(s), each of teacher and student, 1 mirroring(s)" in capsys.readouterr().err
    )
    for row in rows(tmp_path / "out"):
        assert float(row["teacher_student"]) > 0
        assert float(row["folds"]) == float(row["mirrorings"]) == 0
        assert float(row["score"]) == pytest.approx(float(row["teacher_student"]), rel=1e-4)


@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_teacher_and_student_of_a_calibrated_model_are_compared(tmp_path: Path, factor: float) -> None:
    """A calibration is shared by both: a student with the weights of its teacher does not disagree."""
    model = slices_model(tmp_path, folds=(0,))
    path = model / "fold_0/checkpoint_final.pth"
    checkpoint = torch.load(path, weights_only=False)
    student = copy.deepcopy(checkpoint["network_weights"])
    for weight in student.values():
        weight *= factor
    torch.save({**checkpoint, "consistency": {"student": student, "counts": None}}, path)
    write_calibration([path], Calibration(softmax=True, temperatures=(3.0,), thresholds=(0.2,)))
    assert suggest(model, many(tmp_path / "in", 3), tmp_path / "out", "-n", 3, "--disable_tta") == 0
    found = [float(row["teacher_student"]) for row in rows(tmp_path / "out")]
    assert len(found) == 3
    assert all(each == pytest.approx(0, abs=1e-6) if factor == 1 else each > 1e-6 for each in found)


def test_labelled_images_are_left_out_by_content_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "in")
    raw = tmp_path / "raw/Dataset999_Test"
    for source, target in (
        ("p0_00", raw / "imagesTr/x"),
        ("p1_01", raw / "imagesTs/y"),
        ("p2_02", tmp_path / "more/z"),
    ):
        target.parent.mkdir(parents=True)
        shutil.copy(images / f"{source}_0000.png", f"{target}_0000.png")
    shutil.copy(images / "p3_03_0000.png", images / "p3_99_0000.png")
    write_picture(tmp_path / "others/u_0000.png", grey(SHAPE, 99))
    leave_out = ("--leave-out", tmp_path / "more", "--leave-out", tmp_path / "others")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    for options in ((), ("--random",)):
        assert suggest(model, images, tmp_path / "out", "-n", 5, *leave_out, *options) == 0
        told = capsys.readouterr().err
        assert "4 image(s) are left out because they are known already" in told
        for pair in ("p0_00 = imagesTr/x", "p1_01 = imagesTs/y", "p2_02 = more/z", "p3_99 = p3_03 of the same folder"):
            assert pair in told
        assert {row["image"] for row in rows(tmp_path / "out")} == {"p0_04", "p1_05", "p2_06", "p3_03", "p3_07"}
    assert all(row["distance"] == "" for row in rows(tmp_path / "out"))


def test_labelled_images_count_as_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first suggestion already has a distance: to the training images."""
    model, images = slices_model(tmp_path), many(tmp_path / "in", 4)
    write_picture(tmp_path / "raw/Dataset999_Test/imagesTr/t_0000.png", grey(SHAPE, 77))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert suggest(model, images, tmp_path / "out", "-n", 2) == 0
    assert float(rows(tmp_path / "out")[0]["distance"]) > 0


def test_a_labelled_image_that_cannot_be_predicted_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "in", 4)
    for seed, name in enumerate(("bad", "good", "worse")):
        write_picture(tmp_path / f"labelled/{name}_0000.png", grey(SHAPE, 70 + seed))
    prepare, features = TrainedModel.prepare, Observer.features

    def refusing(self: TrainedModel, case: Any, *rest: Any) -> Any:
        if case.name == "bad":
            raise UserError(f"case {case.name} is not to be used")
        return prepare(self, case, *rest)

    def failing(self: Observer, case: Any) -> Any:
        if case.name == "worse":
            raise RuntimeError("no memory")
        return features(self, case)

    monkeypatch.setattr(TrainedModel, "prepare", refusing)
    monkeypatch.setattr(Observer, "features", failing)
    assert suggest(model, images, tmp_path / "out", "-n", 2, "--leave-out", tmp_path / "labelled") == 0
    told = capsys.readouterr().err
    assert "2 labelled image(s) cannot be predicted" in told
    assert "case bad is not to be used" in told
    assert "case worse cannot be predicted (no memory)" in told
    assert float(rows(tmp_path / "out")[0]["distance"]) > 0, "from the one that can"


def test_a_random_draw_needs_no_look_and_comes_again_with_its_seed(tmp_path: Path) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "in", 12)
    drawn = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert suggest(model, images, tmp_path / name, "-n", 6, "--random", "--seed", seed) == 0
        drawn[name] = [row["image"] for row in rows(tmp_path / name)]
        assert all(row["score"] == row["distance"] == "" for row in rows(tmp_path / name))
        assert (tmp_path / name / "suggestions.png").is_file()
    assert drawn["a"] == drawn["b"] != drawn["c"]
    assert len(set(drawn["a"])) == 6


def test_patients_are_those_that_the_conversion_recorded(tmp_path: Path) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "set/imagesUn", 4)
    records = [{"patient": "one", "outputs": ["p0_00", "p1_01"]}, {"patient": "two", "outputs": ["p2_02"]}]
    (tmp_path / "set/conversion.json").write_text(json.dumps({"cases": records}))
    assert suggest(model, images, tmp_path / "out", "-n", 4, "--random") == 0
    found = {row["image"]: row["patient"] for row in rows(tmp_path / "out")}
    assert found == {"p0_00": "one", "p1_01": "one", "p2_02": "two", "p3_03": "p3_03"}


@pytest.mark.parametrize(("labelled", "first"), [("anna", "b"), ("berta", "a")])
def test_patients_of_labelled_images_are_those_recorded_beside_them(tmp_path: Path, labelled: str, first: str) -> None:
    """Two images that hardly differ: the one whose patient is labelled nine times, under other names, comes last."""
    model, pixels = slices_model(tmp_path), grey(SHAPE, 0)
    for name in ("a", "b"):
        pixels[0, 0] ^= 1
        write_picture(tmp_path / f"set/imagesUn/{name}_0000.png", pixels)
    for number, name in enumerate("abcdefghi"):
        write_picture(tmp_path / f"other/imagesTr/{name}_0000.png", grey(SHAPE, 50 + number))
    for folder, patients in (("set", {"anna": ["a"], "berta": ["b"]}), ("other", {labelled: list("abcdefghi")})):
        records = [{"patient": patient, "outputs": names} for patient, names in patients.items()]
        (tmp_path / folder / "conversion.json").write_text(json.dumps({"cases": records}), encoding="utf-8")
    options = ("-n", 2, "--leave-out", tmp_path / "other/imagesTr")
    assert suggest(model, tmp_path / "set/imagesUn", tmp_path / "out", *options) == 0
    assert rows(tmp_path / "out")[0]["image"] == first


def test_volumes_and_regions(tmp_path: Path) -> None:
    """Other spacing than planned, axes exchanged by the plan, regions, eight mirrorings."""
    labels = {"background": 0, "infection": [1, 2], "consolidation": [2]}
    dataset = planned.dataset_json(labels, file_ending=".nii.gz", regions_class_order=[1, 2])
    plans = complete_plans(dataset, dims=3, stages=3, patch=[16, 16, 16], spacing=[2.0, 2.0, 2.0])
    plans |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    model = write_model(tmp_path / "a__b__3d_fullres", plans, dataset, folds=(0,))
    for seed in range(3):
        write_volume(tmp_path / f"in/v{seed}_0000.nii.gz", hounsfield((12, 30, 34), seed), spacing=(1.0, 1.5, 3.0))
    assert suggest(model, tmp_path / "in", tmp_path / "out", "-n", 2) == 0
    for row in rows(tmp_path / "out"):
        assert float(row["mirrorings"]) > 0
        assert float(row["folds"]) == float(row["teacher_student"]) == 0
    width, height = Image.open(tmp_path / "out/suggestions.png").size
    assert width > height  # four panels in a row


@pytest.mark.parametrize("options", [(), ("--random",)])
def test_one_damaged_image_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    model = slices_model(tmp_path)
    images = many(tmp_path / "in", 4)
    damaged = images / "p2_02_0000.png"
    damaged.write_bytes(damaged.read_bytes()[:-400])
    assert suggest(model, images, tmp_path / "out", "-n", 3, *options) == 1
    told = capsys.readouterr().err
    assert "1 of 4 images cannot be used, the others are done:" in told
    assert f"{damaged} cannot be read" in told
    assert {row["image"] for row in rows(tmp_path / "out")} == {"p0_00", "p1_01", "p3_03"}


def test_a_volume_that_is_cut_short_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """ITK reads what is missing of a NIfTI file as zeros; the draw goes on to the next image."""
    dataset = planned.dataset_json(file_ending=".nii.gz")
    plans = complete_plans(dataset, dims=3, stages=3, patch=[16, 16, 16])
    model = write_model(tmp_path / "a__b__3d_fullres", plans, dataset, folds=(0,))
    for seed in range(3):
        write_volume(tmp_path / f"in/v{seed}_0000.nii.gz", hounsfield((12, 20, 20), seed))
    damaged = tmp_path / "in/v1_0000.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-2000])
    assert suggest(model, tmp_path / "in", tmp_path / "out", "-n", 2, "--random", "--seed", 1) == 1
    assert f"{damaged}" in capsys.readouterr().err
    assert {row["image"] for row in rows(tmp_path / "out")} == {"v0", "v2"}


def test_an_empty_folder_of_test_images_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "in", 4)
    raw = tmp_path / "raw/Dataset999_Test"
    write_picture(raw / "imagesTr/t_0000.png", grey(SHAPE, 77))
    (raw / "imagesTs").mkdir()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert suggest(model, images, tmp_path / "out", "-n", 2, "--random") == 0
    assert len(rows(tmp_path / "out")) == 2


def test_how_many_can_be_used_is_told_with_the_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, images = slices_model(tmp_path), many(tmp_path / "in", 4)
    prepare = TrainedModel.prepare

    def refusing(self: TrainedModel, case: Any, *rest: Any) -> Any:
        if case.name.startswith("p1"):
            raise UserError(f"case {case.name} is not to be used")
        return prepare(self, case, *rest)

    monkeypatch.setattr(TrainedModel, "prepare", refusing)
    assert suggest(model, images, tmp_path / "out", "-n", 4) == 2
    told = capsys.readouterr().err
    assert "in: 4 images are asked for, 3 of 4 can be used\n  case p1_01 is not to be used" in told
    assert "are done" not in told
