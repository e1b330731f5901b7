"""A process in which torch and nnU-Net are imported already; forks of it are the commands that are killed.

Reads JSON lines, each a ``command`` (its words), ``environment``, ``folder`` to work in and ``log``; answers with the
number of the process, and with its exit status when it has ended. The process leads a group of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import torch
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_covid.cli import main
from nnunet_covid.files import write_json

IMPORTED = (
    "encodings.utf_8_sig",
    "nnunetv2.run.run_training",
    "nnunet_covid.cli.collaborative",
    "nnunet_covid.cli.convert",
    "nnunet_covid.cli.evaluation",
    "nnunet_covid.cli.pretrain",
    "nnunet_covid.cli.pseudo_label",
    "nnunet_covid.evaluation.plots",
    "nnunet_covid.pretraining.run",
    "nnunet_covid.semi_supervised.pseudo_label_run",
    "nnunet_covid.trainers.inf_net",
    "nnunetv2.training.nnUNetTrainer.primus.primus_trainers",
)


def run(task: dict[str, Any]) -> int:
    """The command, in this process; its exit status."""
    os.setsid()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    log = os.open(task["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    if task["user"] is not None:
        os.setgid(task["user"])
        os.setuid(task["user"])
    torch.set_num_threads(1)
    program, *arguments = task["command"]
    if program == "nnunet-covid":
        return main(arguments)
    sys.argv = [program, *arguments]
    try:
        return int(next(iter(entry_points(group="console_scripts", name=program))).load()() or 0)
    except SystemExit as e:
        return int(e.code or 0)


def no_validation(trainer: nnUNetTrainer, *_: object) -> None:
    """In the place of nnU-Net's own, which starts two pools of processes and is no part of what is tested here."""
    folder = Path(trainer.output_folder) / "validation"
    folder.mkdir(exist_ok=True)
    write_json(folder / "summary.json", {"foreground_mean": {"Dice": 0.0}})


def serve() -> None:
    """Answer lines until there are no more."""
    nnUNetTrainer.perform_actual_validation = no_validation  # type: ignore[method-assign]
    for module in IMPORTED:
        importlib.import_module(module)
    recursive_find_reader_writer_by_name("SimpleITKIO")
    recursive_find_trainer_class_by_name("nnUNetTrainer")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 70
            try:
                status = run(json.loads(line))
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(status, flush=True)
        if status < 0:
            with_children_gone(child)


def with_children_gone(group: int) -> None:
    """End what is left of the group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    serve()
