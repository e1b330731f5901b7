"""What is fuzzed: a good file of each format that this project reads, and the readers and commands that it meets."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import planned
import SimpleITK as sitk
import tifffile
import torch
from bad_inputs.ingredients import pictures, volumes
from image_files import blob, grey, hounsfield, write_dicom_series, write_picture
from model_folders import complete_plans, write_model

from nnunet_covid.auxiliary_data.links import open_planned, read_links
from nnunet_covid.auxiliary_data.relation_snapshots import read_snapshots
from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.cli import main
from nnunet_covid.dataset_check.dataset import open_dataset
from nnunet_covid.evaluation.comparison import read_score_table
from nnunet_covid.evaluation.label_files import LabelFormat, read_labels
from nnunet_covid.evaluation.labels import scheme_of_labels
from nnunet_covid.files import NNUNET_FOLDERS
from nnunet_covid.header_claims import read_probabilities
from nnunet_covid.nnunet import dataset as nnunet_files
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.raw_dataset import read_scan
from nnunet_covid.raw_dataset.pictures import read_colours
from nnunet_covid.raw_dataset.source import read_patients
from nnunet_covid.raw_dataset.splits import TrainingCase, splits_from_file
from nnunet_covid.semi_supervised.state import read_state

FINISHED = {"version": 1, "options": {}, "context": {}, "units": {"pool": {"result": {"cases": ["a"]}, "seconds": 1.0}}}


@dataclass(frozen=True)
class Target:
    """One format and everything that reads it.

    Attributes:
        make: Fills a folder with a good input.
        file: The one of it that is changed.
        readers: Each is called with the folder, and returns, or raises what tells the user.
        kind: Of the edits, see :func:`fuzzing.mutations.edits_of`.
        packing: Of the file, see :func:`fuzzing.mutations.edited`.
    """

    make: Callable[[Path], object]
    file: str
    readers: tuple[Callable[[Path], object], ...]
    kind: str = "binary"
    packing: str = ""


def _reader(name: str) -> Any:
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    return recursive_find_reader_writer_by_name(name)()


def _volume(file: str, kind: str = "binary", *, packing: str = "", compressed: bool = False) -> Target:
    def make(folder: Path) -> None:
        image = sitk.GetImageFromArray(hounsfield((5, 12, 16), 0))
        sitk.WriteImage(image, str(folder / file), compressed)

    readers = [
        lambda folder: read_scan(folder / file),
        lambda folder: read_labels(folder / file, LabelFormat(Path(file).suffix, "SimpleITKIO")),
        lambda folder: nnunet_files.read_images(_reader("SimpleITKIO"), [folder / file]),
    ]
    if ".nii" in file:
        readers.append(lambda folder: nnunet_files.read_images(_reader("NibabelIO"), [folder / file]))
    return Target(make, file, tuple(readers), kind, packing)


def _picture(file: str, packing: str = "") -> Target:
    def make(folder: Path) -> None:
        write_picture(folder / file, grey((24, 20), 0))

    readers = (
        lambda folder: read_scan(folder / file),
        lambda folder: read_colours(folder / file),
        lambda folder: read_labels(folder / file, LabelFormat(Path(file).suffix, "NaturalImage2DIO")),
        lambda folder: nnunet_files.read_images(_reader("NaturalImage2DIO"), [folder / file]),
    )
    return Target(make, file, readers, packing=packing)


def _tiff(folder: Path, **how: Any) -> None:
    tifffile.imwrite(folder / "a.tif", grey((4, 24, 20), 0), photometric="minisblack", **how)


def _command(*arguments: str) -> Callable[[Path], object]:
    """A command line in the folder; its exit status must be one of ours."""

    def run(folder: Path) -> object:
        status = main([argument.replace("@", str(folder)) for argument in arguments])
        assert status in (0, 1, 2), status
        shutil.rmtree(folder / "out", ignore_errors=True)
        return status

    return run


def _to_evaluate(folder: Path, ending: str = ".png") -> None:
    for part, seed in (("predicted", 0), ("expected", 1)):
        for case in "ab":
            write_picture(folder / part / f"{case}{ending}", blob((20, 30), seed))
    (folder / "predicted/dataset.json").write_text(json.dumps(planned.dataset_json()))


CONVERT = _command("convert", "folder", "@/source", "-o", "@/out", "--workers", "1")
EVALUATE = _command("evaluate", "@/predicted", "@/expected", "-o", "@/out", "-n", "1", "--no-plots")


def _raw_data_set(folder: Path) -> None:
    raw = folder / "Dataset501_A"
    for case in "ab":
        write_picture(raw / f"imagesTr/{case}_0000.png", grey((20, 30), 0))
        write_picture(raw / f"labelsTr/{case}.png", blob((20, 30), 0))
    (raw / "dataset.json").write_text(json.dumps(planned.dataset_json({"background": 0, "a": [1, 2], "ignore": 3})))
    records = [{"case": c, "patient": c, "outputs": {c: {}}} for c in "ab"]
    (raw / "conversion.json").write_text(json.dumps({"cases": records}))
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))


def _read_raw(folder: Path) -> None:
    found = open_dataset(str(folder / "Dataset501_A"))
    nnunet_files.open_raw_dataset(str(found.folder)).splits()
    description = nnunet_files.read_dataset_json(found.folder / "dataset.json")
    scheme_of_labels(description["labels"])


def _model(folder: Path) -> None:
    description = planned.dataset_json()
    write_model(folder / "model", complete_plans(description, stages=3, patch=[16, 16]), description)


def _open_model(folder: Path) -> None:
    model = TrainedModel(folder / "model", device="cpu")
    assert model.foreground_classes()
    _ = model.channels, model.ending, model.previous_stage, model.patch_size


def _planned(folder: Path) -> None:
    home = folder / "nnUNet_preprocessed/Dataset999_Test"
    home.mkdir(parents=True)
    (home / "testPlans.json").write_text(json.dumps(complete_plans(planned.dataset_json())))
    (home / "dataset.json").write_text(json.dumps(planned.dataset_json()))


def _open_planned(folder: Path) -> None:
    for variable in NNUNET_FOLDERS:
        os.environ[variable] = str(folder / "nnUNet_preprocessed")
    found = open_planned("Dataset999_Test", "testPlans")
    for configuration in found.plans.available_configurations:
        found.identifier(configuration)
        found.digest(configuration)


def _table(file: str, content: Any, reader: Callable[[Path], object], kind: str = "json") -> Target:
    """A table or JSON document of ours."""

    def make(folder: Path) -> None:
        (folder / file).write_text(content if isinstance(content, str) else json.dumps(content))

    return Target(make, file, (reader,), kind)


def _probabilities(folder: Path) -> None:
    np.savez_compressed(folder / "a.npz", probabilities=np.full((2, 1, 8, 8), 0.5, np.float32))


def _snapshot(folder: Path) -> None:
    (folder / "relations").mkdir()
    matrices = {name: np.eye(4) for name in ("general_covid", "target_covid", "target_difference")}
    np.savez_compressed(folder / "relations/epoch_0000.npz", **matrices)


def _checkpoint(folder: Path) -> None:
    content = {
        "network_weights": {"a.weight": torch.ones(3)},
        "trainer_name": "a",
        "best": np.float64(1),
        "log": {"a": []},
    }
    torch.save(content, folder / "a.pth")


CASES = [TrainingCase("a", "a", ("a",)), TrainingCase("b", "b", ("b",))]
LINKED = {"name": "a", "folder": "a/b", "cases": ["c"], "cases_with_lesion": 1, "lesions": [1]}
LINK = {"configuration": "2d", "dimensions": 2, "digest": "0", "others": [LINKED], "unlabelled": LINKED}
LINKS = {"version": 1, "links": {"2d": LINK}}
PATIENTS = "file,case\na.png,p1\nb.png,p2\n"
FOLDS = [{"train": ["a"], "val": ["b"]}]
SCORES = "case,class,empty,tp,fp,fn,tn,dice\na,x,,1,2,3,4,0.5\nb,x,,1,2,3,4,\n"

TARGETS: dict[str, Target] = {
    "nifti": _volume("a.nii"),
    "nifti packed": _volume("a.nii.gz"),
    "nifti in gzip": _volume("a.nii.gz", packing="gzip"),
    "nrrd": _volume("a.nrrd", "text"),
    "nrrd packed": _volume("a.nrrd", "text", compressed=True),
    "nrrd header": _volume("a.nhdr", "text"),
    "metaimage": _volume("a.mha", "text"),
    "metaimage packed": _volume("a.mha", "text", compressed=True),
    "metaimage header": _volume("a.mhd", "text"),
    "dicom": Target(
        lambda folder: write_dicom_series(folder / "series", hounsfield((3, 8, 10), 0)),
        "series/0002.dcm",
        (lambda folder: read_scan(folder / "series"),),
    ),
    "png": _picture("a.png"),
    "png with checksums": _picture("a.png", "png"),
    "jpeg": _picture("a.jpg"),
    "bmp": _picture("a.bmp"),
    "tiff": _picture("a.tif"),
    "tiff of slices": Target(
        _tiff, "a.tif", (lambda folder: nnunet_files.read_images(_reader("Tiff3DIO"), [folder / "a.tif"]),)
    ),
    "tiff packed": Target(
        partial(_tiff, compression="zlib"),
        "a.tif",
        (lambda folder: nnunet_files.read_images(_reader("Tiff3DIO"), [folder / "a.tif"]),),
    ),
    "convert picture": Target(pictures, "source/images/a.png", (CONVERT,), packing="png"),
    "convert mask": Target(pictures, "source/masks/a.png", (CONVERT,), packing="png"),
    "convert volume": Target(partial(volumes, size=(4, 10, 12)), "source/images/a.nii.gz", (CONVERT,), packing="gzip"),
    "evaluate": Target(_to_evaluate, "predicted/a.png", (EVALUATE,), packing="png"),
    "evaluate labels": Target(_to_evaluate, "predicted/dataset.json", (EVALUATE,), "json"),
    "dataset.json": Target(_raw_data_set, "Dataset501_A/dataset.json", (_read_raw,), "json"),
    "conversion.json": Target(_raw_data_set, "Dataset501_A/conversion.json", (_read_raw,), "json"),
    "splits_final.json": Target(_raw_data_set, "Dataset501_A/splits_final.json", (_read_raw,), "json"),
    "plans": Target(_planned, "nnUNet_preprocessed/Dataset999_Test/testPlans.json", (_open_planned,), "json"),
    "plans of a model": Target(_model, "model/plans.json", (_open_model,), "json"),
    "dataset.json of a model": Target(_model, "model/dataset.json", (_open_model,), "json"),
    "checkpoint of a model": Target(_model, "model/fold_0/checkpoint_final.pth", (_open_model,)),
    "checkpoint": Target(_checkpoint, "a.pth", (lambda folder: read_checkpoint(folder / "a.pth"),)),
    "probabilities": Target(_probabilities, "a.npz", (lambda folder: read_probabilities(folder / "a.npz"),)),
    "relations": Target(_snapshot, "relations/epoch_0000.npz", (read_snapshots,)),
    "patients": _table("a.csv", PATIENTS, lambda folder: read_patients(folder / "a.csv"), "text"),
    "scores": _table("cases.csv", SCORES, lambda folder: read_score_table(folder, "a"), "text"),
    "own folds": _table("a.json", FOLDS, lambda folder: splits_from_file(folder / "a.json", CASES)),
    "links": _table("a.json", LINKS, lambda folder: read_links(folder / "a.json")),
    "state of rounds": _table("state.json", FINISHED, read_state),
}


def _take_memory(folder: Path) -> None:
    if len((folder / "a").read_bytes()) < 2:
        np.ones(1 << 29)


def _crash(folder: Path) -> None:
    if len((folder / "a").read_bytes()) < 2:
        os.kill(os.getpid(), signal.SIGSEGV)


def _raise(folder: Path) -> None:
    _ = 1 // (len((folder / "a").read_bytes()) - 1)


FAILING = {
    f"test: {name}": _table("a", "good", reader, "text")
    for name, reader in (("raises", _raise), ("crashes", _crash), ("takes memory", _take_memory))
}
"""What fails, to see that failures are noticed."""
