"""Two processes (gloo, CPU) learn from different images: one student, one teacher, one set of counts."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import planned
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import without_gpu

STEPS = 3


def make_trainer(folder: Path, name: str = "nnUNetTrainer", size: int = 16) -> Any:
    """A trainer with the same weights in every process, without any data."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    from nnunet_covid import trainers
    from nnunet_covid.auxiliary_data.links import LinkedCases
    from nnunet_covid.auxiliary_data.unlabelled import UnlabelledCases
    from nnunet_covid.trainers import consistency

    for place in ("raw", "preprocessed", "results"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{place}"] = str(folder / place)
    stock.infer_dataset_class = lambda _: None
    cases = UnlabelledCases(LinkedCases("images", "images", ("a", "b")), "link")
    consistency.linked_unlabelled = lambda *_: cases
    torch.manual_seed(0)
    kind: Any = getattr(trainers, f"{name}_consistency_2epochs_3its")
    made = kind(
        planned.plans(stages=3, patch=[size, size], batch_size=4), "2d", 0, planned.dataset_json(), torch.device("cpu")
    )
    made.etas = [0.5, 0.5]
    made.initialize()
    return made


def batch(rank: int, step: int, size: int = 16, maps: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(10 * step + rank)
    images = torch.randn(2, 3, size, size, generator=generator)
    target = torch.randint(0, 2, (2, 1, size, size), generator=generator).short()
    targets = [target[..., :: 2**i, :: 2**i] for i in range(maps)]
    return {"data": images[:, :1], "views": images[:, 1:], "target": targets}


def joined(rank: int, folder: Path, name: str = "nnUNetTrainer", size: int = 16) -> Any:
    """The trainer of one of two processes, in its first epoch."""
    made = make_trainer(folder / str(rank), name, size)
    meeting = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    made.is_ddp, made.local_rank = True, rank
    made.network = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(made.network))
    made.loss = made._build_loss()
    made.start_teacher()
    made.draws = np.random.default_rng(rank)
    made.on_train_epoch_start()
    return made


def work(rank: int, folder: Path) -> None:
    """One of the processes."""
    made = joined(rank, folder)
    outputs = [made.train_step(batch(rank, step)) for step in range(STEPS)]
    seen = made.sums.counts("seen")
    made.on_train_epoch_end(outputs)
    with torch.no_grad():
        made.on_validation_epoch_start()
        made.on_validation_epoch_end([made.validation_step(batch(rank, 99))])
    found = {
        "teacher": {key: value.clone() for key, value in made.network.module.state_dict().items()},
        "student": {key: value.clone() for key, value in made._aside.state_dict().items()},
        "counts": made.running_counts.counts,
        "seen": seen,
        "logged": {key: made.logger.get_value(key, step=-1) for key in ("agreement", "trusted", "student_fg_dice")},
    }
    torch.save(found, folder / f"{rank}.pth")
    distributed.destroy_process_group()


def found_by_two(work: Callable[[int, Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """What each of two processes has saved of its work."""
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")  # restored afterwards
    multiprocessing.spawn(work, args=(folder,), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pth", weights_only=False) for rank in range(2))
    return first, second


def test_every_process_has_the_same_teacher_student_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = found_by_two(work, tmp_path, monkeypatch)
    for part in ("teacher", "student"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert not torch.equal(*(next(iter(first[part].values())) for part in ("teacher", "student")))
    assert first["seen"] != second["seen"], "each has images of its own"
    assert first["counts"] == second["counts"] == {key: first["seen"][key] + second["seen"][key] for key in ("0", "1")}
    assert first["logged"] == second["logged"]


def work_with_batch_norm(rank: int, folder: Path) -> None:
    """One of two processes that synchronise batch norm, of which the second trusts no voxel."""
    without_gpu()
    made = joined(rank, folder, "UNetPretrainedScratchTrainer", 64)
    made.etas = [float(rank)] * 2
    made.train_step(batch(rank, 0, 64, len(made._get_deep_supervision_scales())))
    found = {"trusted": made.sums.trusted(), "network": made.network.module.state_dict()}
    torch.save(found, folder / f"{rank}.pth")
    distributed.destroy_process_group()


def test_a_process_that_trusts_no_voxel_keeps_the_others_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = found_by_two(work_with_batch_norm, tmp_path, monkeypatch)
    assert (first["trusted"], second["trusted"]) == (1, 0)
    for key, value in first["network"].items():
        assert torch.equal(value, second["network"][key]), key
