"""Two processes (gloo, CPU) with a share of the batch each have the loss of one process with the whole batch.

What is tested is that nnU-Net's conversion keeps the network and that the trainer's loss is that of all images: a mean
over them, or with Dice over the batch one that knows of the other process.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import planned
import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import synchronised

SHARES = ((0, 2), (2, 4))
TRAINERS = (
    "InfNetPretrainedTrainer",
    "InfNetPretrainedBalancedTrainer",
    "InfNetPretrainedDiceCETrainer",
    "UNetPretrainedTrainer",
)


def make_trainer(name: str, folder: Path) -> Any:
    """A trainer with the same weights in every process, without any data."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    from nnunet_covid import trainers

    for kind in ("raw", "preprocessed", "results"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{kind}"] = str(folder / kind)
    stock.infer_dataset_class = lambda _: None
    torch.manual_seed(0)
    plans = planned.plans(patch=[64, 64], batch_size=4)
    made = getattr(trainers, name)(plans, "2d", 0, planned.dataset_json(), torch.device("cpu"))
    made.encoder_weights = None
    made.initialize()
    made.network.train()
    return made


def batch(made: Any, first: int, last: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(4, 1, 64, 64, generator=generator)[first:last]
    target = torch.zeros(4, 1, 64, 64)
    for i in range(4):
        target[i, :, 10 : 20 + 8 * i, 12 : 30 + 6 * i] = 1
    sizes = [[round(64 * factor) for factor in scale] for scale in made._get_deep_supervision_scales()]
    maps = [nn.functional.interpolate(target[first:last], size).short() for size in sizes]
    return {"data": data, "target": maps}


def work(rank: int, folder: Path) -> None:
    """One of the processes."""
    trainers = {name: make_trainer(name, folder / str(rank)) for name in TRAINERS}
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    nn.SyncBatchNorm.forward = synchronised  # type: ignore[method-assign]
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # asks for a GPU
    for name, made in trainers.items():
        made.is_ddp = True
        made.loss = made._build_loss()
        made.network = DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(made.network))
        torch.save(float(made.train_step(batch(made, *SHARES[rank]))["loss"]), folder / f"{name}_{rank}.pth")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the losses of both processes."""
    folder = tmp_path_factory.mktemp("shared")
    multiprocessing.spawn(work, args=(folder,), nprocs=2)
    return folder


@pytest.mark.parametrize("name", TRAINERS)
def test_two_processes_have_the_loss_of_one(
    name: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", "")  # restored afterwards
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", None)
    losses = [torch.load(shared / f"{name}_{rank}.pth", weights_only=False) for rank in range(2)]
    made = make_trainer(name, tmp_path)
    alone = float(made.train_step(batch(made, 0, 4))["loss"])
    assert sum(losses) / 2 == pytest.approx(alone, rel=1e-4)
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)
