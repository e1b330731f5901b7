"""The commands that are killed, each on the smallest input that has all its steps."""

from __future__ import annotations

import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import linked
import planned
from image_files import blob, grey, write_picture
from tiny_data_set import DATASET, make_tiny_data_set

from killing.harness import Run, digests
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.cli import main
from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NNUNET = {
    **{name: f"@/{name}" for name in FOLDERS},
    "nnUNet_n_proc_DA": "0",
    "nnUNet_def_n_proc": "1",
    VARIABLE: str(TRAINERS_FOLDER),
}
TRAINER = "InfNetTrainer_3epochs_2its"
EPOCHS = 3
CASES = 30
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


def _copied(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """The same, made once and copied from then on."""

    @functools.cache
    def made() -> Path:
        kept = tempfile.TemporaryDirectory(prefix="to_kill_")
        _KEPT.append(kept)
        make(Path(kept.name))
        return Path(kept.name)

    return lambda folder: shutil.copytree(made(), folder, dirs_exist_ok=True)


@_copied
def source(folder: Path) -> None:
    """Pictures to convert."""
    for index in range(CASES):
        write_picture(folder / f"source/images/{index}.png", grey((60, 70), index))
        write_picture(folder / f"source/masks/{index}.png", blob((60, 70), index, 255))


@_copied
def to_link(folder: Path) -> None:
    """A planned COVID data set and one of another disease."""
    for name in FOLDERS:
        (folder / name).mkdir()
    linked.write_covid(folder / "nnUNet_preprocessed", linked.covid_plans())
    linked.write_pictures(folder / "nnUNet_raw", linked.EFFUSION, 12)


@_copied
def to_evaluate(folder: Path) -> None:
    """Label maps and their references."""
    for part, shift in (("predicted", 0), ("expected", 1)):
        for case in range(CASES):
            write_picture(folder / part / f"{case}.png", blob((60, 70), case // 2 + shift))
    (folder / "predicted/dataset.json").write_text(json.dumps(planned.dataset_json()))


@_copied
def planned_data_set(folder: Path) -> None:
    """A planned and pre-processed data set and unlabelled images."""
    (folder / "made").mkdir()
    made = make_tiny_data_set(folder / "made", unlabelled=3, size=36)
    for path in made.root.iterdir():
        path.rename(folder / path.name)
    (folder / "made").rmdir()


@_copied
def with_linked_images(folder: Path) -> None:
    """The same, and the images linked."""
    planned_data_set(folder)
    with mock.patch.dict(os.environ, {name: str(folder / name) for name in FOLDERS}):
        images = ["--unlabelled", str(folder / "unlabelled")]
        assert main(["link", "-d", "940", "-p", "testPlans", "-c", "2d", "-np", "1", *images]) == 0


def _linked(folder: Path) -> dict[str, str]:
    """Pre-processed cases and the record; the time of pre-processing stands nowhere in them."""
    return digests(folder / "nnUNet_preprocessed")


def _fold(folder: Path) -> Path:
    (fold,) = (folder / "nnUNet_results" / DATASET).glob("*__testPlans__2d/fold_0")
    return fold


def checkpoints_are_whole(folder: Path) -> None:
    """Every checkpoint under its final name can be read."""
    for path in (folder / "nnUNet_results").rglob("*.pth"):
        if not path.name.startswith("."):
            read_checkpoint(path)


def _trained(folder: Path) -> dict[str, Any]:
    """What a training leaves, and how long it was; its weights depend on where it was cut."""
    fold = _fold(folder)
    # one training after the other keeps the first one's under other names
    names = {
        path.relative_to(fold).as_posix() for path in fold.rglob("*") if path.suffix != ".before" and path.is_file()
    }
    final = read_checkpoint(fold / "checkpoint_final.pth", needed=("trainer_name", "current_epoch"))
    logged = {name: len(values) for name, values in final["logging"].items() if isinstance(values, list)}
    return {
        "files": sorted(name for name in names if not name.startswith(("training_log", "checkpoint_best"))),
        "epochs": final["current_epoch"],
        "trainer": final["trainer_name"],
        "losses": logged.get("train_losses"),
        "validated": sorted(
            json.loads((fold / "validation/summary.json").read_text(encoding="utf-8"))["foreground_mean"]
        ),
    }


def _rounds(folder: Path) -> dict[str, Any]:
    """Models, drawn images, Dice and pseudo labels of the rounds; times left out."""
    (report,) = (folder / "nnUNet_results" / DATASET).glob("*_pseudo*/fold_0/pseudo_labels")
    units = json.loads((report / "state.json").read_text(encoding="utf-8"))["units"]
    results = {name: unit["result"] for name, unit in units.items()}
    models = {
        name: result["model"] for name, result in results.items() if isinstance(result, dict) and "model" in result
    }
    drawn = {name: result for name, result in results.items() if name.endswith("/select")}
    dice = {name: result["mean"] for name, result in results.items() if "/validate" in name}
    shown = {name: digest for name, digest in digests(report).items() if name.startswith("round_")}
    return {"units": list(results), **models, **drawn, **dice, **shown}


def _pretrained(folder: Path) -> dict[str, Any]:
    (place,) = (folder / "nnUNet_results" / DATASET / "pretraining").glob("*/*")
    units = json.loads((place / "state.json").read_text(encoding="utf-8"))["units"]
    weights = read_checkpoint(place / "checkpoint_final.pth")["network_weights"]
    sums = {name: float(value.double().sum()) for name, value in weights.items()}
    return {"losses": units["learn"]["result"]["losses"], **sums}


def _run(name: str, command: str, make: Any, result: Any, *, nnunet: bool = True, again: str = "") -> Run:
    """With nnU-Net's folders, if need be, and whole checkpoints at any moment."""
    environment = NNUNET if nnunet else {}
    words = tuple(command.split())
    return Run(name, words, make, result, tuple(again.split()), environment, checkpoints_are_whole)


ON_TINY = "940 2d 0 -p testPlans -device cpu"
ROUNDS = "--strategy random -tr nnUNetTrainer_1epochs_2its --per-round 2 --round-epochs 1 --round-iterations 2"
RUNS = {
    run.name: run
    for run in (
        _run(
            "convert",
            "nnunet-covid convert folder @/source -o @/raw --workers 1",
            source,
            lambda folder: digests(folder / "raw"),
            nnunet=False,
        ),
        _run(
            "evaluate",
            "nnunet-covid evaluate @/predicted @/expected -o @/scores -n 1",
            to_evaluate,
            lambda folder: digests(folder / "scores", folder),
            nnunet=False,
        ),
        _run("link", "nnunet-covid link -d 601 -a 602 -np 1", to_link, _linked),
        _run("training", f"nnUNetv2_train {ON_TINY} -tr {TRAINER}", planned_data_set, _trained, again="--c"),
        _run(
            "consistency",
            f"nnUNetv2_train {ON_TINY} -tr nnUNetTrainer_consistency_3epochs_2its",
            with_linked_images,
            _trained,
            again="--c",
        ),
        _run(
            "pseudo-label", f"nnunet-covid pseudo-label {ON_TINY} -i @/unlabelled {ROUNDS}", planned_data_set, _rounds
        ),
        _run(
            "pretrain",
            "nnunet-covid pretrain 940 2d -i @/unlabelled -p testPlans -device cpu --steps 40",
            planned_data_set,
            _pretrained,
        ),
    )
}
