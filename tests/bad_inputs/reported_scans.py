"""``report``: scans that cannot be reported on, and what else the command is given; ``profile`` and ``serve``.

Every scan of :data:`SCANS` is tried alone here, and as one of a batch in ``tests/report/test_refused_scans.py``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import odd_volumes
import planned
from dicom_files import CORONAL, at, ct_slice, enhanced, multi_frame, structure_set, write, write_series
from image_files import blob, hounsfield, write_volume
from model_folders import complete_plans, write_model
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from bad_inputs.ingredients import Make, several, spoilt
from bad_inputs.registry import BadInput, Kind

VOLUME = hounsfield((6, 24, 24), 0)
TILTED = [1, 0, 0, 0, float(np.cos(0.3)), float(-np.sin(0.3))]
MODEL = "nnUNetTrainer__testPlans__2d"
REPORT = f"nnunet-covid report scan -m {MODEL} -o out -device cpu --disable_tta"
SERVE = f"nnunet-covid serve {MODEL} --folder inbox --accept CT1 -device cpu"
PROFILE_FILE = f"{MODEL}/nnunet_covid_profile.json"
LATER = json.dumps({"schema": "nnunet_covid.report", "schema_version": 99})
PROFILE = f"nnunet-covid profile {MODEL} -device cpu"


def model(folder: Path, channels: int = 1, name: str = "infection") -> None:
    """A model of slices of volumes."""
    dataset = planned.dataset_json(
        {"background": 0, name: 1},
        file_ending=".nii.gz",
        channel_names={str(number): f"c{number}" for number in range(channels)},
    )
    plans = complete_plans(dataset, patch=[32, 32], stages=3) | {"image_reader_writer": "SimpleITKIO"}
    write_model(folder / MODEL, plans, dataset)


def series(folder: Path) -> None:
    """``scan``: an axial CT series of six slices."""
    write_series(folder / "scan", VOLUME)


def one_file(made: Callable[[NDArray[Any]], Dataset]) -> Make:
    """The series as one file with all its frames."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder / "scan")
        write(made(VOLUME), folder / "scan/all.dcm")

    return make


def unplaced(volume: NDArray[Any]) -> Dataset:
    return multi_frame(volume, ImagePositionPatient=None, ImageOrientationPatient=None)


def enhanced_slices(folder: Path) -> None:
    shutil.rmtree(folder / "scan")
    for number, pixels in enumerate(VOLUME):
        ds = enhanced(pixels[None], [at(number)])
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = f"1.2.3.{number + 1}"
        write(ds, folder / f"scan/{number:03d}.dcm")


def gap(folder: Path) -> None:
    (folder / "scan/003.dcm").unlink()


def doubled(folder: Path) -> None:
    write(ct_slice(VOLUME[2], 2), folder / "scan/again.dcm")


def slices(**elements: Any) -> Make:
    """Every slice with these elements."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder / "scan")
        write_series(folder / "scan", VOLUME, **elements)

    return make


def mixed(folder: Path) -> None:
    write(ct_slice(VOLUME[5], 5, ImageOrientationPatient=list(CORONAL)), folder / "scan/005.dcm")


def last_is_cut(folder: Path) -> None:
    path = folder / "scan/005.dcm"
    path.write_bytes(path.read_bytes()[:300])


def objects_alone(folder: Path) -> None:
    shutil.rmtree(folder / "scan")
    write(structure_set("SR"), folder / "scan/report.dcm")


def nothing(folder: Path) -> None:
    shutil.rmtree(folder / "scan")
    (folder / "scan").mkdir()
    (folder / "scan/notes.txt").write_text("to be scanned again")


def two_slices(folder: Path) -> None:
    for number in range(2, 6):
        (folder / f"scan/{number:03d}.dcm").unlink()


def volume(array: Any) -> Make:
    """``scan.nii.gz``."""

    def make(folder: Path) -> None:
        write_volume(folder / "scan.nii.gz", array)

    return make


def cut_volume(folder: Path) -> None:
    volume(VOLUME)(folder)
    path = folder / "scan.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])


def no_sides(folder: Path) -> None:
    odd_volumes.nifti(folder / "scan.nii", VOLUME, qform_code=0, sform_code=0)
    (folder / "scan.nii").rename(folder / "scan.nii.gz")


def not_finite() -> Any:
    array = VOLUME.astype(np.float32)
    array[1, 2, 3] = np.nan
    return array


def written(name: str, text: str) -> Make:
    def make(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)

    return make


def other_grid(folder: Path) -> None:
    write_volume(folder / "mask.nii.gz", blob((5, 24, 24), 0))


def lobes_of_seven(folder: Path) -> None:
    write_volume(folder / "lobes.nii.gz", blob(VOLUME.shape, 0, 7), spacing=(0.8, 0.7, 2.5), origin=(-10, 20, -30))


def scan_as_volume(folder: Path) -> None:
    write_volume(folder / "scan.nii.gz", VOLUME)


def two_scans(folder: Path) -> None:
    shutil.rmtree(folder / "scan")
    for number, name in enumerate("ab"):
        write_series(folder / f"scan/{name}", VOLUME, series=f"1.2.{number}", StudyInstanceUID=f"1.9.{number}")


def no_model(folder: Path) -> None:
    shutil.rmtree(folder / MODEL)


def two_channels(folder: Path) -> None:
    shutil.rmtree(folder / MODEL)
    model(folder, channels=2)


def liver(folder: Path) -> None:
    shutil.rmtree(folder / MODEL)
    model(folder, name="liver")


def raw_data(cases: int) -> Make:
    """Training images of the model."""

    def make(folder: Path) -> None:
        raw = folder / "nnUNet_raw/Dataset999_Test"
        for number in range(cases):
            write_volume(raw / f"imagesTr/c{number}_0000.nii.gz", VOLUME)
            write_volume(raw / f"labelsTr/c{number}.nii.gz", blob(VOLUME.shape, number))
        shutil.copy(folder / MODEL / "dataset.json", raw)

    return make


def same(folder: Path) -> None:
    """Nothing is spoilt: the options are wrong."""


def scan(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    """A series that cannot be reported on."""
    return BadInput(f"report_{name}", kind, situation, REPORT, spoilt(several(model, series), spoil), says)


def file(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    """A volume file that cannot be reported on."""
    command = REPORT.replace("scan", "scan.nii.gz")
    return BadInput(f"report_{name}", kind, situation, command, spoilt(model, spoil), ("scan.nii.gz", *says))


def given(name: str, kind: Kind, situation: str, spoil: Make, options: str, *says: str) -> BadInput:
    """Something beside the scan that is wrong."""
    good = several(model, series)
    return BadInput(f"report_{name}", kind, situation, f"{REPORT} {options}".strip(), spoilt(good, spoil), says)


def of_profile(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    return BadInput(f"profile_{name}", kind, situation, PROFILE, spoilt(model, spoil), says)


def of_service(name: str, kind: Kind, situation: str, options: str, *says: str, spoil: Make = same) -> BadInput:
    return BadInput(f"serve_{name}", kind, situation, f"{SERVE} {options}".strip(), spoilt(model, spoil), says)


GAP = ("scan: slices are missing or unevenly spaced", "between 002.dcm and 004.dcm", "download the whole series")
TWICE = ("scan: 1 slices lie where another one does: 002.dcm and again.dcm", "leave one of each")
UNLIKE = ("scan/005.dcm: lies along", "5 others along", "export the series again")
SCALE = ("scan: has no scale to Hounsfield units (RescaleIntercept, RescaleSlope)", "export it with these")
NO_CT = "scan holds no axial CT series"
NO_IMAGE = "scan holds no DICOM image"

SCANS = [
    scan("gap", Kind.DAMAGED, "a series that lacks a slice", gap, *GAP),
    scan("doubled", Kind.DAMAGED, "a series with a slice that is there twice", doubled, *TWICE),
    scan(
        "tilted", Kind.UNITS, "a tilted gantry", slices(ImageOrientationPatient=TILTED), "scan: the gantry was tilted"
    ),
    scan("mixed", Kind.UNITS, "a coronal slice among the axial ones", mixed, *UNLIKE),
    scan("no_rescale", Kind.UNITS, "no rescale values", slices(RescaleSlope=None, RescaleIntercept=None), *SCALE),
    scan("modality", Kind.UNUSED, "another modality", slices(Modality="MR"), NO_CT, "modality MR, not CT"),
    scan("localizer", Kind.UNUSED, "localizers alone", slices(ImageType=["LOCALIZER"]), NO_CT, "a localizer"),
    scan("coronal", Kind.UNUSED, "a coronal series", slices(ImageOrientationPatient=list(CORONAL)), NO_CT, "not axial"),
    scan(
        "old_frames",
        Kind.UNITS,
        "frames of one file that do not say where they lie",
        one_file(multi_frame),
        NO_CT,
        "right and left would be guesses",
        "export one file per slice",
    ),
    scan(
        "unplaced_frames",
        Kind.UNITS,
        "frames of one file without an orientation",
        one_file(unplaced),
        NO_CT,
        "right and left would be guesses",
    ),
    scan(
        "enhanced_slices",
        Kind.DAMAGED,
        "Enhanced CT in one file a frame",
        enhanced_slices,
        "no DICOM objects can be made",
        "Enhanced CT with a file for each frame",
        "convert it to NIfTI",
    ),
    scan("few", Kind.UNUSED, "a series of two slices", two_slices, NO_CT, "only 2 slices"),
    scan("last_cut", Kind.DAMAGED, "a last slice that was cut", last_is_cut, "scan/005.dcm: is a damaged", "download"),
    scan("objects", Kind.UNUSED, "DICOM objects without an image", objects_alone, NO_IMAGE, "report.dcm is a report"),
    scan("nothing", Kind.UNUSED, "a folder without images", nothing, NO_IMAGE, "notes.txt is no DICOM file"),
    file("grey", Kind.UNITS, "grey values, not Hounsfield units", volume(np.abs(VOLUME) % 255), "no Hounsfield units"),
    file("not_finite", Kind.DAMAGED, "a voxel that is no number", volume(not_finite()), "finite", "replace them"),
    file("flat", Kind.UNITS, "a single slice as a volume file", volume(VOLUME[:1]), "is flat", "needs a volume"),
    file(
        "sides",
        Kind.UNITS,
        "a volume file whose header gives no orientation",
        no_sides,
        "does not say where left and right are (qform_code and sform_code are 0)",
        "write its orientation into the header, or save it again from its source",
    ),
    file("cut", Kind.DAMAGED, "a volume file cut short", cut_volume, "cut short or damaged; copy it again"),
]

BAD_INPUTS = [
    *SCANS,
    given("no_scan", Kind.PLACES, "a scan that is not there", same, "scan2", "unrecognized arguments: scan2"),
    given("no_series", Kind.OPTIONS, "a series that is not there", same, "--series 1.9", "no series 1.9", "1.2.3"),
    given("unfit_series", Kind.OPTIONS, "a series that is no CT", slices(Modality="MR"), "--series 1.2.3", "not CT"),
    given("there_already", Kind.PLACES, "an output that is there", written("out/a", ""), "", "out exists already"),
    given("two_channels", Kind.UNSUPPORTED, "a model of two channels", two_channels, "", "2 channels", "one channel"),
    given("no_class", Kind.OPTIONS, "a misspelt class", same, "--classes infektion", "no class 'infektion'",
          "did you mean infection? (--classes)"),
    given("no_lesion", Kind.LABELS, "a model that finds organs alone", liver, "", "no class of infection, it has liver",
          "(--classes)"),
    given("no_fold", Kind.OPTIONS, "a fold that was not trained", same, "-f 3", "no fold 3", "there are 0"),
    given("previous", Kind.PLACES, "an earlier report that is not there", same, "--previous old", "old does not exist"),
    given("previous_other", Kind.STALE, "another file as the earlier report", written("old.json", "{}"),
          "--previous old.json", "old.json is no report"),
    given("previous_later", Kind.STALE, "an earlier report of a later version", written("old/report.json", LATER),
          "--previous old", "old/report.json has schema version 99", "make the report anew"),
    given("previous_cut", Kind.DAMAGED, "an earlier report cut short", written("old/report.json", '{"schema": '),
          "--previous old", "old/report.json cannot be read"),
    given("previous_empty", Kind.UNUSED, "an earlier scan without images", written("old/notes.txt", "none"),
          "--previous old", "old holds no DICOM image"),
    given("lungs_grid", Kind.UNITS, "a lung mask of another grid", other_grid, "--lungs mask.nii.gz", "lung mask has"),
    given("lobes_grid", Kind.UNITS, "a lobe map of another grid", other_grid, "--lobes mask.nii.gz", "lobe map has"),
    given("lungs_missing", Kind.PLACES, "a lung mask that is not there", same, "--lungs no.nii.gz",
          "no.nii.gz does not exist"),
    given("lungs_values", Kind.LABELS, "the scan as its own lung mask", scan_as_volume, "--lungs scan.nii.gz",
          "lung mask holds", "name that, not the scan"),
    given("lobes_values", Kind.LABELS, "a lung mask as the lobe map", lobes_of_seven, "--lobes lobes.nii.gz",
          "lobe map holds 0, 7", "1 left upper lobe"),
    given("key_missing", Kind.PLACES, "a key that is not there", same, "--pseudonymise key", "key cannot be read",
          "openssl rand -hex 32 > key"),
    given("key_short", Kind.OPTIONS, "a key of three letters", written("key", "abc"), "--pseudonymise key",
          "3 bytes, at least 16", "openssl"),
    given("named_and_not", Kind.OPTIONS, "names asked for and replaced", written("key", "x" * 32),
          "--pseudonymise key --identify", "not allowed with"),
    BadInput("report_packed", Kind.UNUSED, "a scan that is still packed", REPORT.replace("scan", "scan.zip"),
             spoilt(model, written("scan.zip", "PK")), ("scan.zip is packed; unpack it",)),
    given("study_missing", Kind.DAMAGED, "a series without its study's UID", slices(StudyInstanceUID=None), "",
          "StudyInstanceUID is missing", "export it again"),
    given("previous_of_many", Kind.OPTIONS, "an earlier report of several scans", two_scans, "--previous old",
          "scan holds 2 scans", "belong to one"),
    given("profile_damaged", Kind.DAMAGED, "a damaged profile", written(PROFILE_FILE, "{"), "",
          PROFILE_FILE, "make the profile anew"),
    of_profile("no_data", Kind.PLACES, "a model without its data set", same, "needed for its profile", "nnUNet_raw"),
    of_profile("no_lesion", Kind.LABELS, "a model that finds organs alone", liver, "no class of infection"),
    of_profile("few", Kind.UNUSED, "a data set of two cases", raw_data(2), "at least 5 training images, there are 2"),
    BadInput("profile_none", Kind.OPTIONS, "a profile of no image", f"{PROFILE} -n 0", model,
             ("at least 5 training images, not 0", "--images")),
    *[
        given(f"foreign_{name.partition('.')[0]}", Kind.PLACES, f"a batch beside a {name} of somebody else's",
              several(two_scans, written(f"out/{name}", content)), "",
              f"out/{name} is not of a batch of reports", "name another output")
        for name, content in [("reports.csv", "name,age\n"), ("index.html", "<title>My pages</title>")]
    ],
    BadInput("report_into_itself", Kind.PLACES, "reports into the folder of their scans",
             REPORT.replace("-o out", "-o scan"), spoilt(several(model, series), two_scans),
             ("scan lies in scan, where reports count as scans", "name a folder beside it")),
    of_service("title", Kind.OPTIONS, "a title of 17 letters", f"--aet {'A' * 17}", "no application entity title"),
    of_service("no_lesion", Kind.LABELS, "a model that finds organs alone", "", "no class of infection", spoil=liver),
    of_service("to", Kind.OPTIONS, "an archive without its title", "--to 127.0.0.1:4242", "HOST:PORT:AET"),
    of_service("port", Kind.OPTIONS, "a port beyond the last", "--port 70000", "70000"),
    of_service("key", Kind.PLACES, "a key that is not there", "--pseudonymise key", "openssl rand"),
    of_service("quiet", Kind.OPTIONS, "a negative quiet time", "--quiet -1", "quiet"),
    of_service("quiet_for_ever", Kind.OPTIONS, "a quiet time without end", "--quiet inf", "no finite number (--quiet)"),
    of_service("most", Kind.OPTIONS, "a word for the most that is kept", "--most nan", "no finite number (--most)"),
    of_service("no_model", Kind.PLACES, "a model that is not there", "", "no folder", spoil=no_model),
    of_service("folder", Kind.PLACES, "a file in place of the folder", "", "inbox", spoil=written("inbox", "")),
]  # fmt: skip
