"""nnU-Net's commands in this process, on three folders of their own: the entry points of the console scripts, quickly.

What is saved is the start of Python and of nnU-Net: its pools of processes are forked from a server that has imported
everything once (nnU-Net starts them anew each time), and pictures of progress are small. All else is nnU-Net's own.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any
from unittest import mock

from workspace import Workspace

from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE

PRELOADED = [
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
    "nnunet_covid.trainers.on_demand",
    *(f"nnunet_covid.trainers.{name}" for name in ("inf_net_timm", "unet_timm", "ssa_net", "collaborative")),
]
STAND_IN = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
get_context = multiprocessing.get_context


def quick_context(method: str | None = None) -> Any:
    """The context asked for, with processes that are quick to start where new ones were asked for."""
    if method == "spawn" and STAND_IN == "forkserver":
        multiprocessing.set_forkserver_preload(PRELOADED)
        return get_context(STAND_IN)
    return get_context(method)


def one_process(processes: int) -> Any:
    """nnU-Net lists a folder in twelve."""
    return multiprocessing.Pool(1)


@dataclass(frozen=True)
class World(Workspace):
    """nnU-Net's three folders, made."""

    def __post_init__(self) -> None:
        for folder in (self.raw, self.preprocessed, self.results):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        folders = {f"nnUNet_{name}": str(getattr(self, name)) for name in ("raw", "preprocessed", "results")}
        return {**folders, "nnUNet_n_proc_DA": "0", VARIABLE: str(TRAINERS_FOLDER)}

    @contextlib.contextmanager
    def entered(self, folders_known: bool, variables: dict[str, str]) -> Iterator[None]:
        """This process works on these folders, or knows of none."""
        import matplotlib

        environment = {name: value for name, value in self.environment.items() if folders_known or name == VARIABLE}
        with (
            mock.patch.dict(os.environ, {**environment, **variables}),
            mock.patch.object(multiprocessing, "get_context", quick_context),
            mock.patch.object(multiprocessing, "cpu_count", return_value=1),  # what nnU-Net sets torch's threads to
            mock.patch("nnunetv2.utilities.utils.Pool", one_process),
            matplotlib.rc_context({"savefig.dpi": 10}),
        ):
            yield

    def call(
        self, command: str, *arguments: object, status: int = 0, folders_known: bool = True, **variables: str
    ) -> str:
        """What a console command prints; an exception of the command goes on, an exit status is compared."""
        (script,) = entry_points(group="console_scripts", name=command)
        printed = io.StringIO()
        with (
            self.entered(folders_known, variables),
            mock.patch.object(sys, "argv", [command, *map(str, arguments)]),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
        ):
            try:
                found = script.load()() or 0
            except SystemExit as e:
                found = e.code or 0
        assert found == status, f"{command} ended with {found}:\n{printed.getvalue()[-4000:]}"
        return printed.getvalue()
