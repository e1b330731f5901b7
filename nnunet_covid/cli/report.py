"""The commands that turn a CT into a report, and that tell what is usual for a model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import SimpleITK as sitk
from tqdm import tqdm

from nnunet_covid.cli.arguments import add_checkpoint, add_device, add_model_use, model_use, refuse_among_inputs
from nnunet_covid.errors import UserError
from nnunet_covid.files import counted, writable_folder
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.model_source import model_folder
from nnunet_covid.raw_dataset.volumes import read_volume
from nnunet_covid.report.assemble import PAGE, Extras, made_of, report_scan
from nnunet_covid.report.batch import is_finished, report_batch, require_own_table, scans_of
from nnunet_covid.report.confidence import FEWEST_CASES, Profile, read_profile
from nnunet_covid.report.model import ReportModel
from nnunet_covid.report.pseudonyms import Pseudonymiser
from nnunet_covid.report.scans import Scan, read_scan, report_or_scan
from nnunet_covid.report.training_profile import profile_training_images

REPORT = """\
Report on a CT: millilitres, per cent of the lungs, severity, pictures, and the change since an earlier report.

SCAN is a DICOM folder (the axial CT series with the most slices is taken, original before derived), a NIfTI, NRRD or
MetaImage volume in Hounsfield units, or a folder of several scans. MODEL is any nnU-Net model folder with one channel.

  nnunet-covid report scan/ -m nnUNet_results/Dataset505_COVID19CTSeg/InfNetTrainer__nnUNetPlans__2d -o report
  nnunet-covid report next/ -m ... -o report2 --previous report
  nnunet-covid report next/ -m ... -o report2 --previous scan/

OUT gets report.json, report.html, the label map and the lung mask; from a DICOM series also a segmentation, a
measurement report and key slices as DICOM objects. For a folder of scans there is a folder for each, reports.csv and
index.html, the least certain first; scans that cannot be used are listed and the exit status is 1. A stopped run goes
on where it was.
Not a medical device.
"""
MODEL = "model folder TRAINER__PLANS__CONFIGURATION, or a zip file of nnUNetv2_export_model_to_zip"
PROFILE = """\
Tell what is usual for a model's training images, so that reports can say which scans lie far from them.

Needs the raw data set. Writes nnunet_covid_profile.json into the model's folder; do it once for each model.
"""


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid report``."""
    add = parser.add_argument
    add("scan", type=Path, metavar="SCAN", help="DICOM folder, volume, or folder of several of them")
    add("-m", "--model", type=Path, required=True, metavar="MODEL", help=MODEL)
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="new folder for the report or reports")
    text = "Series Instance UID (default: the axial CT series with the most slices, original before derived)"
    add("--series", metavar="UID", help=text)
    text = "earlier report of the same patient, or an earlier scan, which is reported on first, into OUT/previous"
    add("--previous", type=Path, metavar="REPORT|SCAN", help=text)
    add("--lungs", type=Path, metavar="FILE", help="lung mask on the scan's grid (default: segment them)")
    add("--lobes", type=Path, metavar="FILE", help="lobe map of lungmask (LTRCLobes) on the scan's grid")
    text = "file with a secret; replaces identifiers by keyed digests in every output"
    named = parser.add_mutually_exclusive_group()
    named.add_argument("--pseudonymise", type=Path, metavar="KEYFILE", help=text)
    text = "name the patient in report.html and report.json, too (default: in the DICOM objects alone)"
    named.add_argument("--identify", action="store_true", help=text)
    add_classes(parser)
    add_model_use(parser)


def add_classes(parser: argparse.ArgumentParser) -> None:
    """``--classes``, as report, serve and profile take it."""
    text = "classes that count as infection, as dataset.json names them (default: all but lungs and other organs)"
    parser.add_argument("--classes", nargs="+", metavar="NAME", help=text)


def report(args: argparse.Namespace) -> int:
    """Report on one scan or on each of a folder."""
    if not args.scan.exists():
        raise UserError(f"{args.scan} does not exist; name a CT volume or a DICOM folder")
    scans = scans_of(args.scan) if args.scan.is_dir() and args.series is None else [args.scan]
    alone = scans == [args.scan]
    if not alone and (args.previous or args.lungs or args.lobes):
        raise UserError(f"{args.scan} holds {len(scans)} scans; --previous, --lungs and --lobes belong to one")
    inside = args.scan.resolve() in (args.output.resolve(), *args.output.resolve().parents)
    if inside and not alone:
        raise UserError(f"{args.output} lies in {args.scan}, where reports count as scans; name a folder beside it")
    refuse_among_inputs(args.output, "reports", args.scan)
    if alone and args.output.exists():
        raise UserError(f"{args.output} exists already; name a new folder or delete it")
    if not alone:
        require_own_table(args.output)
    pseudonyms = Pseudonymiser.of_file(args.pseudonymise) if args.pseudonymise else None
    scan = read_scan(args.scan, args.series) if alone else None
    previous = report_or_scan(args.previous) if args.previous else None
    tell = partial(tqdm.write, file=sys.stderr)
    for read in (scan, previous):
        if isinstance(read, Scan):
            _tell_choice(read, tell)
    model, profile = open_model(args)
    extras = Extras(_volume(args.lungs), _volume(args.lobes), previous, profile, pseudonyms, args.identify)
    bar = partial(tqdm, desc="label", unit="group", leave=False, disable=None)
    if scan is not None:
        document = report_scan(scan, model, args.output, extras=extras, progress=bar)
        for flag in (flag for flag in document.flags if flag.raised):
            print(
                f"note: {flag.sentence} ({flag.value:.3g} {flag.unit}, threshold {flag.threshold:.3g})", file=sys.stderr
            )
        print(f"{args.output / PAGE}: {document.quantities['infection_ml']:.1f} ml of infection")
        return 0
    writable_folder(args.output)

    def one(source: Path, folder: Path) -> None:
        digest = made_of(source, model, extras)
        if not is_finished(folder, digest):
            read = read_scan(source)
            _tell_choice(read, tell)
            report_scan(read, model, folder, extras=replace(extras, made_of=digest), progress=bar)

    shown = partial(tqdm, desc="reports", unit="scan", disable=None)
    name_of = (lambda source: pseudonyms.name(source.name)) if pseudonyms else None
    rows = report_batch(scans, args.output, one, tell, name_of, shown)
    refused = [row for row in rows if row.status == "refused"]
    print(
        f"{args.output}: {counted(len(rows) - len(refused), 'report')}, {len(refused)} refused; "
        f"see {args.output / 'index.html'}"
    )
    return 1 if refused else 0


def _tell_choice(scan: Scan, tell: Callable[[str], None]) -> None:
    """Say which series of a folder is reported on, where there are others."""
    for note in scan.facts.notes if len(scan.facts.notes) > 1 else ():
        tell(f"note: {scan.facts.name}: {note}")


def open_model(args: argparse.Namespace) -> tuple[ReportModel, Profile | None]:
    """The model that the arguments name, and its profile."""
    with model_folder(args.model, args.checkpoint) as folder:
        trained = TrainedModel(folder, **model_use(args), mirroring=not args.disable_tta)
        model = ReportModel(trained, args.classes)
        profile = read_profile(folder, model.facts.digest)
    if profile is not None and model.turned is None:
        model.orientation = profile.orientation
    for note in model.notes:
        print(f"note: {note}", file=sys.stderr)
    return model, profile


def _volume(path: Path | None) -> sitk.Image | None:
    if path is not None and not path.is_file():
        raise UserError(f"{path} does not exist; name a volume file")
    return None if path is None else read_volume(path)


def add_profile_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid profile``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help="TRAINER__PLANS__CONFIGURATION")
    add("-n", "--images", type=int, default=30, metavar="N", help="training images to look at (default: %(default)s)")
    add("-f", "--folds", nargs="+", metavar="FOLD", help="as for the reports (default: all trained)")
    add_classes(parser)
    add_checkpoint(parser)
    add_device(parser)
    add("--disable_tta", action="store_true", help="if the reports will predict without mirroring")


def profile(args: argparse.Namespace) -> None:
    """Make and write the profile."""
    if args.images < FEWEST_CASES:
        raise UserError(f"a profile needs at least {FEWEST_CASES} training images, not {args.images}", about="images")
    use = {"folds": args.folds, "checkpoint": args.checkpoint, "device": args.device}
    model = ReportModel(TrainedModel(args.model, **use, mirroring=not args.disable_tta), args.classes)
    made = profile_training_images(model, args.images, partial(tqdm, desc="profile", unit="image", disable=None))
    print(f"{made.write(args.model)}: {made.cases} training images")
