"""What ``nnunet-covid doctor`` says of the machine: enough cores, memory and GPU for what is planned, and SLURM."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nnunet_covid.cli.installation import Finding
from nnunet_covid.files import environment_folder, read_json
from nnunet_covid.startup import container_limit, cores

GIB = 1 << 30
TRAINING = int(1.2 * GIB)
"""Of a training's process without its data: 1132 to 1199 MiB were measured on the CPU (docs/explanation/scale.md)."""
WORKER = GIB // 4
"""Of a worker beside what it shares with its parent; a guess on the safe side."""
PLANNED_FOR = {"nnUNetResEncUNetMPlans": 9, "nnUNetResEncUNetLPlans": 24, "nnUNetResEncUNetXLPlans": 40}
"""GiB of a GPU that nnU-Net's presets plan for; 8 otherwise."""


def examine_machine() -> Iterator[Finding]:
    """Cores, memory, shared memory and GPUs against the largest training that is planned; SLURM."""
    from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

    workers, there = get_allowed_n_proc_DA(), cores()
    if workers > max(1, there - 1):
        fewer = max(1, there - 1)
        remedy = f"export nnUNet_n_proc_DA={fewer}"
        yield Finding("cores", "note", f"{there}, and nnU-Net would start {workers} workers for each training", remedy)
    elif workers == 0:
        remedy = "before nnUNetv2_plan_and_preprocess: export nnUNet_n_proc_DA=1"
        yield Finding("cores", "note", f"{there}; with nnUNet_n_proc_DA=0 nnU-Net trains, but cannot plan", remedy)
    else:
        yield Finding("cores", "ok", f"{there}; nnU-Net starts {workers} workers for each training")
    name, batch = largest_planned()
    held = batch * (workers + max(6, workers // 2)) * 3 // 2 if workers else batch  # half as many for validation
    needed = TRAINING + workers * 3 // 2 * WORKER + held
    of = f"{workers} workers and batches of {name}" if name else f"{workers} workers"
    yield _enough("memory", _memory(), needed, of, "fewer workers (nnUNet_n_proc_DA), or a smaller batch")
    if Path("/dev/shm").is_dir():
        room = shutil.disk_usage("/dev/shm").total
        yield _enough("/dev/shm", room, held, of, "start the container with --ipc=host or --shm-size=8g")
    yield from _gpus()
    yield _slurm()


def _enough(subject: str, there: int, needed: int, of: str, remedy: str) -> Finding:
    detail = f"{there / GIB:.1f} GiB; a training with {of} takes about {needed / GIB:.1f}"
    return Finding(subject, "ok", detail) if there >= needed else Finding(subject, "note", detail, remedy)


def _memory() -> int:
    """Bytes, of the machine or of the container's limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = container_limit("memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def largest_planned() -> tuple[str, int]:
    """Data set and configuration with the largest batch below ``nnUNet_preprocessed``, and its bytes; 0 if none."""
    found = ("", 0)
    for file in _plans():
        described = read_json(file.parent / "dataset.json") or {}
        channels = len(described.get("channel_names") or described.get("modality") or "1")
        for name, entry in ((read_json(file) or {}).get("configurations") or {}).items():
            size = _batch_bytes(entry, channels) if isinstance(entry, dict) else 0
            found = max(found, (f"{file.parent.name} {name}", size), key=lambda one: one[1])
    return found


def _plans() -> list[Path]:
    folder = environment_folder("nnUNet_preprocessed")
    return [] if folder is None else sorted(folder.glob("Dataset*/*Plans*.json"))


def _batch_bytes(entry: dict[str, Any], channels: int) -> int:
    """Images in single precision and labels in 16 bits, which deep supervision keeps at several sizes."""
    try:
        return int(entry["batch_size"]) * math.prod(entry["patch_size"]) * (4 * channels + 3)
    except (KeyError, TypeError, ValueError):  # inherits it
        return 0


def _gpus() -> Iterator[Finding]:
    import torch

    wanted = max((PLANNED_FOR.get(file.stem, 8) for file in _plans()), default=8)
    for number in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(number).total_memory
        detail = f"{torch.cuda.get_device_name(number)}, {memory / GIB:.0f} GiB; the plans are made for {wanted}"
        remedy = "plan again with -gpu_memory_target" if memory < 0.95 * wanted * GIB else ""
        yield Finding(f"GPU {number}", "note" if remedy else "ok", detail, remedy)
    if torch.cuda.device_count() > 1:
        count = torch.cuda.device_count()
        yield Finding("several GPUs", "ok", f"one training each: nnunet-covid sweep FILE --jobs {count}")


def _slurm() -> Finding:
    if shutil.which("sinfo") is None:
        return Finding("SLURM", "ok", "none here; nnunet-covid sweep runs on this machine")
    if importlib.util.find_spec("submitit") is None:
        return Finding("SLURM", "note", "there, but sweeps need submitit", 'pip install "nnunet_covid[cluster]"')
    try:
        asked = ["sinfo", "--noheader", "--format=%P %a %l"]
        done = subprocess.run(asked, capture_output=True, encoding="utf-8", errors="replace", timeout=20)
    except subprocess.SubprocessError:
        done = None
    if done is None or done.returncode:
        return Finding("SLURM", "note", "installed, but does not answer", "ask for a login node, or leave it")
    partitions = ", ".join(line.split()[0] for line in done.stdout.splitlines() if line.strip())
    return Finding("SLURM", "ok", f"partitions {partitions}; nnunet-covid sweep FILE --executor slurm")
