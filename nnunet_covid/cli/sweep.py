"""Trainers × folds × seeds × data sets in one command, on this machine or a SLURM cluster; the same command goes on.

nnunet-covid sweep FILE.toml                                     # two at once: --jobs 2; GPUs 0 and 1: --gpus 0 1
nnunet-covid sweep FILE.toml --executor slurm --partition gpu --minutes 1440
nnunet-covid sweep -d 501 -c 2d -tr nnUNetTrainer InfNetTrainer -f 0 1 --lengths 20epochs_50its --seeds 0
nnunet-covid sweep FILE.toml --status | --retry-failed | --cancel

Each run is nnUNetv2_train in a process of its own, continued with --c where a checkpoint lies and skipped where it is
finished. Planning and pre-processing that are missing come first. Two sweeps over the same nnUNet_results never train a
run twice. The file:

    datasets = [501]                        new_configurations.small = {inherits_from = "2d", spacing = [4, 4]}
    configurations = ["2d"]                 [slurm]
    trainers = ["nnUNetTrainer"]            partition = "gpu"
    folds = [0, 1, 2, 3, 4]                 minutes = 1440

The table of what is finished: nnunet-covid table FILE.toml
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunet_covid.cli.arguments import positive
from nnunet_covid.errors import UserError
from nnunet_covid.files import counted, environment_folder
from nnunet_covid.startup import VARIABLE, offer_trainers
from nnunet_covid.sweep.plan import NNUNET_DEVICES, Slurm, Sweep, make_sweep, read_sweep
from nnunet_covid.sweep.status import Places, Standing, status_table, survey

TABLE = """The scores of what is finished of a sweep, and each trainer's difference to a baseline on the same cases.

nnunet-covid table FILE.toml
nnunet-covid table FILE.toml --scores scores.csv -o FOLDER --baseline nnUNetTrainer

Mean ± standard deviation over the validation cases of all folds and seeds, paired difference in Dice with its 95 %
bootstrap interval (over cases, seeds averaged), seconds per step by nnU-Net's log (of an epoch, by its iterations), and
the largest memory of a process that a sweep ran. The Dice of a case with several classes is their mean. --scores keeps
a line per case and class, so that finished runs are scored once (again where they were trained anew), and rows of runs
that lie elsewhere are shown too. -o writes table.csv, table.md and differences.png.
"""
SLURM_FLAGS = ("minutes", "memory_gb", "cpus", "parallel", "partition", "account", "qos")


def add_what(parser: argparse.ArgumentParser) -> None:
    """The file, or flags that say the same."""
    add = parser.add_argument
    add("file", nargs="?", type=Path, metavar="FILE.toml", help="what to run; or the flags below")
    add("-d", dest="datasets", nargs="+", metavar="DATASET", help="ids or names")
    add("-c", dest="configurations", nargs="+", metavar="CONFIG", help="of the plans")
    add("-tr", dest="trainers", nargs="+", metavar="TRAINER", help="any that nnU-Net finds")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="default: 0 1 2 3 4")
    add("-p", dest="plans", metavar="PLANS", help="default: nnUNetPlans")
    add("--lengths", nargs="+", metavar="LENGTH", help="such as 30epochs or 20epochs_50its, with any trainer")
    add("--seeds", nargs="+", type=int, metavar="N", help="a run for each; default: one run without a seed")
    add("-device", "--device", choices=NNUNET_DEVICES, help="default: cuda, as of nnUNetv2_train")


def add_sweep_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid sweep``."""
    add_what(parser)
    add = parser.add_argument
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--status", action="store_true", help="show where each run stands, and end")
    instead.add_argument("--cancel", action="store_true", help="stop what is at work; the same sweep goes on later")
    instead.add_argument("--retry-failed", action="store_true", help="begin failed runs again, too")
    add("--executor", choices=("local", "slurm"), default="local", help="default: %(default)s")
    add("--jobs", type=positive, metavar="N", help="runs at once on this machine (default: 1)")
    text = "for CUDA_VISIBLE_DEVICES, shared out to the runs on this machine; default: all that are visible"
    add("--gpus", nargs="+", metavar="GPU", help=text)
    add("--only-prepare", action="store_true", help="plan and pre-process, no more")
    slurm = parser.add_argument_group("SLURM, instead of [slurm] of the file")
    for option in fields(Slurm):
        if option.name in SLURM_FLAGS:
            kind = type(option.default)
            flag, shown = f"--{option.name.replace('_', '-')}", option.default or "the site's"
            slurm.add_argument(flag, type=kind, metavar="X", help=f"default: {shown}")


def add_table_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid table``."""
    add_what(parser)
    add = parser.add_argument
    add("--scores", type=Path, metavar="FILE.csv", help="read and extended: a line per validation case")
    text = "in each length, or in the one it names, as nnUNetTrainer_80epochs (default: the file's, else nnUNetTrainer)"
    add("--baseline", metavar="TRAINER", help=text)
    add("-o", "--output", type=Path, metavar="FOLDER", help="for table.csv, table.md and differences.png")


def sweep(args: argparse.Namespace) -> int:
    """Run, or show, or stop."""
    _check_system()
    from nnunet_covid.sweep.claims import Queue
    from nnunet_covid.sweep.controller import Controller, LocalController, SlurmController, cancel, visible_gpus

    _check_executor(args)
    described, places = _described(args), _places()
    if args.only_prepare:
        described = replace(described, runs=tuple(run for run in described.runs if run.kind == "prepare"))
    if args.status:
        print(status_table(survey(described, places, Queue()), places.results))
        return 0
    if args.cancel:
        stopped, told = cancel(Controller(described, places))
        if stopped or not told:
            print(f"stopped: {counted(len(stopped), 'run')}" if stopped else "nothing was at work")
        if told:
            print(f"end within a minute, not begun or not within reach (see --status): {counted(len(told), 'run')}")
        return 0
    _check_runnable(described, places)
    if args.executor == "slurm":
        given = {name: value for name in SLURM_FLAGS if (value := getattr(args, name)) is not None}
        described = replace(described, slurm=replace(described.slurm, **given))
        standings = SlurmController(described, places).run(retry_failed=args.retry_failed)
    else:
        gpus = args.gpus or visible_gpus()
        if not gpus:
            _check_no_gpu_is_wanted(survey(described, places, Queue()))
        local = LocalController(described, places, jobs=args.jobs or 1, gpus=gpus)
        standings = local.run(retry_failed=args.retry_failed)
    print(status_table(standings, places.results))
    return int(args.executor == "local" and any(one.state != "done" for one in standings))


def table(args: argparse.Namespace) -> None:
    """Score what is finished and print the table."""
    _check_system()
    from nnunet_covid.sweep.scores import ALL, scored_rows
    from nnunet_covid.sweep.table import summarised, terminal, write_table

    described, places = _described(args), _places()
    rows = scored_rows(described, places, args.scores, partial(print, file=sys.stderr))
    if any(run.fold == ALL for run in described.runs):
        print("fold all: left out, since what it is validated on it was trained on", file=sys.stderr)
    if not rows:
        raise UserError("no run of this sweep is finished yet; see its --status, and notes above on what is left out")
    lines = summarised(described, places, rows, args.baseline or described.baseline)
    print(terminal(lines))
    if args.output is not None:
        written = write_table(lines, args.output)
        print("written: " + ", ".join(str(path) for path in written))


def _check_system() -> None:
    if find_spec("fcntl") is None:
        raise UserError("sweeps and their tables need file locks of Linux or macOS; on Windows use them in WSL")


def _described(args: argparse.Namespace) -> Sweep:
    """The sweep of the file or of the flags."""
    names = ("datasets", "configurations", "trainers", "folds", "plans", "lengths", "seeds", "device")
    flags: dict[str, Any] = {name: value for name in names if (value := getattr(args, name)) is not None}
    if args.file is not None:
        over = sorted(set(flags) - {"device"})
        if over:
            raise UserError(f"the file says it already: leave out the flags for {', '.join(over)}, or the file")
        found = make_sweep(args.file.name, {**read_sweep(args.file), **flags})
        return replace(found, place=str(args.file.resolve()))
    if not flags:
        raise UserError("nothing to run: name a sweep file, or -d, -c and -tr")
    if "folds" in flags:
        flags["folds"] = [int(fold) if fold.isdecimal() else fold for fold in flags["folds"]]
    return make_sweep("the flags", flags)


def _places() -> Places:
    folders = {}
    for name in ("nnUNet_results", "nnUNet_preprocessed"):
        folder = environment_folder(name)
        if folder is None:
            raise UserError(f"{name} is not set: export nnU-Net's three folders first; see nnunet-covid doctor")
        folders[name] = folder.absolute()
    return Places(folders["nnUNet_results"], folders["nnUNet_preprocessed"])


def _check_executor(args: argparse.Namespace) -> None:
    """Flags that the executor would not see."""
    others = ("jobs", "gpus") if args.executor == "slurm" else SLURM_FLAGS
    if given := [f"--{name.replace('_', '-')}" for name in others if getattr(args, name) is not None]:
        remedy = "leave it out" if args.executor == "slurm" else "add --executor slurm, or leave it out"
        raise UserError(f"{given[0]} says nothing to the executor {args.executor}: {remedy}")


def _check_runnable(described: Sweep, places: Places) -> None:
    """Before anything is handed over: are images, start weights and configurations there, and every trainer?"""
    for run in described.runs:
        if run.kind == "prepare":
            run.preparation.check_configurations(places.preprocessed)
        if run.images and not Path(run.images).is_dir():
            raise UserError(f"{described.name}: images {run.images}: there is no such folder")
        if run.starts_from_file and not Path(run.start).is_file():
            raise UserError(f"{described.name}: pretrained {run.start}: there is no such file")
        if run.starts_from_file:
            from nnunet_covid.nnunet.known_images import require_unseen  # imports torch

            require_unseen(Path(run.start), run.dataset, run.fold, f"{described.name}: pretrained")
    from nnunet_covid.nnunet.trainer_names import SUFFIXES, TRAINERS, no_such_trainer

    offer_trainers()
    matches = {run.trainer: SUFFIXES.match(run.trainer) for run in described.runs if run.trainer}
    bases = {name: match["base"] for name, match in matches.items() if match}
    for name in (name for name, base in bases.items() if base not in TRAINERS and not _stands_written(base)):
        from nnunet_covid.trainers.on_demand import found_by_nnunet  # takes seconds

        if found_by_nnunet(name) is None:
            raise no_such_trainer(name)


def _check_no_gpu_is_wanted(standings: Sequence[Standing]) -> None:
    waiting = [one.run for one in standings if one.state == "waiting" and one.run.kind != "prepare"]
    if any(run.device == "cuda" for run in waiting):
        raise UserError('no GPU is seen here: give -device cpu (in a file: device = "cpu"), or name GPUs with --gpus')


def _stands_written(trainer: str) -> bool:
    """Whether a class of this name stands where nnU-Net looks; to import all of these files takes seconds."""
    spec = find_spec("nnunetv2")
    own = [
        Path(place, "training", "nnUNetTrainer") for place in (spec.submodule_search_locations or [] if spec else [])
    ]
    folders = [*own, *(Path(part) for part in os.environ.get(VARIABLE, "").split(os.pathsep) if part)]
    files = (path for folder in folders for path in folder.rglob("*.py"))
    return any(f"class {trainer}(" in path.read_text(encoding="utf-8", errors="ignore") for path in files)
