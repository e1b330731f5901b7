"""Rounds that are interrupted, or begun again, with something changed in between."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
import torch
from killable_run import SHORT, TRAINER, do_rounds, quick_ending, units
from skimage import io

from nnunet_covid import cli
from nnunet_covid.errors import UserError
from nnunet_covid.semi_supervised import learner
from nnunet_covid.semi_supervised.experiment import find_experiment
from nnunet_covid.semi_supervised.pseudo_label_run import UnlabelledImages

pytestmark = pytest.mark.e2e


def test_a_run_whose_folder_was_deleted_leaves_no_labels_to_the_next(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_ending(monkeypatch)
    made = make()
    kept = []
    for threshold in (0.0, 0.999):
        options = {**SHORT, "threshold": threshold}
        experiment = do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", options)
        result = units(experiment)
        kept.append((result["0/base"]["model"], result["1/label"]["kept"]["infection"]))
        shutil.rmtree(experiment.report_folder)
    assert kept[0][0] == kept[1][0], "the same model"
    assert kept[0][1] > kept[1][1] == 0


def test_unlabelled_images_are_told_apart_by_their_geometry(make: Any) -> None:
    made = make(dims=3)
    experiment = find_experiment("940", "3d_fullres", "0", TRAINER, "Test", "testPlans", torch.device("cpu"))
    images = UnlabelledImages(made.unlabelled, experiment)
    before = images.checksums()["un_0"]
    (path,) = images.cases[0].files
    volume = sitk.ReadImage(str(path))
    volume.SetSpacing([2.0 * s for s in volume.GetSpacing()])
    sitk.WriteImage(volume, str(path))
    after = images.checksums()["un_0"]
    assert before.voxels == after.voxels
    assert before.whole != after.whole


def test_images_are_preprocessed_again_only_for_plans_that_preprocess_otherwise(make: Any) -> None:
    made = make()
    file = made.preprocessed / "testPlans.json"
    plans, found = json.loads(file.read_text()), []
    chosen = plans["configurations"]["2d"]
    for changes in ({}, {"patch_size": [16, 24], "batch_size": 5}, {"spacing": [2.0, 2.0]}):
        chosen.update(changes)
        file.write_text(json.dumps(plans))
        experiment = find_experiment("940", "2d", "0", TRAINER, "Test", "testPlans", torch.device("cpu"))
        images = UnlabelledImages(made.unlabelled, experiment)
        targets = images.preprocess(images.pool())
        assert len(targets) == 2
        found.append({target: Path(f"{target}.b2nd").stat().st_mtime_ns for target in targets.values()})
    assert found[0] == found[1]
    assert not found[0].keys() & found[2].keys()


def test_images_that_changed_while_a_run_was_interrupted_are_told(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    with monkeypatch.context() as patched:
        patched.setattr(UnlabelledImages, "preprocess", _killed)
        with pytest.raises(KeyboardInterrupt):
            do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    picture = io.imread(made.unlabelled / "un_1_0000.png")
    io.imsave(made.unlabelled / "un_1_0000.png", picture // 2, check_contrast=False)
    with pytest.raises(UserError, match=r"1 image\(s\) have changed since the run began \(un_1\)"):
        do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)


def test_other_validation_cases_and_other_plans_on_resume_are_told(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_ending(monkeypatch)
    made = make()
    do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    splits = made.preprocessed / "splits_final.json"
    before = splits.read_text()
    (fold,) = json.loads(before)
    splits.write_text(json.dumps([{"train": fold["val"], "val": fold["train"]}]))
    with pytest.raises(UserError, match="fold 0 has other validation cases"):
        do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)
    splits.write_text(before)
    plans = json.loads((made.preprocessed / "testPlans.json").read_text())
    plans["configurations"]["2d"]["batch_size"] += 1
    (made.preprocessed / "testPlans.json").write_text(json.dumps(plans))
    with pytest.raises(UserError, match="plans was"):
        do_rounds(made.unlabelled, "2d", TRAINER, "random", "Test", SHORT)


def _killed(*args: Any) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(
    make: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick_ending(monkeypatch)
    made = make()
    command = ["pseudo-label", "940", "2d", "0", "-tr", TRAINER, "-p", "testPlans", "--strategy", "random"]
    command += ["-i", str(made.unlabelled), "-device", "cpu", "--round-epochs", "1", "--no-two-step"]
    plain = learner.write_manifest

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(learner, "write_manifest", full)
    assert cli.main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the disk of somewhere is full; nothing is lost")
    monkeypatch.setattr(learner, "write_manifest", plain)
    assert cli.main(command) == 0
