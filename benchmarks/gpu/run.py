"""As much of the GPU's questions as fits into some minutes, most valuable first; resumable.

- ``check``: a training step and a prediction of every trainer, in mixed precision, against the CPU
- ``cost``: time and memory of a step against stock nnU-Net, and the spatial convolution against a loop
- ``train``: cross-validation
- ``compile``: checks and costs of the trainings' networks, compiled

Checks and trainings run side by side, as many as there are cores; what measures time runs alone. Results lie in OUT as
soon as they are there: ``check.csv``, ``cost.csv``, ``operator.csv``, ``train_CONFIGURATION.csv`` (for
``nnunet-covid table --scores``) and ``failed.log``.

    python run.py 10 --out results                      # everything
    python run.py 8 --out results --parts train --configuration 2d_half --length 20epochs_50its \\
        --trainers nnUNetTrainer UNetPretrainedTrainer --folds 0 1 2 3 4 --seeds 0 1
    python run.py 8 --out results --parts train --graph --then nnUNetTrainer,UNetPretrainedTrainer:80epochs_50its:1

With ``--graph`` every training's forward and backward pass is one CUDA graph (``graphs.py``), which with NVIDIA's MPS
(``MPS=1 run.sh``) makes sixteen trainings side by side nearly twice as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import multiprocessing
import os
import platform
import re
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from jobs import Job, work

FAMILIES = (
    "nnUNetTrainer",
    "InfNetTrainer",
    "UNetPretrainedTrainer",
    "UNetPretrainedEnlargedTrainer",
    "InfNetPretrainedTrainer",
    "SSANetTrainer",
    "CollaborativeTrainer",
)
PRELOADED = (
    "torch",
    "nnunetv2.run.run_training",
    "nnunet_covid.evaluation",
    "nnunet_covid.trainers.collaborative",
    "nnunet_covid.trainers.inf_net_timm",
    "nnunet_covid.trainers.ssa_net",
)
PARTS = ("check", "cost", "train", "compile")
"""In the order in which they run."""
SLOW_TO_COMPILE = "InfNetRes2NetTrainer"
"""Three scales are three compilations; its check runs without."""


def schedule(args: argparse.Namespace) -> list[Job]:
    """All jobs, most valuable first."""
    from nnunet_covid.trainers import TRAINERS

    everything = args.checked or ["nnUNetTrainer", *TRAINERS]
    large, small = {"configuration": args.cost_configuration}, {"configuration": args.check_configuration}
    # a compilation takes minutes: what is compiled for a check is not compiled again for its costs, and comes last
    compiled = [name for name in args.trainers if name != SLOW_TO_COMPILE]
    parts = {
        "check": [Job("check", name, settings={**small, "compile": False}) for name in everything],
        "cost": [
            Job("cost", name, cores=0, settings={**large, "compile": False, "graph": args.graph})
            for name in args.trainers
        ]
        + [Job("operator", "SpatialConvolution", cores=0)],
        "train": _trainings(args, args.trainers, args.length, args.seeds)
        + [
            job
            for names, length, seeds in (then.split(":") for then in args.then)
            for job in _trainings(args, names.split(","), length, [int(s) for s in seeds.split(",")])
        ],
        "compile": [Job("check", name, settings={**large, "compile": True}) for name in compiled]
        + [Job("cost", name, settings={**large, "compile": True}) for name in compiled],
    }
    return [job for part in PARTS if part in args.parts for job in parts[part]]


def _trainings(args: argparse.Namespace, trainers: list[str], length: str, seeds: list[int]) -> list[Job]:
    """Of some trainers: every fold of a seed before the next seed."""
    settings = {"configuration": args.configuration, "length": length}
    return [
        Job("train", name, settings={**settings, "fold": fold, "seed": seed, **({"graph": True} if args.graph else {})})
        for seed, fold, name in itertools.product(seeds, args.folds, trainers)
    ]


def steps(job: Job) -> int:
    """Of a training."""
    epochs, iterations = re.findall(r"\d+", job.settings["length"])
    return int(epochs) * int(iterations)


class Machine:
    """Runs jobs in processes of their own until a moment, and joins what they have written.

    The processes are forked from one that has imported everything, so that none pays for it again.
    """

    def __init__(self, out: Path, work_folder: Path, device: str, cores: int, deadline: float) -> None:
        self.out, self.folder, self.device, self.cores, self.deadline = out, work_folder, device, cores, deadline
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(PRELOADED))
        self.running: dict[BaseProcess, tuple[Job, float]] = {}
        self.seconds_per_step = 0.0

    def run(self, jobs: list[Job]) -> None:
        waiting = [job for job in jobs if not (self.folder / f"{job.name}.csv").is_file()]
        begun = 0
        while (waiting or self.running) and time.time() < self.deadline:
            if waiting and self._fits(waiting[0]):
                job = waiting.pop(0)
                if job.part == "train" and time.time() + self.seconds_per_step * steps(job) > self.deadline:
                    continue  # it would be stopped before its end, and a shorter one may fit
                process = self.context.Process(target=start, args=(job, self.folder, self.device))
                process.start()
                self.running[process] = job, time.time()
                begun += 1
                continue
            time.sleep(0.1)
            for process in [p for p in self.running if not p.is_alive()]:
                self._finished(process)
        for process, (job, _) in self.running.items():
            print(f"stopped at the end of the time: {job.name}")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)
        print(f"{begun} of {len(jobs)} jobs were begun; the others were done before or would not have ended in time")

    def _fits(self, job: Job) -> bool:
        alone = any(j.cores == 0 for j, _ in self.running.values())
        return not self.running if job.cores == 0 else not alone and len(self.running) < self.cores

    def _finished(self, process: BaseProcess) -> None:
        job, started = self.running.pop(process)
        good = process.exitcode == 0
        log = self.folder / f"{job.name}.log"
        output = log.read_text(errors="replace") if log.is_file() else "no output"
        graph = next((line for line in output.splitlines() if line.startswith(("graph", "no graph"))), "")
        print(f"{time.time() - started:6.1f} s  {'' if good else 'FAILED '}{job.name}  {graph}", flush=True)
        if not good:
            with (self.out / "failed.log").open("a") as f:
                f.write(f"=== {job.name}: exit {process.exitcode}\n{output[-2000:]}\n")
        self.join(job)

    def join(self, job: Job) -> None:
        """Rewrite the table that a job belongs to."""
        table = f"train_{job.settings['configuration']}" if job.part == "train" else job.part
        pattern = f"train_*_{job.settings['configuration']}_*.csv" if job.part == "train" else f"{job.part}_*.csv"
        rows = [row for file in sorted(self.folder.glob(pattern)) for row in csv.DictReader(file.open(newline=""))]
        if rows:
            with (self.out / f"{table}.csv").open("w", newline="") as f:
                writer = csv.DictWriter(f, list(rows[0]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def start(job: Job, folder: Path, device: str) -> None:
    """A process group of its own, so that a job can be stopped with all that it has started."""
    os.setsid()
    work(job, folder, device)


def describe_machine(out: Path) -> None:
    """Which card and which versions gave the numbers."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        card = "none"
    versions = {name: _version(name) for name in ("torch", "numpy", "timm", "nnunetv2")}
    found = {"card": card, "cores": os.cpu_count(), "python": platform.python_version(), **versions}
    (out / "machine.json").write_text(json.dumps(found, indent=2) + "\n")
    print(found, flush=True)


def _version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def main() -> None:
    began = time.time()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", type=float, help="stop then, whatever is still to be done")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--work", type=Path, help="folder for what is needed to resume (default: OUT/jobs)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--trainers", nargs="+", default=list(FAMILIES), help="to compile, to time and to train")
    parser.add_argument("--checked", nargs="+", help="to check without compilation (default: all)")
    parser.add_argument("--check-configuration", default="2d_half", help="plan of the checks of all trainers")
    parser.add_argument("--cost-configuration", default="2d", help="plan of costs, and of the checks with compilation")
    parser.add_argument("--configuration", default="2d_half", help="plan of the trainings")
    parser.add_argument("--length", default="20epochs_50its")
    parser.add_argument(
        "--then",
        action="append",
        default=[],
        metavar="TRAINERS:LENGTH:SEEDS",
        help="further trainings after those, such as nnUNetTrainer,InfNetTrainer:80epochs_50its:0,1; may be repeated",
    )
    parser.add_argument("--graph", action="store_true", help="forward and backward pass of trainings as a CUDA graph")
    parser.add_argument("--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="jobs side by side")
    args = parser.parse_args()
    folder = args.work or args.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    describe_machine(args.out)
    jobs = schedule(args)
    machine = Machine(args.out, folder.resolve(), args.device, args.cores, began + 60 * args.minutes)
    machine.run(jobs)


if __name__ == "__main__":
    main()
