"""Two processes (gloo, CPU) take a step together: the same weights on both, relations of the whole batch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import planned
import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from nnunet_covid.losses.relation import mean_feature

SHARES = ((0, 2), (2, 4))
"""Images of the whole batch that each process gets (nnU-Net's own batch Dice cannot take uneven shares)."""
UNEVEN = ((0, 3), (3, 4))


def make_trainer(folder: Path) -> Any:
    """A trainer with the same weights in every process, without any data."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    from nnunet_covid.trainers.collaborative import CollaborativeTrainer

    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder / name)
    stock.infer_dataset_class = lambda _: None
    kind = type("Unlinked", (CollaborativeTrainer,), {"usable_link": lambda *_: None})
    torch.manual_seed(0)
    plans = planned.plans(stages=3, patch=[16, 16], batch_size=4)
    made = kind(plans, "2d", 0, planned.dataset_json(), torch.device("cpu"))
    made.initialize()
    made.network.train()
    made.current_epoch = 900
    return made


def batch(first: int, last: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(4, 1, 16, 16, generator=generator)[first:last] for _ in range(3)]
    target = torch.randint(0, 2, (4, 1, 16, 16), generator=generator)[first:last].short()
    return {
        **dict(zip(("data", "other", "unlabelled"), images, strict=True)),
        "target": [target, target[..., ::2, ::2]],
    }


def features() -> torch.Tensor:
    return torch.randn(4, 2, 3, 5, generator=torch.Generator().manual_seed(2))


def work(rank: int, folder: Path) -> None:
    """One of the processes."""
    made = make_trainer(folder / str(rank))
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    made.is_ddp = True
    made.network = DistributedDataParallel(made.network)
    made.loss = made._build_loss()
    results = made.train_step(batch(*SHARES[rank]))
    share = features()[slice(*UNEVEN[rank])].requires_grad_()
    mean = mean_feature(share, over_processes=True)
    (mean * torch.arange(5.0)).sum().backward()
    found = {
        "weights": made.bare_network.state_dict(),
        "results": results,
        "mean": mean.detach(),
        "gradient": share.grad,
    }
    torch.save(found, folder / f"{rank}.pth")
    distributed.destroy_process_group()


def test_weights_agree_and_relations_are_those_of_the_whole_batch(tmp_path: Path, monkeypatch: Any) -> None:
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")  # restored afterwards
    monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.infer_dataset_class", None)
    multiprocessing.spawn(work, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=False) for rank in range(2))
    alone = make_trainer(tmp_path / "alone")
    before = {key: value.clone() for key, value in alone.network.state_dict().items()}
    results = alone.train_step(batch(0, 4))
    shutil.rmtree(tmp_path / "alone")

    for key, value in first["weights"].items():
        assert torch.equal(value, second["weights"][key]), key
    for name in ("general_relation", "target_relation"):
        for found in (first, second):
            torch.testing.assert_close(torch.tensor(found["results"][name]), torch.tensor(results[name]))
    for key, value in alone.network.state_dict().items():
        if key.startswith("general_encoder."):  # learns from the relation loss alone
            torch.testing.assert_close(first["weights"][key], value, msg=key)
            assert key.endswith("conv.bias") or not torch.equal(value, before[key])

    # uneven shares: the mean of the whole batch, and its gradient once the processes' average has been taken
    whole = features().requires_grad_()
    (whole.mean(0) * torch.arange(5.0)).sum().backward()
    gradients = torch.cat((first["gradient"], second["gradient"]))
    torch.testing.assert_close(gradients / 2, whole.grad)
    for found in (first, second):
        torch.testing.assert_close(found["mean"], whole.detach().mean(0))
