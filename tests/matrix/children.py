"""What processes of their own do: a training that is killed, and one of two that train together on the CPU."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from two_processes import without_gpu


def begin(environment: Mapping[str, str], log: Path) -> None:
    """Work on the folders of the environment, and print to a file."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    multiprocessing.cpu_count = lambda: 1
    forked = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forked  # what exports predictions has no thread to lose
    sys.stdout = sys.stderr = log.open("a")


def train_until_killed(environment: Mapping[str, str], log: Path, arguments: list[str], epoch: int) -> None:
    """``nnUNetv2_train``, killed without warning when an epoch has begun."""
    from nnunetv2.run.run_training import run_training_entry
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    begin(environment, log)
    start = nnUNetTrainer.on_train_epoch_start

    def die_at_once(self: Any) -> None:
        start(self)
        if self.current_epoch == epoch:
            os.kill(os.getpid(), signal.SIGKILL)

    nnUNetTrainer.on_train_epoch_start = die_at_once
    sys.argv = ["nnUNetv2_train", *arguments]
    run_training_entry()


def train_as_one_of_two(
    rank: int, environment: Mapping[str, str], log: Path, meeting: Path, dataset: str, fold: int, trainer: str
) -> None:
    """What ``nnUNetv2_train … -num_gpus 2`` does in each of its processes, with gloo on the CPU for NCCL on a GPU."""
    from nnunetv2.run import run_training

    begin(environment, log)
    without_gpu()

    def meet(rank: int, world_size: int) -> None:
        distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)

    run_training.setup_ddp = meet
    plans, nothing = "nnUNetPlans", None
    run_training.run_ddp(rank, dataset, "2d", fold, trainer, plans, False, False, False, nothing, False, False, 2)
