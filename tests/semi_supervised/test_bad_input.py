"""Mistakes are told in one line, before anything is trained or written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from PIL import Image
from tiny_data_set import TinyDataSet, make_tiny_data_set

from nnunet_covid import cli
from nnunet_covid.startup import TRAINERS_FOLDER


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TinyDataSet:
    return make_tiny_data_set(tmp_path_factory.mktemp("tiny"), unlabelled=3)


@pytest.fixture(autouse=True)
def environment(made: TinyDataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**made.environment(), "nnUNet_extTrainer": str(TRAINERS_FOLDER)}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def error(made: TinyDataSet, capsys: pytest.CaptureFixture[str]):
    """The error line of a command that fails and writes nothing."""

    def run(*changes: str, dataset: str = "940", configuration: str = "2d", fold: str = "0", **flags: str) -> str:
        given = {"-i": str(made.unlabelled), "-tr": "nnUNetTrainer", "-p": "testPlans", "--strategy": "random"}
        given |= {"-device": "cpu"} | {f"-{name}": value for name, value in flags.items()}
        command = ["pseudo-label", dataset, configuration, fold, *(x for pair in given.items() for x in pair), *changes]
        before = sorted(p for p in made.root.rglob("*"))
        assert cli.main(command) == 2
        assert sorted(p for p in made.root.rglob("*")) == before, "nothing is written"
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run


def copied(made: TinyDataSet, folder: Path) -> Path:
    return Path(shutil.copytree(made.unlabelled, folder / "images"))


def test_images_that_are_labelled_or_test_images_or_twice_in_the_folder(made, error, tmp_path: Path) -> None:
    images = copied(made, tmp_path)
    with Image.open(made.raw / "imagesTr" / "case_3_0000.png") as picture:
        picture.save(images / "new_0000.png", compress_level=1)  # other bytes, the same image
    assert "new = imagesTr/case_3" in error(i=str(images))
    (images / "new_0000.png").unlink()
    shutil.copy(made.raw / "imagesTs" / "test_0_0000.png", images / "x_0000.png")
    assert "x = imagesTs/test_0" in error(i=str(images))
    (images / "x_0000.png").unlink()
    shutil.copy(images / "un_0_0000.png", images / "zz_0000.png")
    message = error(i=str(images))
    assert "zz = un_0 of the same folder" in message
    assert "--leave-out-duplicates" in message


def test_wrong_channels_an_empty_folder_and_none_at_all(made, error, tmp_path: Path) -> None:
    images = copied(made, tmp_path)
    shutil.copy(images / "un_0_0000.png", images / "un_0_0001.png")
    assert "case un_0 has channels 0000, 0001, but 0000 is expected" in error(i=str(images))
    (tmp_path / "empty").mkdir()
    assert "holds no image that ends in .png" in error(i=str(tmp_path / "empty"))
    assert "is no folder" in error(i=str(tmp_path / "nowhere"))
    (images / "un_0_0001.png").unlink()
    (images / "un_9_0000.png").write_bytes(b"no picture")
    assert "un_9_0000.png cannot be read" in error(i=str(images))


def test_only_known_images(made, error, tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    shutil.copy(made.raw / "imagesTr" / "case_3_0000.png", tmp_path / "known" / "a_0000.png")
    assert "none is left to label" in error("--leave-out-duplicates", i=str(tmp_path / "known"))


def test_names_that_nnunet_does_not_find(error) -> None:
    assert "data set '941': there is none in" in error(dataset="941")
    assert "has no configuration '3d_fullres', but 2d" in error(configuration="3d_fullres")
    assert "has no fold 4, but 1 fold(s) from 0 on" in error(fold="4")
    assert "must be a number or 'all'" in error(fold="first")
    assert error(tr="NoSuchTrainer").endswith("nnU-Net finds no such trainer; see 'nnunet-covid doctor'")
    assert "no such trainer; did you mean UNetPretrainedTrainer?" in error(tr="UnetPretrainedTrainer_3epochs_seed1")
    assert "no such trainer; did you mean nnUNetTrainer?" in error(tr="nnUNetTraner")
    assert "nnUNetv2_plan_and_preprocess" in error(p="noPlans")


def test_options_of_the_other_strategy_and_of_no_class(error, tmp_path: Path) -> None:
    assert "--patience belongs to --strategy iterative" in error("--patience", "2")
    assert "--no-two-step belongs to --strategy random" in error("--strategy", "iterative", "--no-two-step")
    assert "--threshold NAME=… makes hard labels" in error("--soft", "--threshold", "infection=0.9")
    assert "the classes are background, infection" in error("--threshold", "lesion=0.5")
    assert "expected a number or CLASS=number" in error("--threshold", "much")
    for rate in ("nan", "inf", "-1"):
        assert f"--learning-rate {float(rate)}: must be positive, or 0 for" in error("--learning-rate", rate)
    assert "letters and digits only" in error("--name", "my_run")
    assert "no such file" in error("--start-from", str(tmp_path / "none.pth"))
    assert "no run yet" in error("--status")


@pytest.mark.parametrize("between", [[], ["--threshold"]])
def test_two_thresholds_of_one_class(error, between: list[str]) -> None:
    assert "--threshold 0.9: there is one of all classes already, 0.5" in error("--threshold", "0.5", *between, "0.9")
    both = ("infection=0.5", *between, "infection=0.9")
    assert "--threshold infection=0.9: there is one of infection already, 0.5" in error("--threshold", *both)


def test_two_processes_on_one_run(made: TinyDataSet, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from nnunet_covid.semi_supervised.experiment import find_experiment
    from nnunet_covid.semi_supervised.pseudo_label_run import locked

    experiment = find_experiment("940", "2d", "0", "nnUNetTrainer", "Random", "testPlans", torch.device("cpu"))
    command = ["pseudo-label", "940", "2d", "0", "-p", "testPlans", "--strategy", "random", "-device", "cpu"]
    with locked(experiment.report_folder):
        assert cli.main([*command, "-i", str(made.unlabelled)]) == 2
    assert "another process is at work" in capsys.readouterr().err
    assert not experiment.report_folder.exists()
