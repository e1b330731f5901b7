"""nnU-Net's three folders in one place, and the real commands to work on them."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE, console_command


@dataclass(frozen=True)
class Workspace:
    """nnU-Net's three folders and the environment that names them."""

    root: Path

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def run(self, command: str, *arguments: object, status: int = 0, cwd: Path | None = None) -> str:
        """Run a console command of this environment; its output, after a check of its exit status."""
        # nnU-Net 2.8.1 cannot plan with nnUNet_n_proc_DA=0
        workers = "1" if "plan" in command else "0"
        environment = {
            **os.environ,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": workers,
            VARIABLE: str(TRAINERS_FOLDER),
        }
        done = subprocess.run(
            console_command(command, *arguments),
            env=environment,
            cwd=cwd or self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=600,
        )
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        return done.stdout

    def plan(self, dataset: object, configuration: str, *arguments: object) -> str:
        """Plan and pre-process in single processes: nnU-Net starts eight for the fingerprint unless told otherwise."""
        processes = ("-np", 1, "-npfp", 1)
        return self.run("nnUNetv2_plan_and_preprocess", "-d", dataset, "-c", configuration, *processes, *arguments)

    def trained(self, dataset: str, trainer: str, configuration: str) -> Path:
        """The model folder of a training."""
        return self.results / dataset / f"{trainer}__nnUNetPlans__{configuration}"
