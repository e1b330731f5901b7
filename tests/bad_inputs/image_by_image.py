"""Commands that work through a folder image by image: what happens where one, or every one, cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import planned
from chest_phantom import chest_slice
from image_files import grey, hounsfield, write_picture, write_volume
from model_folders import complete_plans, write_model

from bad_inputs.ingredients import several, spoilt
from bad_inputs.registry import BadInput, Kind
from nnunet_covid.dataset_json import GUIDED_KEY
from nnunet_covid.raw_dataset.scan import to_8_bit


def chests(folder: Path) -> None:
    for name in "abc":
        write_picture(folder / f"images/{name}.png", to_8_bit(chest_slice()[0], -1250, 250))


def of_12_bits(folder: Path) -> None:
    write_volume(folder / "images/a.nii.gz", np.arange(4096, dtype=np.int16).reshape(1, 64, 64))


def cases(folder: Path) -> None:
    for seed, name in enumerate("abc"):
        write_picture(folder / f"images/{name}_0000.png", grey((40, 40), seed))


def model(folder: Path) -> None:
    """``model``: a two-class network with random weights."""
    dataset_json = planned.dataset_json()
    write_model(folder / "model", complete_plans(dataset_json, stages=4, patch=[32, 32]), dataset_json)


def planned_on(normalisation: str, **intensities: float) -> Callable[[Path], None]:
    """Volumes a, in Hounsfield units, and b, and a model of volumes on whose scale b is."""

    def make(folder: Path) -> None:
        dataset_json = planned.dataset_json(file_ending=".nii.gz")
        plans = complete_plans(dataset_json, patch=[32, 32], stages=3) | {"image_reader_writer": "SimpleITKIO"}
        plans["configurations"]["2d"]["normalization_schemes"] = [normalisation]
        plans["foreground_intensity_properties_per_channel"] = {"0": {"mean": 9.0, "std": 9.0, **intensities}}
        write_model(folder / "model", plans, dataset_json)
        write_volume(folder / "images/a_0000.nii.gz", hounsfield((4, 30, 34), 0))
        b = hounsfield if normalisation.startswith("CT") else grey
        write_volume(folder / "images/b_0000.nii.gz", b((4, 30, 34), 1).astype(np.int16))

    return make


def one_is_grey(folder: Path) -> None:
    write_volume(folder / "images/a_0000.nii.gz", grey((4, 30, 34), 0).astype(np.int16))


def guided(folder: Path) -> None:
    """``guided``: the second stage that belongs to ``model``."""
    dataset_json = planned.dataset_json(channel_names={"0": "grey_ct", "1": "nonorm"}, **{GUIDED_KEY: {"map": "label"}})
    write_model(folder / "guided", complete_plans(dataset_json, stages=4, patch=[32, 32]), dataset_json)


def one_is_cut(folder: Path) -> None:
    path = sorted(folder.glob("images/b*"))[0]
    path.write_bytes(path.read_bytes()[:60])


def all_are_cut(folder: Path) -> None:
    for path in folder.glob("images/*"):
        path.write_bytes(path.read_bytes()[:60])


def checkpoint_is_cut(folder: Path) -> None:
    path = folder / "model/fold_0/checkpoint_final.pth"
    path.write_bytes(path.read_bytes()[:2000])


def document_is_damaged(name: str, text: str):
    def spoil(folder: Path) -> None:
        (folder / "model" / name).write_text(text)

    return spoil


SWAPPED = {**planned.dataset_json(), "labels": {"0": "background", "1": "infection"}}
SALIENCY = "nnunet-covid saliency model images out -device cpu"
GUIDED = "nnunet-covid predict-guided model guided images out -device cpu --disable_tta"
LUNGS = "nnunet-covid lung-mask images out --method threshold"
WITH_MODEL = several(cases, model)
BOTH_STAGES = several(cases, model, guided)
ONE = "1 of 3 images cannot be used, the others are done"
NONE = "none of 3 images can be used"
PREDICT = "nnunet-covid predict -i images -o out -m model -device cpu"
ONE_PREDICTED = ("out/b.nii.gz", "out/dataset.json", "out/plans.json", "out/predicted.jsonl")

BAD_INPUTS = [
    BadInput(
        "lung_mask_into_a_file",
        Kind.PLACES,
        "lung masks into a folder below a file",
        "nnunet-covid lung-mask images images/a.png/out --method threshold",
        chests,
        ("images/a.png/out cannot be written into (Not a directory); name another folder",),
    ),
    BadInput(
        "lung_mask_of_12_bits",
        Kind.UNITS,
        "lungmask's network for grey values of more than 8 bits",
        "nnunet-covid lung-mask images/a.nii.gz a.nii.gz --method lungmask",
        of_12_bits,
        ("images/a.nii.gz: has grey values up to 4095", "choose the method threshold, or export it in"),
    ),
    BadInput(
        "lung_mask_one_cut",
        Kind.ONE_OF_MANY,
        "one picture of a folder is cut short",
        LUNGS,
        spoilt(chests, one_is_cut),
        (ONE, "images/b.png: not a readable picture", "download or export it again"),
        exit_status=1,
        leaves=("out/a.png", "out/c.png"),
    ),
    BadInput(
        "lung_mask_all_cut",
        Kind.ONE_OF_MANY,
        "every picture of a folder is cut short",
        LUNGS,
        spoilt(chests, all_are_cut),
        (NONE, "images/a.png: not a readable picture", "images/c.png: not a readable"),
    ),
    BadInput(
        "saliency_one_cut",
        Kind.ONE_OF_MANY,
        "one image of a folder is cut short",
        SALIENCY,
        spoilt(WITH_MODEL, one_is_cut),
        (ONE, "images/b_0000.png cannot be read"),
        exit_status=1,
        leaves=("out/a*", "out/c*", "out/saliency.json"),
    ),
    BadInput(
        "saliency_all_cut",
        Kind.ONE_OF_MANY,
        "every image of a folder is cut short",
        SALIENCY,
        spoilt(WITH_MODEL, all_are_cut),
        (NONE, "images/a_0000.png cannot be read"),
    ),
    BadInput(
        "guided_one_cut",
        Kind.ONE_OF_MANY,
        "one image of a folder is cut short",
        GUIDED,
        spoilt(BOTH_STAGES, one_is_cut),
        (ONE, "images/b_0000.png cannot be read"),
        exit_status=1,
        leaves=("out/a.png", "out/c.png", "out/dataset.json", "out/plans.json", "out/predicted.jsonl"),
    ),
    BadInput(
        "guided_all_cut",
        Kind.ONE_OF_MANY,
        "every image of a folder is cut short",
        GUIDED,
        spoilt(BOTH_STAGES, all_are_cut),
        (NONE, "images/a_0000.png cannot be read"),
    ),
    BadInput(
        "saliency_model_cut",
        Kind.DAMAGED,
        "a model whose checkpoint was cut by a full disk",
        SALIENCY,
        spoilt(WITH_MODEL, checkpoint_is_cut),
        ("model cannot be opened: fold_0/checkpoint_final.pth is cut short or damaged",),
    ),
    BadInput(
        "guided_model_cut",
        Kind.DAMAGED,
        "a first stage whose checkpoint was cut by a full disk",
        GUIDED,
        spoilt(BOTH_STAGES, checkpoint_is_cut),
        ("model cannot be opened: fold_0/checkpoint_final.pth is cut short or damaged",),
    ),
    BadInput(
        "model_plans_damaged",
        Kind.DAMAGED,
        "a model whose plans.json was cut",
        SALIENCY,
        spoilt(WITH_MODEL, document_is_damaged("plans.json", '{"configurations": {"2d"')),
        ("model/plans.json is damaged or holds no plans; copy it again",),
    ),
    BadInput(
        "model_labels_swapped",
        Kind.LABELS,
        "a model whose dataset.json has names and values of labels swapped",
        SALIENCY,
        spoilt(WITH_MODEL, document_is_damaged("dataset.json", json.dumps(SWAPPED))),
        ("model/dataset.json: names and values of 'labels' are swapped; write {\"background\": 0}",),
    ),
    BadInput(
        "predict_hounsfield_units_by_grey",
        Kind.UNITS,
        "a volume in Hounsfield units for a model of grey values",
        PREDICT,
        planned_on("ZScoreNormalization", min=0, max=255),
        ("case a holds values from -1024 to 1", "but the plans are made of grey values up to 255; convert it as"),
        exit_status=1,
        leaves=ONE_PREDICTED,
    ),
    BadInput(
        "predict_grey_by_hounsfield_units",
        Kind.UNITS,
        "a volume of grey values for a model of Hounsfield units",
        PREDICT,
        spoilt(
            planned_on("CTNormalization", min=-1000, max=300, percentile_00_5=-950, percentile_99_5=200), one_is_grey
        ),
        ("case a holds values from 0 to 255, no Hounsfield units, but the plans are made of Hounsfield units",),
        exit_status=1,
        leaves=ONE_PREDICTED,
    ),
]
