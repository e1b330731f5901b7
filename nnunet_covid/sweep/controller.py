"""Hands the runs of a sweep to submitit: on this machine a few at a time, to SLURM all at once.

Whoever controls a sweep keeps nothing in memory that matters: where each run stands is read anew from disk in every
round, so that the command can be killed and given again, or given twice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock

from nnunet_covid.disturbances import SAME_COMMAND
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import digest_of, read_json, writable_folder
from nnunet_covid.startup import offer_trainers
from nnunet_covid.sweep.claims import SUBMISSION, Queue, attempts, gpu_of_job, is_job, submitted, this_machine
from nnunet_covid.sweep.job import RUNS, STATE, Job, end_left_behind, records
from nnunet_covid.sweep.plan import INSTALL, Slurm, Sweep, start_of
from nnunet_covid.sweep.runs import Run
from nnunet_covid.sweep.status import Places, Standing, survey

LOOK = 1.0
"""Seconds between two rounds of a local sweep; they grow with the time that a round takes."""
TRIES = 3
"""How often one command begins a run that is killed each time."""
UNLIMITED = 60 * 24 * 365
"""Minutes; submitit ends local jobs after two unless told otherwise."""
ARRAY = 500
"""Jobs in one array: SLURM takes 1000 unless a site sets MaxArraySize."""
REQUEUES = 10_000
CANCEL = "cancel"


def executor(cluster: str, folder: Path, **settings: Any) -> Any:
    """One of submitit's; for SLURM the one whose settings go back to the default by ``None``.

    Raises:
        UserError: If submitit or the cluster is not there.
    """
    try:
        import submitit
    except ImportError as e:
        raise UserError(f"sweeps need submitit: {INSTALL}") from e
    try:
        if cluster == "slurm":
            return submitit.SlurmExecutor(folder / "%j", **settings)
        return submitit.AutoExecutor(folder / "%j", cluster=cluster, **settings)
    except RuntimeError as e:
        raise UserError("there is no SLURM on this machine (no srun on PATH); go to its login node") from e


@dataclass
class Controller:
    """What both kinds of sweep share.

    Attributes:
        sweep: What is to be run.
        places: nnU-Net's folders.
        tell: Receives each line for the person.
        retry: Numbers of the failed attempts that do not count, by key.
    """

    sweep: Sweep
    places: Places
    tell: Callable[[str], None] = print
    retry: dict[str, int] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Folder of all records."""
        return self.places.results / STATE

    @property
    def cancelled(self) -> Path:
        """While it is there the controllers of this sweep end: of its file as it was or is, or of the same flags."""
        return self.state / f"{CANCEL}_{digest_of(self.sweep.place, 16)}"

    def open(self, *, retry_failed: bool) -> list[Standing]:
        """Where each run stands at the beginning.

        Raises:
            UserError: If the results cannot be written, or one is there that was made otherwise.
        """
        standings = survey(self.sweep, self.places, Queue())
        writable_folder(self.state)
        self.cancelled.unlink(missing_ok=True)
        if retry_failed:
            self.retry = {one.run.key: one.attempt for one in standings if one.state == "failed"}
        return standings

    def is_ready(self, one: Standing) -> bool:
        """Whether a run is to be handed over, as far as it alone is concerned."""
        return one.state == "waiting" or (one.state == "failed" and self.retry.get(one.run.key) == one.attempt)

    def job(self, run: Run, **environment: str) -> Job:
        """The callable for submitit."""
        variables = {name: value for name, value in os.environ.items() if name.startswith("nnUNet_")}
        inherited = tuple(variables.items())
        offer_trainers(variables)
        if run.kind == "prepare" and variables.get("nnUNet_n_proc_DA") == "0":
            variables["nnUNet_n_proc_DA"] = "1"  # nnU-Net 2.8.1 cannot plan with 0
        awaited = any(run.key in other.needs for other in self.sweep.runs)
        start = start_of(run, self.sweep, self.places.results)
        places = (self.places.results, self.places.preprocessed)
        known = len(attempts(records(self.places.results, run)))
        return Job(run, *places, {**variables, **environment}, start, awaited, known, self.cancelled, inherited)


@dataclass
class LocalController(Controller):
    """Runs on this machine, some side by side.

    Attributes:
        jobs: How many.
        gpus: Names for ``CUDA_VISIBLE_DEVICES``, which the jobs share out.
    """

    jobs: int = 1
    gpus: Sequence[str] = ()
    _mine: dict[str, Any] = field(default_factory=dict)
    _begun: Counter[str] = field(default_factory=Counter)

    def run(self, *, retry_failed: bool = False) -> list[Standing]:
        """Until nothing is left that can be done; where each run stands then.

        Runs that somebody else is at work on are waited for.

        Raises:
            UserError: If submitit is not installed, or the results cannot be written.
        """
        local = executor("local", self.state / "jobs")
        local.update_parameters(timeout_min=UNLIMITED, stderr_to_stdout=True)
        before = {one.run.key: one.state for one in self.open(retry_failed=retry_failed)}
        while True:
            began = time.monotonic()
            for job in self._mine.values():
                job.done()  # lets submitit take note of processes that have ended
            # one controller of a machine at a time looks and hands over, so that they see which GPUs others use
            with FileLock(self.state / f"{this_machine()}.lock"):
                standings = survey(self.sweep, self.places, Queue())
                handed = [] if self.cancelled.exists() else self._hand_over(standings, local)
            self._tell_changes(standings, before)
            active = any(one.state in ("running", "queued") for one in standings)
            if self.cancelled.exists() or not (handed or active):
                return standings
            time.sleep(max(LOOK, 2 * (time.monotonic() - began)))

    def _hand_over(self, standings: list[Standing], local: Any) -> list[Run]:
        here = [one for one in standings if one.state in ("running", "queued") and self._is_here(one)]
        done = {one.run.key for one in standings if one.state == "done"}
        handed: list[Run] = []
        for one in standings:
            run = one.run
            if len(here) + len(handed) >= self.jobs:
                break
            if not self.is_ready(one) or not done.issuperset(run.needs) or self._begun[run.key] >= TRIES:
                continue
            gpu = self._free_gpu()
            with _deaf_to_the_terminal():
                job = local.submit(self.job(run, CUDA_VISIBLE_DEVICES=gpu))  # submitit itself hides all GPUs
            submitted(records(self.places.results, run), "local", job.job_id, job.paths.stdout, gpu)
            self._mine[run.key] = job
            self._begun[run.key] += 1
            handed.append(run)
        return handed

    def _is_here(self, one: Standing) -> bool:
        about = read_json(records(self.places.results, one.run) / SUBMISSION) or {}
        return about.get("executor") == "local" and about.get("machine") == this_machine()

    def _free_gpu(self) -> str:
        """The one that the fewest jobs use, of whatever sweep."""
        if len(self.gpus) < 2:
            return "".join(self.gpus)
        used = Counter(gpu_of_job(path.parent) for path in (self.state / RUNS).rglob(SUBMISSION))
        return min(self.gpus, key=lambda gpu: used[gpu])

    def _tell_changes(self, standings: list[Standing], before: dict[str, Any]) -> None:
        for one in standings:
            if one.state != before.get(one.run.key) and one.state in ("running", "done", "failed"):
                note = f": {one.note}" if one.note else ""
                self.tell(f"{time.strftime('%H:%M:%S')}  {one.state:8} {one.run.key}{note}")
            before[one.run.key] = one.state


@contextmanager
def _deaf_to_the_terminal() -> Iterator[None]:
    """Processes that are started meanwhile do not end with the terminal, nor by Ctrl-C with a traceback of submitit.

    To Ctrl-C the job listens anew.
    """
    try:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class SlurmController(Controller):
    """Hands every run that is to be done to SLURM, in arrays, and ends."""

    def run(self, *, retry_failed: bool = False) -> list[Standing]:
        """Hand over; where each run stands then.

        Raises:
            UserError: If submitit or SLURM is not there, or refuses.
        """
        slurm = executor("slurm", self.state / "jobs", **self._command())
        writable_folder(self.state)
        with FileLock(self.state / "slurm.lock"):
            standings = {one.run.key: one for one in self.open(retry_failed=retry_failed)}
            groups: dict[tuple[Any, ...], list[Run]] = {}
            left = []
            for one in standings.values():  # what others need comes first
                if not self.is_ready(one):
                    continue
                needed = tuple(key for key in one.run.needs if standings[key].state != "done")
                if all(self._comes(standings[key]) for key in needed):
                    groups.setdefault((one.run.kind, one.run.device, needed), []).append(one.run)
                else:
                    left.append(one.run)
            for (_, _, needed), runs in groups.items():
                for first in range(0, len(runs), ARRAY):
                    self._submit(slurm, runs[first : first + ARRAY], needed)
            if left:
                self.tell(f"{len(left)} runs need what failed, or is at work outside SLURM; {SAME_COMMAND} after that")
        return survey(self.sweep, self.places, Queue())

    def _comes(self, one: Standing) -> bool:
        """Whether a job of SLURM does this run, or is about to."""
        about = read_json(records(self.places.results, one.run) / SUBMISSION) or {}
        at_work = one.state in ("running", "queued") and about.get("executor") == "slurm"
        return at_work or self.is_ready(one)

    def _command(self) -> dict[str, Any]:
        return {"max_num_timeout": REQUEUES, "python": self.sweep.slurm.python or None}

    def _submit(self, slurm: Any, runs: list[Run], needed: Sequence[str]) -> None:
        asked = self.sweep.slurm
        slurm.update_parameters(**parameters(asked, runs[0], self._dependency(needed)))
        variables = {} if "nnUNet_n_proc_DA" in os.environ else {"nnUNet_n_proc_DA": str(max(1, asked.cpus - 1))}
        try:
            with slurm.batch():
                jobs = [slurm.submit(self.job(run, **variables)) for run in runs]
        except Exception as e:
            raise UserError(f"SLURM refuses the jobs: {reason_of(e)}") from e
        for run, job in zip(runs, jobs, strict=True):
            submitted(records(self.places.results, run), "slurm", job.job_id, job.paths.stdout)
        self.tell(f"handed over: job {jobs[0].job_id.partition('_')[0]}, {len(runs)} × {runs[0].kind}")

    def _dependency(self, needed: Sequence[str]) -> str:
        """``afterok`` of the jobs of other runs, which have been handed over by now."""
        runs = {run.key: run for run in self.sweep.runs}
        jobs = [(read_json(records(self.places.results, runs[key]) / SUBMISSION) or {})["job"] for key in needed]
        return f"afterok:{':'.join(jobs)}" if jobs else ""


def visible_gpus() -> list[str]:
    """What this process may use: ``CUDA_VISIBLE_DEVICES``, or the numbers of the GPUs that the driver lists."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [gpu.strip() for gpu in said.split(",") if gpu.strip()]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, encoding="utf-8", errors="replace", timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return []
    count = sum(line.startswith("GPU ") for line in done.stdout.splitlines()) if done.returncode == 0 else 0
    return [str(number) for number in range(count)]


def parameters(asked: Slurm, run: Run, dependency: str) -> dict[str, Any]:
    """What submitit's executor is told for jobs such as this."""
    gpus = (1 if run.device == "cuda" else 0) if asked.gpus is None else asked.gpus
    gpus = 0 if run.kind == "prepare" else gpus
    extra = {**asked.extra, **({"kill-on-invalid-dep": "yes"} if dependency else {})}
    return {
        "job_name": f"nnunet_{run.kind}",
        "time": asked.minutes,
        "mem": f"{round(asked.memory_gb * 1024)}M",
        "cpus_per_task": asked.cpus,
        "gpus_per_node": gpus or None,
        "stderr_to_stdout": True,
        "array_parallelism": asked.parallel,
        "signal_delay_s": asked.warning,
        "wckey": None,
        "partition": asked.partition or None,
        "account": asked.account or None,
        "qos": asked.qos or None,
        "setup": list(asked.setup) or None,
        "dependency": dependency or None,
        "additional_parameters": extra or None,
    }


def cancel(controller: Controller) -> tuple[list[Run], list[Run]]:
    """End the controllers and the jobs of a sweep.

    Returns:
        The runs that were stopped, by a signal or by SLURM, and those whose job sees for itself that it is to end: it
        is on another machine or in another container, or has not begun. What a job that is gone has left is killed.
    """
    writable_folder(controller.state)
    controller.cancelled.touch()
    stopped: list[Run] = []
    told: list[Run] = []
    jobs: list[str] = []
    places = (controller.places.results, controller.places.preprocessed)
    own = tuple(run for run in controller.sweep.runs if not run.made_otherwise(*places))
    for one in survey(replace(controller.sweep, runs=own), controller.places, Queue()):
        if one.state not in ("running", "queued"):
            continue
        claim = read_json(one.last) if one.state == "running" and one.last is not None else None
        job = read_json(records(controller.places.results, one.run) / SUBMISSION) or {}
        number = (claim or {}).get("job") or (job["job"] if job.get("executor") == "slurm" else "")
        here = claim is not None and claim["machine"] == this_machine()
        pid = claim["pid"] if claim is not None and here and is_job(claim["pid"]) else None
        (stopped if number or pid else told).append(one.run)
        if number:
            jobs.append(number)
        elif pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        elif here:
            end_left_behind(records(controller.places.results, one.run))
    refused: Exception | None = None
    for first in range(0, len(jobs), ARRAY):
        try:
            subprocess.run(["scancel", *jobs[first : first + ARRAY]], check=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as e:
            refused = e  # the others end all the same
    if refused:
        raise UserError(f"not every job was ended ({refused}); see what goes on with --status, and try again")
    return stopped, told
