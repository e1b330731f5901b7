"""``predict``: images one by one, models, zip files of models, places."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planned
import torch
from image_files import grey, hounsfield, write_picture, write_volume
from model_folders import complete_plans, write_model

from bad_inputs.ingredients import several, spoilt
from bad_inputs.registry import BadInput, Kind
from nnunet_covid.calibration.fit import Calibration
from nnunet_covid.calibration.model_folder import write_calibration

MODEL = "nnUNetTrainer__testPlans__2d"
WEIGHTS = f"{MODEL}/fold_0/checkpoint_final.pth"
CUT = "cannot be opened: fold_0/checkpoint_final.pth is cut short or damaged"
COMMAND = f"nnunet-covid predict -i images -o out -m {MODEL} -device cpu"
ZIP = "nnunet-covid predict -i images -o out -m model.zip -device cpu"
GOES_ON = ("out/dataset.json", "out/plans.json", "out/predicted.jsonl")
"""Beside the label maps of the other images."""


def slices(folder: Path) -> None:
    """A model of slices, and the images a and b."""
    dataset = planned.dataset_json()
    write_model(folder / MODEL, complete_plans(dataset, patch=[32, 32], stages=3), dataset)
    for seed, name in enumerate("ab"):
        write_picture(folder / f"images/{name}_0000.png", grey((30, 34), seed))


def volumes(folder: Path) -> None:
    """The same of volumes."""
    dataset = planned.dataset_json(file_ending=".nii.gz")
    plans = complete_plans(dataset, patch=[32, 32], stages=3) | {"image_reader_writer": "SimpleITKIO"}
    write_model(folder / MODEL, plans, dataset)
    for seed, name in enumerate("ab"):
        write_volume(folder / f"images/{name}_0000.nii.gz", hounsfield((4, 30, 34), seed))


def not_a_picture(folder: Path) -> None:
    (folder / "images/a_0000.png").write_text("not a picture")


def cut_short(folder: Path) -> None:
    path = folder / "images/a_0000.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])


def not_finite(folder: Path) -> None:
    image = hounsfield((4, 30, 34), 0).astype(np.float32)
    image[1, 2, 3] = np.nan
    write_volume(folder / "images/a_0000.nii.gz", image)


def colours(folder: Path) -> None:
    write_picture(folder / "images/a_0000.png", np.stack([grey((30, 34), n) for n in range(3)], -1))


def no_second(folder: Path) -> None:
    (folder / "images/b_0000.png").unlink()


def second_channel(folder: Path) -> None:
    write_picture(folder / "images/a_0001.png", grey((30, 34), 3))


def no_channel_in_the_name(folder: Path) -> None:
    (folder / "images/a_0000.png").rename(folder / "images/a.png")


def link_to_nothing(folder: Path) -> None:
    (folder / "images/a_0000.png").unlink()
    (folder / "images/a_0000.png").symlink_to("gone.png")


def folder_in_its_place(folder: Path) -> None:
    (folder / "images/a_0000.nii.gz").rename(folder / "images/a")
    (folder / "images/a_0000.nii.gz").mkdir()
    (folder / "images/a").rename(folder / "images/a_0000.nii.gz/scan.nii.gz")


def capitals(folder: Path) -> None:
    (folder / "images/a_0000.png").rename(folder / "images/a_0000.PNG")


def other_pictures(folder: Path) -> None:
    write_picture(folder / "pictures/a_0000.PNG", grey((30, 34), 0))


def references(folder: Path) -> None:
    write_picture(folder / "raw/labelsTr/a.png", grey((30, 34), 0))
    (folder / "raw/dataset.json").write_text("{}")


def with_transparency(folder: Path) -> None:
    write_picture(folder / "images/a_0000.png", np.dstack([grey((30, 34), 0), np.full((30, 34), 255, np.uint8)]))


def file_in_the_way(folder: Path) -> None:
    (folder / "out").write_text("in the way")


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Something changed in the checkpoint."""

    def spoil(folder: Path) -> None:
        checkpoint = torch.load(folder / WEIGHTS, weights_only=False)
        change(checkpoint)
        torch.save(checkpoint, folder / WEIGHTS)

    return spoil


def lost_layer(checkpoint: dict[str, Any]) -> None:
    checkpoint["network_weights"].popitem()


def unknown_trainer(checkpoint: dict[str, Any]) -> None:
    checkpoint["trainer_name"] = "nnUNetTrainerOfSomebodyElse"


def damaged_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def zipped(*names: str) -> Callable[[Path], None]:
    """The model in ``model.zip``, below each of these folders."""

    def spoil(folder: Path) -> None:
        with zipfile.ZipFile(folder / "model.zip", "w") as archive:
            for name in names:
                for path in (folder / MODEL).rglob("*.*"):
                    archive.write(path, f"{name}/{path.relative_to(folder / MODEL).as_posix()}")

    return spoil


def escaping(folder: Path) -> None:
    zipped("Dataset999_Test/a__b__2d")(folder)
    with zipfile.ZipFile(folder / "model.zip", "a") as archive:
        archive.writestr("../../escaped.txt", "outside")


def damaged_zip(folder: Path) -> None:
    zipped("Dataset999_Test/a__b__2d")(folder)
    (folder / "model.zip").write_bytes((folder / "model.zip").read_bytes()[:-500])


def zip_with_changed_bytes(folder: Path) -> None:
    """Its list of contents is whole, what stands for the plans is not."""
    with zipfile.ZipFile(folder / "model.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / MODEL / "dataset.json", "Dataset999_Test/a__b__2d/dataset.json")
        archive.write(folder / MODEL / "plans.json", "Dataset999_Test/a__b__2d/plans.json")
        start = archive.infolist()[1].header_offset + 80
    content = bytearray((folder / "model.zip").read_bytes())
    content[start : start + 60] = b"\xff" * 60
    (folder / "model.zip").write_bytes(content)


def zip_with_password(folder: Path) -> None:
    """Every entry is marked as encrypted."""
    zipped("Dataset999_Test/a__b__2d")(folder)
    content = bytearray((folder / "model.zip").read_bytes())
    for mark, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + flags] |= 1
            at = content.find(mark, at + 4)
    (folder / "model.zip").write_bytes(content)


def calibrated_fold(folder: Path) -> None:
    shutil.copytree(folder / MODEL / "fold_0", folder / MODEL / "fold_1")
    write_calibration([folder / MODEL / "fold_1/checkpoint_final.pth"], Calibration(True, (1.0,), (0.4,)))


def zip_of_something_else(folder: Path) -> None:
    with zipfile.ZipFile(folder / "model.zip", "w") as archive:
        archive.writestr("holiday/photo.jpg", "sea")


def image(name: str, situation: str, spoil: Callable[[Path], object], says: tuple[str, ...], good: Any) -> BadInput:
    """One bad image beside a good one."""
    kind = Kind.ONE_OF_MANY
    ending = ".png" if good is slices else ".nii.gz"
    return BadInput(
        f"predict_{name}", kind, situation, COMMAND, spoilt(good, spoil), says, 1, (f"out/b{ending}", *GOES_ON)
    )


def model(name: str, situation: str, spoil: Callable[[Path], object], says: tuple[str, ...], kind: Kind) -> BadInput:
    """A bad model."""
    command = ZIP if "zip" in name else COMMAND
    return BadInput(f"predict_{name}", kind, situation, command, spoilt(slices, spoil), says)


def options(name: str, situation: str, command: str, *says: str) -> BadInput:
    """A bad option."""
    return BadInput(f"predict_{name}", Kind.OPTIONS, situation, command, spoilt(slices, other_pictures), says)


BAD_INPUTS = [
    model(
        "calibrated_fold",
        "a fold that was calibrated beside one that was trained since",
        calibrated_fold,
        ("folds of it are not calibrated alike; run nnunet-covid calibrate",),
        Kind.STALE,
    ),
    image("no_picture", "a text under the name of a picture", not_a_picture, ("refused: images/a_0000.png",), slices),
    image("cut_short", "a volume cut short", cut_short, ("refused: images/a_0000.nii.gz", "damaged; copy it"), volumes),
    image("not_finite", "a voxel that is no number", not_finite, ("refused: images/a_0000.nii.gz", "finite"), volumes),
    image(
        "colours",
        "a picture in colours",
        colours,
        ("case a has 3 channel(s)", "on 1; take out", "save it in grey"),
        slices,
    ),
    image("second_channel", "one channel too many", second_channel, ("case a has channels 0000, 0001",), slices),
    image("no_channel", "no channel in the name", no_channel_in_the_name, ("rename it to a_0000.png",), slices),
    image("link", "a link to a picture that was moved", link_to_nothing, ("a_0000.png is a link to a file",), slices),
    image(
        "folder", "a folder named as an image", folder_in_its_place, ("a_0000.nii.gz would not be used", "put"), volumes
    ),
    image("capitals", "a name that ends in .PNG", capitals, ("a_0000.PNG would not be used; rename",), slices),
    image("transparency", "grey with transparency", with_transparency, ("a_0000.png", "save it in grey"), slices),
    model(
        "unknown_trainer",
        "a model of a trainer that is not installed",
        changed(unknown_trainer),
        ("cannot be opened", "nnUNetTrainerOfSomebodyElse"),
        Kind.UNSUPPORTED,
    ),
    model(
        "other_version",
        "a model of another version of its trainer",
        changed(lost_layer),
        ("cannot be opened: its weights do not fit", "install the version that trained it"),
        Kind.UNSUPPORTED,
    ),
    model("damaged_weights", "a damaged checkpoint", damaged_weights, (f"{CUT}; copy it again",), Kind.DAMAGED),
    model("zip_escapes", "a zip file with files outside its folder", escaping, ("../../escaped.txt",), Kind.DAMAGED),
    model("zip_damaged", "a zip file cut short", damaged_zip, ("model.zip", "export it again"), Kind.DAMAGED),
    model(
        "zip_changed",
        "a zip file with changed bytes",
        zip_with_changed_bytes,
        ("model.zip is no undamaged zip file without a password", "export it again"),
        Kind.DAMAGED,
    ),
    model(
        "zip_password",
        "a zip file with a password",
        zip_with_password,
        ("model.zip is no undamaged zip file without a password", "is encrypted"),
        Kind.DAMAGED,
    ),
    model("zip_without_model", "a zip file of photos", zip_of_something_else, ("holds no model",), Kind.DAMAGED),
    model(
        "zip_of_two",
        "a zip file of two models",
        zipped("Dataset999_Test/a__b__2d", "Dataset999_Test/a__b__3d_fullres"),
        ("holds the models a__b__2d, a__b__3d_fullres; choose one",),
        Kind.OPTIONS,
    ),
    model(
        "zip_of_two_data_sets",
        "a zip file of models of one name of two data sets",
        zipped("Dataset998_Other/a__b__2d", "Dataset999_Test/a__b__2d"),
        ("holds models of one name of Dataset998_Other, Dataset999_Test; unpack it and name the folder",),
        Kind.OPTIONS,
    ),
    options(
        "checkpoint",
        "a checkpoint as the model",
        f"nnunet-covid predict -i images -o out -m {WEIGHTS}",
        "is a checkpoint; give the model folder, that above fold_0",
    ),
    model(
        "output_in_the_way", "a file in place of the output", file_in_the_way, ("out", "another folder"), Kind.PLACES
    ),
    BadInput(
        "predict_none",
        Kind.ONE_OF_MANY,
        "a folder of pictures in colours alone",
        COMMAND,
        spoilt(slices, several(colours, no_second)),
        ("refused: images/a_0000.png", "error: none of the 1 images in images can be predicted"),
    ),
    options(
        "folders_missing",
        "nnUNet_results where there is no folder",
        "nnunet-covid predict -i images -o out -d 999 -c 2d",
        "nnUNet_results is",
        "nnUNet_results, which is no folder: export nnUNet_results=/your/folder",
    ),
    BadInput(
        "saliency_output_is_input",
        Kind.OPTIONS,
        "the folder of images as that for the maps",
        f"nnunet-covid saliency {MODEL} images images -device cpu",
        spoilt(slices, other_pictures),
        ("images is read, too: pictures of maps there would be taken for its own files; name another output",),
    ),
    BadInput(
        "predict_guided_output_is_input",
        Kind.OPTIONS,
        "the folder of images as that for the label maps of both stages",
        f"nnunet-covid predict-guided {MODEL} {MODEL} images images/../images -device cpu",
        slices,
        ("images is read, too: label maps there would be taken for its own files; name another output",),
    ),
    options("no_model", "no model", "nnunet-covid predict -i images -o out", "name the model: -m"),
    options("two_models", "two models", f"{COMMAND} -d 999", "-m and -d both name a model"),
    options("step", "a step of 1.5 patches", f"{COMMAND} -step_size 1.5", "-step_size is above 0 and at most 1"),
    options("part", "part 5 of 4", f"{COMMAND} --parts 5/4", "K from 1 to N"),
    options("fold", "a fold that was not trained", f"{COMMAND} -f 3", "no fold 3", "there are 0"),
    options(
        "misspelt_trainer",
        "a misspelt name of a model folder",
        f"nnunet-covid predict -i images -o out -m {MODEL.replace('Trainer', 'Trianer')}",
        "nnUNetTrianer__testPlans__2d is no folder",
        f"near it there are {MODEL}",
    ),
    options("no_images", "a folder of no images", f"{COMMAND} -i {MODEL}", "holds no image that ends in .png"),
    options(
        "all_of_another_format",
        "a folder of images in another format than the model's",
        f"{COMMAND} -i pictures",
        "holds no image that ends in .png, such as CASE_0000.png",
        "there is a_0000.PNG: rename",
    ),
    options("parts_twice", "two parts in one command", f"{COMMAND} --parts 1/2 --parts 2/2", "--parts: is given twice"),
    options("threads", "a negative number of threads", f"{COMMAND} -nps -1", "-nps is a number of threads, not -1"),
    options("memory", "memory without end", f"{COMMAND} --memory inf", "--memory is above 0 and finite, not inf"),
    options(
        "output_is_input",
        "the folder of images as that for the label maps",
        f"{COMMAND} -o images",
        "images is read, too: label maps there would be taken for its own files; name another output",
    ),
    options(
        "output_is_the_first_stage",
        "the folder of the first stage's label maps as that for the second's",
        f"{COMMAND} -prev_stage_predictions out",
        "out is read, too: label maps there would be taken for its own files",
    ),
    BadInput(
        "predict_output_is_references",
        Kind.PLACES,
        "the references of a data set as the place of the label maps",
        COMMAND.replace("-o out", "-o raw/labelsTr"),
        spoilt(slices, references),
        ("raw/labelsTr holds a data set's references, which label maps would replace; name another -o",),
    ),
    options(
        "trainer_of_another_model",
        "a trainer beside a model folder of another one",
        f"{COMMAND} -tr InfNetTrainer",
        f"-tr InfNetTrainer: the model {MODEL} has nnUNetTrainer; leave -tr out",
    ),
]
