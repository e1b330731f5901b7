"""Multi-GPU training on the CPU: what asks for a GPU in torch and nnU-Net is replaced by what it computes."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel


def synchronised(self: nn.SyncBatchNorm, x: torch.Tensor) -> torch.Tensor:
    """Batch norm with the mean and variance of all processes' images; torch's own works on GPUs alone."""
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *(1,) * (x.ndim - 2))
    if self.training:
        count = x.numel() / x.shape[1] * distributed.get_world_size()
        mean = all_reduce(x.sum(axes)) / count
        centred = x - mean.view(shape)
        variance = all_reduce(centred.square().sum(axes)) / count
        if self.running_mean is not None and self.running_var is not None:
            rate = self.momentum or 0.1
            self.running_mean.lerp_(mean.detach(), rate)
            self.running_var.lerp_(variance.detach() * count / max(1.0, count - 1), rate)
    else:
        assert self.running_mean is not None
        assert self.running_var is not None
        variance = self.running_var
        centred = x - self.running_mean.view(shape)
    scaled = centred / (variance.view(shape) + self.eps).sqrt()
    return scaled * self.weight.view(shape) + self.bias.view(shape)


def without_gpu() -> None:
    """In a process of its own: synchronised batch norm, data parallel training and nnU-Net's trainer on the CPU."""
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock

    nn.SyncBatchNorm.forward = synchronised  # type: ignore[method-assign]
    DistributedDataParallel._passing_sync_batchnorm_handle = lambda *_: None  # asks for a GPU
    torch.cuda.set_device = lambda _: None
    stock.DDP = lambda network, **_: DistributedDataParallel(network)
    device: Any = property(lambda self: torch.device("cpu"), lambda self, value: None)
    stock.nnUNetTrainer.device = device
