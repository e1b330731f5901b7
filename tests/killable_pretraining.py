"""A pre-training in a process of its own that kills itself without warning."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from nnunet_covid import cli
from nnunet_covid.pretraining import steps


def killed_at(environment: dict[str, str], log: Path, command: list[str], step: int, between_saves: int) -> None:
    """What the process does; it should not come to its end."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    steps.STEPS_BETWEEN_SAVES = between_saves
    do_step = steps.Pretraining.step

    def step_or_die(self: steps.Pretraining, *arguments: torch.Tensor) -> torch.Tensor:
        if self.done == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return do_step(self, *arguments)

    steps.Pretraining.step = step_or_die  # type: ignore[method-assign]
    with log.open("a") as stream:
        sys.stdout = sys.stderr = stream
        cli.main(command)
