"""The command ``predict`` in a process of its own, which may be killed at any moment or find its disk full."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from pathlib import Path

from nnunet_covid.cli import main

IMPORTED_ONCE = [
    "nnunet_covid.prediction.folder",
    "nnunet_covid.prediction.model_source",
    "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    "nnunetv2.training.nnUNetTrainer.primus.primus_trainers",
    "dynamic_network_architectures.architectures.unet",
]
"""By the server that forks the processes, so that each of them begins to work at once."""


def start(arguments: list[str], log: Path, largest_file: int | None = None) -> multiprocessing.process.BaseProcess:
    """Run ``nnunet-covid`` with these arguments; its exit status is the process's.

    Args:
        arguments: Of the command line.
        log: Receives what it prints.
        largest_file: Bytes beyond which no file can grow, so that writing fails as on a full disk.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    process = context.Process(target=_run, args=(arguments, log, largest_file), daemon=True)
    process.start()
    return process


def _run(arguments: list[str], log: Path, largest_file: int | None) -> None:
    stream = log.open("a")
    sys.stdout = sys.stderr = stream
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    status = main(arguments)
    stream.flush()
    os._exit(status)
