"""As much of the GPU's questions as fits into some minutes, most valuable first; resumable.

- ``check``: a training step and a prediction of every trainer, in mixed precision, against the CPU
- ``cost``: time and memory of a step against stock nnU-Net, and the spatial convolution against a loop
- ``train``: cross-validation; without ``--trainers`` and ``--then`` also with 4000 steps at the planned ``2d``, and of
  consistency beside stock, each where the pack holds its data
- ``compile``: checks and costs of the trainings' networks, compiled

Costs of the families come first, those of all other trainers at the very end: ``--parts cost`` takes them alone.

Checks and trainings run side by side, as many as there are cores; what measures time runs alone. Results lie in OUT as
soon as they are there, those of earlier calls with the same ``--work`` too: ``check.csv``, ``cost.csv``,
``operator.csv``, ``train_CONFIGURATION.csv`` (for ``nnunet-covid table --scores``) and ``failed.log``. Ends with status
1, and names them, where jobs have failed or a check differs from the CPU; what time was lacking for is no failure.

    python run.py 10 --out results                      # everything
    python run.py 8 --out results --parts train --configuration 2d_half --length 20epochs_50its \\
        --trainers nnUNetTrainer UNetPretrainedTrainer --folds 0 1 2 3 4 --seeds 0 1
    python run.py 8 --out results --parts train --graph --then nnUNetTrainer,UNetPretrainedTrainer:80epochs_50its:1
    python run.py 8 --out results --parts train --trainers nnUNetTrainer --then InfNetTrainer:80epochs_50its:0:2d
    python run.py 8 --out results --parts cost --timed nnUNetTrainer pretrain:nnUNetTrainer nnUNetTrainer_consistency

With ``--graph`` every training's forward and backward pass is one CUDA graph (``graphs.py``), which with NVIDIA's MPS
(``MPS=1 run.sh``) makes sixteen trainings side by side nearly twice as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from jobs import PLANS, Job, work
from step_cost import BASELINE, PRETRAIN

from nnunet_covid.csv_files import read_csv, write_csv
from nnunet_covid.files import files_in, read_json, write_json
from nnunet_covid.nnunet.trainer_names import SUFFIXES, TRAINERS

FAMILIES = (
    "nnUNetTrainer",
    "InfNetTrainer",
    "UNetPretrainedTrainer",
    "UNetPretrainedEnlargedTrainer",
    "InfNetPretrainedTrainer",
    "SSANetTrainer",
    "CollaborativeTrainer",
)
CONSISTENCY = "_consistency"
UNLABELLED = [f"{BASELINE}{CONSISTENCY}", f"{PRETRAIN}{BASELINE}"]
"""Whose steps are timed beside the families'."""
Trainings = tuple[list[str], str, list[int], str]
"""Trainers, length, seeds and configuration."""
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
    """All jobs, most valuable first, each once."""
    everything = args.checked or [BASELINE, *TRAINERS, f"{BASELINE}{CONSISTENCY}"]
    trained = args.trainers or list(FAMILIES)
    timed = args.timed or args.trainers or [*FAMILIES, *UNLABELLED]
    others = [] if args.timed or args.trainers else [name for name in TRAINERS if name not in FAMILIES]
    large, small = {"configuration": args.cost_configuration}, {"configuration": args.check_configuration}
    settings = {**large, "compile": False, "graph": args.graph}
    further = args.then or ([] if args.trainers else _further_trainings(args))
    # a compilation takes minutes: what is compiled for a check is not compiled again for its costs, and comes last
    compiled = [name for name in trained if name != SLOW_TO_COMPILE]
    parts = [
        ("check", [Job("check", name, settings={**small, "compile": False}) for name in everything]),
        ("cost", [Job("cost", name, cores=0, settings=settings) for name in timed]),
        ("cost", [Job("operator", "SpatialConvolution", cores=0)]),
        ("train", _trainings(args, [(trained, args.length, args.seeds, ""), *further])),
        ("compile", [Job("check", name, settings={**large, "compile": True}) for name in compiled]),
        ("compile", [Job("cost", name, settings={**large, "compile": True}) for name in compiled]),
        ("cost", [Job("cost", name, cores=0, settings=settings) for name in others]),
    ]
    return list({job.name: job for part, jobs in parts if part in args.parts for job in jobs}.values())


def _trainings(args: argparse.Namespace, blocks: list[Trainings]) -> list[Job]:
    """Block after block, and of each every fold of a seed before the next seed."""
    graph = {"graph": True} if args.graph else {}
    return [
        Job("train", name, settings={"configuration": plan, "length": of_length, "fold": fold, "seed": seed, **graph})
        for names, of_length, seeds, configuration in blocks
        for plan in [configuration or args.configuration]
        for seed, fold, name in itertools.product(seeds, args.folds, names)
    ]


def _further_trainings(args: argparse.Namespace) -> list[Trainings]:
    """Four times the steps at the planned ``2d``, and consistency beside stock; only what the pack holds data for."""
    at_2d = [name for name in FAMILIES if not missing("2d", name)]
    pair = [BASELINE, f"{BASELINE}{CONSISTENCY}"]
    linked = [name for name in configurations() if not missing(name, pair[1])]
    return [(at_2d, "80epochs_50its", args.seeds, "2d"), *((pair, args.length, args.seeds, name) for name in linked)]


def steps(length: str) -> int:
    """Of a training; what its length does not say is as nnU-Net has it. 0 for what is no length."""
    match = SUFFIXES.match(f"T_{length}")
    if match is None or match["base"] != "T" or match["consistency"] or match["seed"] or match["tag"]:
        return 0
    return int(match["epochs"] or 1000) * int(match["its"] or 250)


def configurations() -> dict[str, dict[str, Any]]:
    """Of the plans in the pack."""
    return json.loads(PLANS.read_text(encoding="utf-8"))["configurations"] if PLANS.is_file() else {}


def missing(configuration: str, of: str = "") -> str:
    """What the pack lacks for a configuration, and for a trainer to be trained with it; nothing if all is there."""
    known = configurations()
    if configuration not in known:
        return f"{configuration} in {PLANS}"
    identifier = known[configuration].get("data_identifier", "")
    if not of or not (PLANS.parent / identifier).is_dir():
        return str(PLANS.parent / identifier) if of else ""
    links = read_json(PLANS.with_name(f"{PLANS.stem}_link.json")) or {"links": {}}
    link = links["links"].get(identifier) or {}
    if of.endswith(CONSISTENCY):
        images = link.get("unlabelled") and PLANS.parents[1] / link["unlabelled"]["folder"]
        return "" if images and images.is_dir() else f"a folder of unlabelled images linked to {configuration}"
    if of.startswith("Collaborative") and not link.get("others"):
        return f"a data set of another disease linked to {configuration}"
    return ""


def lacking(jobs: list[Job]) -> str:
    """What of the plans or of the pre-processed data the jobs ask for in vain; nothing if all is there."""
    for job in jobs:
        name, trained = job.settings.get("configuration"), job.trainer if job.part == "train" else ""
        if name and (what := missing(name, trained)):
            return f"{what} is missing, for {job.name}"
    return ""


class Machine:
    """Runs jobs in processes of their own until a moment, and joins what they have written.

    The processes are forked from one that has imported everything, so that none pays for it again.
    """

    def __init__(self, out: Path, work_folder: Path, device: str, cores: int, deadline: float) -> None:
        self.out, self.folder, self.device, self.cores, self.deadline = out, work_folder, device, cores, deadline
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(PRELOADED))
        self.running: dict[BaseProcess, tuple[Job, float]] = {}
        self.pace: dict[tuple[str, str, int], float] = {}  # least seconds per step, by configuration, trainer and steps
        self.wrong: list[str] = []

    def run(self, jobs: list[Job]) -> list[str]:
        """Names of those that failed, or whose check differs from the CPU, in an earlier call too."""
        self.join()
        waiting = [job for job in jobs if not self._result(job).is_file()]
        done, begun = len(jobs) - len(waiting), 0
        while (waiting or self.running) and time.time() < self.deadline:
            if waiting and self._fits(waiting[0]):
                job = waiting.pop(0)
                if time.time() + self._least_seconds(job) > self.deadline:
                    continue  # it would be stopped before its end, and a shorter one may fit
                process = self.context.Process(target=start, args=(job, self.folder, self.device))
                process.start()
                self.running[process] = job, time.time()
                begun += 1
                continue
            time.sleep(0.1)
            ended = [p for p in self.running if not p.is_alive()]
            for process in ended:
                self._finished(process)
            if ended:
                self.join()
        for process in list(self.running):
            self._stop(process)
        self.join()
        print(f"{begun} of {len(jobs)} jobs were begun; {done} were done before, others would not have ended in time")
        checks = [job for job in jobs if job.part == "check" and self._result(job).is_file()]
        unequal = [job.name for job in checks if read_csv(self._result(job))[1][0]["equal"] != "True"]
        return self.wrong + unequal

    def _result(self, job: Job) -> Path:
        return self.folder / f"{job.name}.csv"

    def _fits(self, job: Job) -> bool:
        alone = any(j.cores == 0 for j, _ in self.running.values())
        return not self.running if job.cores == 0 else not alone and len(self.running) < self.cores

    def _least_seconds(self, job: Job) -> float:
        """That a training takes: a step as in the quickest yet of its trainer, or of any if none has ended.

        Those of less than a quarter of its steps say nothing: start and validation are most of their time.
        """
        if job.part != "train":
            return 0.0
        plan, wanted = job.settings["configuration"], steps(job.settings["length"])
        paces = [(name, pace) for (of, name, n), pace in self.pace.items() if of == plan and 4 * n >= wanted]
        own = [pace for name, pace in paces if name == job.trainer]
        return min(own or [pace for _, pace in paces], default=0.0) * wanted

    def _finished(self, process: BaseProcess) -> None:
        job, started = self.running.pop(process)
        good = self._result(job).is_file()
        log = self.folder / f"{job.name}.log"
        output = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "no output"
        graph = next((line for line in output.splitlines() if line.startswith(("graph", "no graph"))), "")
        print(f"{time.time() - started:6.1f} s  {'' if good else 'FAILED '}{job.name}  {graph}", flush=True)
        if not good:
            self.wrong.append(job.name)
            with (self.out / "failed.log").open("a", encoding="utf-8") as f:
                f.write(f"=== {job.name}: exit {process.exitcode}\n{output[-2000:]}\n")

    def _stop(self, process: BaseProcess) -> None:
        """At the end of the time; what has just ended by itself counts as finished."""
        job, _ = self.running[process]
        stopped = process.is_alive()
        if stopped:
            with contextlib.suppress(ProcessLookupError):  # so young that it has no group yet
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.kill()
        if stopped and not self._result(job).is_file():
            print(f"stopped at the end of the time: {job.name}")
        else:
            self._finished(process)

    def join(self) -> None:
        """Write the tables anew, of all that is done, and note how quick the trainings were."""
        tables: dict[str, list[dict[str, Any]]] = {}
        for file in files_in(self.folder, ".csv"):
            part = file.name.partition("_")[0]
            for row in read_csv(file)[1]:
                table = f"train_{row['configuration']}" if part == "train" else part
                tables.setdefault(table, []).append(row)
                if part == "train":
                    count = steps(row["length"])
                    key, pace = (row["configuration"], row["trainer"], count), float(row["seconds"]) / count
                    self.pace[key] = min(pace, self.pace.get(key, pace))
        for table, rows in tables.items():
            write_csv(self.out / f"{table}.csv", rows[0], ([row.get(column) for column in rows[0]] for row in rows))


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
    write_json(out / "machine.json", found)
    print(found, flush=True)


def _version(name: str) -> str:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def trainer(name: str) -> str:
    """One of ours or of nnU-Net's."""
    base = name.removesuffix(CONSISTENCY)
    if base not in TRAINERS and not base.startswith(BASELINE):
        raise argparse.ArgumentTypeError(f"there is no trainer {name}")
    return name


def timed_step(name: str) -> str:
    """A trainer, or pretrain:TRAINER."""
    trainer(name.removeprefix(PRETRAIN))
    return name


def length(text: str) -> str:
    """As it stands in a trainer's name."""
    if not steps(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a length such as 30epochs or 20epochs_50its")
    return text


def further(text: str) -> Trainings:
    """TRAINERS:LENGTH:SEEDS[:CONFIGURATION]."""
    try:
        names, of_length, seeds, *rest = text.split(":")
        (configuration,) = rest or [""]
        trainers = [trainer(name) for name in names.split(",")]
        return trainers, length(of_length), [int(s) for s in seeds.split(",")], configuration
    except ValueError as e:
        raise argparse.ArgumentTypeError(f"{text!r}: expected such as nnUNetTrainer:80epochs_50its:0,1:2d") from e


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("minutes", type=float, help="stop then, whatever is still to be done")
    add("--out", type=Path, required=True, help="folder for the tables")
    add("--work", type=Path, help="folder for what is needed to resume (default: OUT/jobs)")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    text = "to compile, to time and to train (default: one of each family, and all others to time at the end)"
    add("--trainers", nargs="+", type=trainer, help=text)
    add("--checked", nargs="+", type=trainer, help="to check without compilation (default: all)")
    add("--timed", nargs="+", type=timed_step, help="to time instead; a step of pre-training as pretrain:TRAINER")
    add("--check-configuration", default="2d_half", help="plan of the checks of all trainers")
    add("--cost-configuration", default="2d", help="plan of costs, and of the checks with compilation")
    add("--configuration", default="2d_half", help="plan of the trainings")
    add("--length", type=length, default="20epochs_50its", help="such as 30epochs, or %(default)s (default)")
    text = "further trainings after those, such as nnUNetTrainer,InfNetTrainer:80epochs_50its:0,1:2d; may be repeated"
    add("--then", action="append", type=further, metavar="TRAINERS:LENGTH:SEEDS[:CONFIGURATION]", help=text)
    add("--graph", action="store_true", help="forward and backward pass of trainings as a CUDA graph")
    add("--folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    add("--seeds", nargs="+", type=int, default=[0, 1])
    add("--device", default="cuda")
    add("--cores", type=int, default=os.cpu_count() or 1, help="jobs side by side (default: %(default)s)")
    return parser


def main() -> int:
    began = time.time()
    parser = make_parser()
    args = parser.parse_args()
    jobs = schedule(args)
    if what := lacking(jobs):
        parser.error(f"{what}: pack it with prepare.sh, or name another configuration")
    folder = args.work or args.out / "jobs"
    folder.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    describe_machine(args.out)
    machine = Machine(args.out, folder.resolve(), args.device, args.cores, began + 60 * args.minutes)
    wrong = machine.run(jobs)
    if wrong:
        print(f"failed (see {args.out / 'failed.log'}), or not equal to the CPU (see check.csv): {', '.join(wrong)}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
