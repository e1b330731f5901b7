"""A model's profile: distances against closed forms, flags on scans that lie near and far, and the command."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from box_chest import CLASSES, box_chest
from reported import CPU, tiny_model

from nnunet_covid.cli import main
from nnunet_covid.cli.report import add_report_arguments, open_model
from nnunet_covid.errors import UserError
from nnunet_covid.report import quantify
from nnunet_covid.report.confidence import distance, flags, profile_of, read_profile, urgency
from nnunet_covid.report.model import Observed

RNG = np.random.default_rng(0)


def observed(shift: float = 0.0, disagreement: float = 0.1) -> Observed:
    intensities = np.array([-1000.0, -900, -850, 20, 300]) + RNG.normal(0, 10, 5) + shift
    return Observed(
        tuple(intensities), disagreement, tuple(RNG.normal(0, 1, 8) * [1, 2, 3, 4, 5, 6, 7, 8] + shift / 10)
    )


def test_intensity_distance_is_in_standard_deviations() -> None:
    assert distance([1, 2], [0, 0], [1.0, 2.0]) == pytest.approx(1.0)
    assert distance([30, 0], [0, 0], [10.0, 10.0]) == pytest.approx(3 / np.sqrt(2))


def test_feature_distance_is_mahalanobis_for_many_images() -> None:
    many = [observed() for _ in range(4000)]
    profile = profile_of(many[:400], "d", "LPS")
    rows = np.array([one.features for one in many])
    inverse = np.linalg.inv(np.cov(rows.T))
    for one in (observed(), observed(100.0)):
        away = np.asarray(one.features) - rows.mean(0)
        assert profile.distance_of_features(one.features) == pytest.approx(np.sqrt(away @ inverse @ away), rel=0.15)


def test_flags_are_raised_far_from_the_training_images_alone() -> None:
    profile = profile_of([observed() for _ in range(40)], "d", "LPS")
    chest = box_chest()
    numbers = quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs)
    usual = Observed(profile.quantiles, 0.1, profile.feature_mean)
    near = {flag.key: flag.raised for flag in flags(numbers, usual, profile)}
    far = {flag.key: flag.raised for flag in flags(numbers, observed(400.0, 0.9), profile)}
    assert near == {
        "lung_volume": True,  # the box chest holds 0.4 l
        "infection_outside_lungs": False, "disagreement": False, "intensity_distance": False, "feature_distance": False,
    }  # fmt: skip
    assert far == {**near, "disagreement": True, "intensity_distance": True, "feature_distance": True}
    far_away, nearby = (flags(numbers, one, profile) for one in (observed(400.0, 0.9), usual))
    assert urgency(map(asdict, far_away)) > urgency(map(asdict, nearby)) > 0


def test_the_origin_of_the_threshold_of_disagreement_is_said() -> None:
    chest = box_chest()
    numbers = quantify(chest.image, chest.labels, CLASSES, lungs=chest.lungs)
    some = profile_of([observed() for _ in range(6)], "d", "LPS")
    silent = profile_of([replace(observed(), disagreement=None) for _ in range(6)], "d", "LPS")
    for profile, said in ((None, "a choice"), (silent, "a choice"), (some, "95 % of the 6 training images")):
        (flag,) = (flag for flag in flags(numbers, observed(), profile) if flag.key == "disagreement")
        assert f"disagree on this scan: {said}" in flag.sentence
        assert (flag.threshold == 50) is (said == "a choice")


def test_a_profile_of_too_few_images_or_of_other_weights_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 5"):
        profile_of([observed()] * 4, "d", "LPS")
    profile_of([observed() for _ in range(6)], "d", "LPS").write(tmp_path)
    assert read_profile(tmp_path, "d") is not None
    with pytest.raises(UserError, match="other weights, folds, mirroring or classes"):
        read_profile(tmp_path, "e")
    (tmp_path / "nnunet_covid_profile.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        read_profile(tmp_path, "d")


@pytest.mark.parametrize(("reader", "stored"), [("SimpleITKIO", "RAS"), ("SimpleITKIOWithReorient", "LPS")])
def test_the_command_makes_a_profile_that_reports_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, stored: str
) -> None:
    model = tiny_model(tmp_path / "m" / "nnUNetTrainer__nnUNetPlans__3d_fullres", reader=reader)
    raw = tmp_path / "raw" / "Dataset999_Test"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    for index in range(6):
        noisy = box_chest().image + sitk.Cast(
            sitk.AdditiveGaussianNoise(box_chest().image * 0, 20.0, 0, index + 1), sitk.sitkInt16
        )
        sitk.WriteImage(sitk.DICOMOrient(noisy, stored), str(raw / "imagesTr" / f"c{index}_0000.nii.gz"))
        sitk.WriteImage(box_chest().labels, str(raw / "labelsTr" / f"c{index}.nii.gz"))
    (raw / "dataset.json").write_text((model / "dataset.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    assert main(["profile", str(model), *CPU]) == 0
    assert json.loads((model / "nnunet_covid_profile.json").read_text(encoding="utf-8"))["orientation"] == "RAS"
    scan = tmp_path / "scan.nii.gz"
    sitk.WriteImage(box_chest().image, str(scan))
    assert main(["report", str(scan), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert {"intensity_distance", "feature_distance"} <= {flag["key"] for flag in content["flags"]}
    assert not any("no profile" in warning for warning in content["warnings"])


def test_a_profile_does_not_turn_what_the_reader_turns(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "nnUNetTrainer__nnUNetPlans__3d_fullres", reader="NibabelIOWithReorient")
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    args = parser.parse_args(["scan", "-m", str(folder), "-o", "out", *CPU])
    digest = open_model(args)[0].facts.digest
    profile_of([observed() for _ in range(6)], digest, "LPS").write(folder)  # as it was stored
    model, profile = open_model(args)
    assert profile is not None
    assert model.orientation == "RAS"


def test_copies_of_one_image_have_no_profile() -> None:
    with pytest.raises(UserError, match="look all alike"):
        profile_of([observed()] * 6, "d", "LPS")
