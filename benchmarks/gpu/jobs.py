"""What one process does on the GPU machine: check a trainer, take its costs, or train and score it.

Every job writes its result as rows of a CSV file of its own; ``run.py`` decides which jobs run when, and joins them.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nnunet_covid.csv_files import write_csv

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

DATASET = "Dataset501_COVIDSemiSeg"
PLANS = Path(os.environ.get("nnUNet_preprocessed", "")) / DATASET / "nnUNetPlans.json"
WARM_UP, MEASURED = 8, 20
"""Steps before and within a measurement of time."""
TOLERANCE = 0.03
"""Between mixed precision on the GPU and float32 on the CPU: of the loss, relative; of probabilities, on average."""


@dataclass(frozen=True)
class Job:
    """One process of the schedule.

    Attributes:
        part: ``check``, ``cost``, ``operator`` or ``train``: which function below does it, and which table it goes to.
        trainer: The name behind ``-tr``, without length and seed.
        cores: How many others may not run beside it: 1, or all of them for what measures time.
        settings: What the part needs beyond that.
    """

    part: str
    trainer: str
    cores: int = 1
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        values = "_".join(str(v) for v in self.settings.values())
        return f"{self.part}_{self.trainer}_{values}".rstrip("_")


def work(job: Job, folder: Path, device: str) -> None:
    """Do a job and write ``folder/NAME.csv``; its output goes into ``folder/NAME.log``."""
    log = os.open(folder / f"{job.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    import torch

    torch.set_num_threads(1)
    rows = PARTS[job.part](job, device)
    write_csv(folder / f"{job.name}.csv", rows[0], (row.values() for row in rows))


def check(job: Job, device: str) -> list[dict[str, Any]]:
    """A training step and a prediction with the same weights on the CPU and in mixed precision on the device."""
    import torch
    from step_cost import make_trainer, random_batch

    from nnunet_covid.nnunet.training import unwrapped

    os.environ["nnUNet_compile"] = "t" if job.settings["compile"] else "f"
    torch.manual_seed(0)
    on_cpu = make_trainer(job.trainer, PLANS, job.settings["configuration"], "cpu")
    batch = random_batch(on_cpu)
    on_device = make_trainer(job.trainer, PLANS, job.settings["configuration"], device)
    weights = {k: v.clone() for k, v in unwrapped(on_cpu.network).state_dict().items()}
    losses, maps = [], []
    start = time.perf_counter()
    for trainer in (on_cpu, on_device):
        unwrapped(trainer.network).load_state_dict(weights)
        trainer.network.train()
        losses.append(float(trainer.train_step(batch())["loss"]))
        finite = all(bool(p.isfinite().all()) for p in unwrapped(trainer.network).parameters())
        unwrapped(trainer.network).load_state_dict(weights)
        trainer.network.eval()
        trainer.set_deep_supervision_enabled(False)
        with torch.inference_mode(), torch.autocast(trainer.device.type, enabled=trainer.device.type == "cuda"):
            logits = trainer.network(batch()["data"][:1].to(trainer.device)).float().cpu()
        maps.append(logits.softmax(1))
        finite &= bool(logits.isfinite().all())
    loss_error = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-3)
    map_error = float((maps[0] - maps[1]).abs().mean())
    good = finite and loss_error < TOLERANCE and map_error < TOLERANCE
    return [
        {
            "trainer": job.trainer,
            "compiled": job.settings["compile"],
            "loss_cpu": f"{losses[0]:.5f}",
            "loss_device": f"{losses[1]:.5f}",
            "map_error": f"{map_error:.6f}",
            "largest_map_error": f"{float((maps[0] - maps[1]).abs().max()):.5f}",
            "finite": finite,
            "seconds": f"{time.perf_counter() - start:.1f}",
            "equal": good,
        }
    ]


def cost(job: Job, device: str) -> list[dict[str, Any]]:
    """Median time and peak memory of a training step on random data; the measured steps alone on the card.

    Of pretrain:TRAINER it is a step of pre-training.
    """
    import torch
    from graphs import use_graph
    from step_cost import PRETRAIN, make_trainer, peak_memory, pretraining_step, random_batch

    os.environ["nnUNet_compile"] = "t" if job.settings["compile"] else "f"
    torch.backends.cudnn.benchmark = True
    trainer = make_trainer(job.trainer.removeprefix(PRETRAIN), PLANS, job.settings["configuration"], device)
    batch = random_batch(trainer)
    trainer.network.train()
    pretraining = pretraining_step(trainer) if job.trainer.startswith(PRETRAIN) else None

    def step(prepared: dict[str, Any]) -> None:
        pretraining() if pretraining else trainer.train_step(prepared)

    start = time.perf_counter()
    for _ in range(WARM_UP):
        step(batch())
    _wait(device)
    warm_up = time.perf_counter() - start
    with turn_taken():
        median = _median_step(step, batch, device)
        memory = peak_memory(trainer.device)
        graph, with_graph = "", ""
        if job.settings.get("graph") and not pretraining:
            graph = use_graph(trainer)
            with_graph = f"{1000 * _median_step(step, batch, device):.2f}"
    return [
        {
            "trainer": job.trainer,
            "configuration": job.settings["configuration"],
            "compiled": job.settings["compile"],
            "milliseconds": f"{1000 * median:.2f}",
            "memory_mib": f"{memory:.0f}",
            "parameters_m": f"{sum(p.numel() for p in trainer.network.parameters()) / 1e6:.2f}",
            "warm_up_s": f"{warm_up:.1f}",
            "graph_milliseconds": with_graph,
            "graph": graph,
        }
    ]


def _median_step(step: Callable[[Any], Any], batch: Callable[[], dict[str, Any]], device: str) -> float:
    seconds = []
    for _ in range(2 + MEASURED):
        prepared = batch()
        start = time.perf_counter()
        step(prepared)
        _wait(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


@contextmanager
def turn_taken() -> Iterator[None]:
    """What is measured is measured one after another, however many processes have prepared themselves for it."""
    with Path("measuring.lock").open("w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def operator(job: Job, device: str) -> list[dict[str, Any]]:
    """Spatial convolution forward and backward against the loop over slices, at bottleneck sizes."""
    import torch
    from spatial_convolution import SliceLoop

    from nnunet_covid.networks.spatial_convolution import SpatialConvolution

    rows = []
    for channels, side in ((512, 7), (512, 16), (256, 28)):
        x = torch.randn(2, channels, side, side, device=device)
        ours = SpatialConvolution(channels)
        times = {}
        for name, module in {"operator": ours.to(device), "loop": SliceLoop(ours).to(device)}.items():
            seconds = []
            for _ in range(WARM_UP + MEASURED):
                start = time.perf_counter()
                with torch.autocast(device, enabled=device == "cuda"):
                    module(x.requires_grad_()).float().square().mean().backward()
                _wait(device)
                seconds.append(time.perf_counter() - start)
            times[name] = statistics.median(seconds[WARM_UP:])
        rows.append(
            {"channels": channels, "side": side}
            | {f"{name}_ms": f"{1000 * t:.2f}" for name, t in times.items()}
            | {"ratio": f"{times['loop'] / times['operator']:.2f}"}
        )
    return rows


def train(job: Job, device: str) -> list[dict[str, Any]]:
    """nnU-Net's training and validation of one fold with one seed, and a row of scores per validation case."""
    from graphs import use_graph
    from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results
    from nnunetv2.run import run_training as command
    from nnunetv2.training.logging import nnunet_logger
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from nnunet_covid.sweep.scores import Labels, score

    os.environ["nnUNet_compile"] = "f"
    import torch

    # costs of nnU-Net that have nothing to do with the result: a picture per epoch, fresh interpreters, and trying out
    # every convolution while sixteen others do the same
    command.cudnn = SimpleNamespace()
    nnunet_logger.LocalLogger.plot_progress_png = lambda *_: None
    if job.settings.get("graph"):
        on_train_start = nnUNetTrainer.on_train_start

        def with_graph(trainer: Any) -> None:
            on_train_start(trainer)
            print(use_graph(trainer), flush=True)

        nnUNetTrainer.on_train_start = with_graph
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda kind=None: get_context("fork" if kind == "spawn" else kind)

    configuration, length, fold, seed = (job.settings[k] for k in ("configuration", "length", "fold", "seed"))
    name = f"{job.trainer}_{length}_seed{seed}"
    start = time.perf_counter()
    command.run_training(
        DATASET,
        configuration,
        fold,
        name,
        export_validation_probabilities=True,
        disable_checkpointing=True,
        device=torch.device(device),
    )
    seconds = time.perf_counter() - start
    folder = Path(nnUNet_results.get()) / DATASET / f"{name}__nnUNetPlans__{configuration}" / f"fold_{fold}"
    references = Path(nnUNet_preprocessed.get()) / DATASET / "gt_segmentations"
    labels = Labels(DATASET, configuration, job.trainer, length, str(seed), str(fold))
    return [{**row, "seconds": f"{seconds:.1f}"} for row in score(labels, folder / "validation", references)]


def _wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


PARTS: dict[str, Callable[[Job, str], list[dict[str, Any]]]] = {
    "check": check,
    "cost": cost,
    "operator": operator,
    "train": train,
}
