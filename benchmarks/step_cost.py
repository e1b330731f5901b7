"""Time and peak memory of a training step, or of a prediction, as ratios against stock nnUNetTrainer on the same plan.

Every trainer runs in a process of its own on the same random batch; the rounds are interleaved, so that what else the
machine does falls on all alike, and the median over rounds counts.

    python benchmarks/step_cost.py PLANS.json 2d --trainers nnUNetTrainer InfNetTrainer [--device cuda]
    python benchmarks/step_cost.py PLANS.json 2d --trainers CollaborativeTrainer [--unlabelled | --predict]

    python benchmarks/step_cost.py PLANS.json 2d --trainers nnUNetTrainer_consistency [--device cuda]

A step of `nnunet-covid pretrain` with a trainer's network is measured as pretrain:TRAINER, with masks drawn before, by
the processes that load patches too:

    python benchmarks/step_cost.py PLANS.json 2d --trainers nnUNetTrainer pretrain:nnUNetTrainer

CollaborativeTrainer gets a batch of images of other diseases as large as the COVID batch, and with --unlabelled one of
unlabelled images. A trainer with ``_consistency`` gets both views of as many unlabelled images.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASELINE = "nnUNetTrainer"
PRETRAIN = "pretrain:"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
DATASET = {"channel_names": {"0": "x"}, "labels": {"background": 0, "infection": 1}, "file_ending": ".png"}


def make_trainer(name: str, plans_file: Path, configuration: str, device_name: str) -> Any:
    """An initialised trainer on a plan alone: no data set, random weights, nothing that lasts on the disk."""
    folder = tempfile.mkdtemp(prefix="step_cost_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        os.environ[variable] = folder
    import numpy as np
    import torch
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    from nnunet_covid import trainers
    from nnunet_covid.auxiliary_data.links import LinkedCases
    from nnunet_covid.auxiliary_data.unlabelled import UnlabelledCases
    from nnunet_covid.trainers import consistency

    stock.infer_dataset_class = lambda folder: None
    cases = LinkedCases("images", "images", ("a", "b"))
    consistency.linked_unlabelled = lambda *_: UnlabelledCases(cases, "link")
    no_data = {"usable_link": lambda *_: None, "general_checkpoint": lambda *_: None, "unlabelled_images": cases}
    kind = type(name, (getattr(trainers, f"{name}_1epochs"),), no_data)
    plans = {**json.loads(plans_file.read_text(encoding="utf-8")), "continue_training": False}
    trainer = kind(plans, configuration, 0, DATASET, torch.device(device_name))
    trainer.encoder_weights = None
    trainer.initialize()
    if hasattr(trainer, "reweighted"):
        trainer.reweighted.set_counts([4, 1])
    if isinstance(trainer, consistency.Consistency):
        trainer.start_teacher()
        trainer.draws = np.random.default_rng(0)
        trainer.on_train_epoch_start()
    return trainer


def random_batch(trainer: Any, *, unlabelled: bool = False) -> Callable[[], dict[str, Any]]:
    """A batch of the planned shape with everything that the trainer's step wants; every call gives a fresh target."""
    import torch

    manager = trainer.configuration_manager
    shape = (manager.batch_size, 1, *manager.patch_size)
    labels = (torch.rand(shape) > 0.8).short()
    target = [
        torch.nn.functional.interpolate(
            labels.float(), size=[round(s * f) for s, f in zip(manager.patch_size, scale, strict=True)]
        ).short()
        for scale in trainer._get_deep_supervision_scales()
    ]
    batch = {"data": torch.randn(shape)}
    if getattr(trainer, "general_weight", 0) > 0:
        batch["other"] = torch.randn(shape)
    if getattr(trainer, "uses_relations", False) and unlabelled:
        batch["unlabelled"] = torch.randn(shape)
    if hasattr(trainer, "unlabelled_loss"):
        batch["views"] = torch.randn(shape[0], 2, *shape[2:])
    return lambda: {**batch, "target": [t.clone() for t in target]}


def pretraining_step(trainer: Any) -> Callable[[], Any]:
    """A step of pre-training on random images."""
    from types import SimpleNamespace

    import torch

    from nnunet_covid.nnunet.training import unwrapped
    from nnunet_covid.pretraining.autoencoder import Autoencoder
    from nnunet_covid.pretraining.masking import block_mask
    from nnunet_covid.pretraining.options import PretrainingOptions
    from nnunet_covid.pretraining.steps import WHOLE, Pretraining

    options, manager = PretrainingOptions(), trainer.configuration_manager
    images = random_batch(trainer)()["data"]
    autoencoder = Autoencoder(unwrapped(trainer.network), manager, 1, skips=options.skips).to(trainer.device)
    mask = block_mask(len(images), manager.patch_size, autoencoder.stride, options.mask_share, torch.Generator())
    batches: Any = SimpleNamespace(options=options, share=WHOLE, images=len(images))
    compiled = trainer._do_i_compile()
    learning = Pretraining(autoencoder, batches, [True], Path(), trainer.device, compiled=compiled)
    return lambda: learning.step(images, mask)


def measure(
    name: str,
    plans_file: Path,
    configuration: str,
    device_name: str,
    steps: int,
    clock: Callable[[], float],
    what: str = "step",
) -> dict[str, Any]:
    """Seconds of each step, split into its parts, and peak memory in MiB beyond the idle trainer."""
    import torch

    trainer = make_trainer(name.removeprefix(PRETRAIN), plans_file, configuration, device_name)
    device = trainer.device
    batch = random_batch(trainer, unlabelled=what == "unlabelled")
    trainer.network.train()

    def step() -> None:
        trainer.train_step(batch())

    def predict() -> None:
        with torch.inference_mode():
            trainer.network(batch()["data"][:1].to(device))

    if what == "predict":
        trainer.network.eval()
        trainer.set_deep_supervision_enabled(False)
    action = predict if what == "predict" else step
    if name.startswith(PRETRAIN):
        action = pretraining_step(trainer)
    idle = peak_memory(device)
    seconds = []
    for _ in range(steps + 1):
        start = clock()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    parameters = sum(p.numel() for p in trainer.network.parameters()) / 1e6
    return {"seconds": seconds[1:], "memory": peak_memory(device) - idle, "parameters": parameters}


def peak_memory(device: Any) -> float:
    """Peak so far, MiB."""
    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("--trainers", nargs="+", default=[BASELINE, "InfNetTrainer", "InfNetStride8Trainer"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=3, help="measured steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: time of the processor, for one thread on a busy machine"
    )
    measured = parser.add_mutually_exclusive_group()
    for what, text in (("unlabelled", "a step with unlabelled images too"), ("predict", "a prediction of one patch")):
        measured.add_argument(f"--{what}", dest="what", action="store_const", const=what, default="step", help=text)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        clock = CLOCKS[args.clock]
        found = measure(args.one, args.plans, args.configuration, args.device, args.steps, clock, args.what)
        print("RESULT" + json.dumps(found))
        return

    names = list(dict.fromkeys([BASELINE, *args.trainers]))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            command = [sys.executable, __file__, str(args.plans), args.configuration, "--one", name]
            command += ["--device", args.device, "--steps", str(args.steps), "--clock", args.clock]
            command += [f"--{args.what}"] if args.what != "step" else []
            done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", check=True)
            line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
            results[name].append(json.loads(line.removeprefix("RESULT")))

    def median(name: str) -> tuple[float, float]:
        runs = results[name]
        return (
            statistics.median(s for run in runs for s in run["seconds"]),
            statistics.median(run["memory"] for run in runs),
        )

    base_time, base_memory = median(BASELINE)
    print("| trainer | parameters, M | seconds | time ratio | peak memory, MiB | memory ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in names:
        seconds, memory = median(name)
        parameters = results[name][0]["parameters"]
        print(
            f"| {name} | {parameters:.1f} | {seconds:.2f} | {seconds / base_time:.2f} "
            f"| {memory:.0f} | {memory / base_memory:.2f} |"
        )


if __name__ == "__main__":
    main()
