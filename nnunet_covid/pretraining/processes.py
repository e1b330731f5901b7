"""One pre-training by several processes, a GPU each: every one takes its images of each batch, all learn the same.

Gradients are averaged, so that the step is that of one process with the whole batch.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

from nnunet_covid.errors import UserError
from nnunet_covid.files import replacing


@dataclass(frozen=True)
class Share:
    """What one of the processes does.

    Attributes:
        rank: Its number, from 0 on; 0 writes the files.
        processes: How many there are.
    """

    rank: int = 0
    processes: int = 1

    def rows(self, images: int) -> range:
        """Its images of a batch."""
        return range(self.rank, images, self.processes)

    def weight(self, images: int) -> float:
        """What its mean over its images counts in the mean of all processes' means, which is then that of the batch."""
        return len(self.rows(images)) * self.processes / images

    def average(self, tensors: Iterable[torch.Tensor | None]) -> None:
        """Put the mean over the processes in the place of each tensor."""
        if self.processes > 1:
            own = [tensor for tensor in tensors if tensor is not None]
            means = torch.cat([tensor.reshape(-1) for tensor in own]) / self.processes
            distributed.all_reduce(means)
            for tensor, mean in zip(own, means.split([tensor.numel() for tensor in own]), strict=True):
                tensor.copy_(mean.view_as(tensor))

    def synchronised(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with batch norm over all processes, as nnU-Net has it on GPUs; its layers are the same ones."""
        together = self.processes > 1 and device.type == "cuda"
        return nn.SyncBatchNorm.convert_sync_batchnorm(network) if together else network


def in_processes(count: int, device: torch.device, work: Callable[[Share, Callable[[], None]], Any]) -> Any:
    """Do some work in several new processes.

    Args:
        count: How many.
        device: Its type; of GPUs each process sees one, the first of those that this process sees.
        work: Can be pickled; is given its share and a function that meets the others, to be called once.

    Returns:
        What the first process returned; it is handed over in a file, which a pipe that nobody reads yet could not hold.

    Raises:
        UserError: The first that one of them raised.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            multiprocessing.spawn(_child, (count, device.type, folder, work), count)
        except (multiprocessing.ProcessExitedException, multiprocessing.ProcessRaisedException):
            for told in folder.glob("error_*"):
                raise pickle.loads(told.read_bytes()) from None
            raise
        return pickle.loads((folder / "result").read_bytes())


def _child(rank: int, count: int, device: str, folder: Path, work: Callable[..., Any]) -> None:
    if device == "cuda":
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = seen.split(",")[rank] if seen else str(rank)

    def meet() -> None:
        backend = "nccl" if device == "cuda" else "gloo"
        distributed.init_process_group(backend, init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=count)

    try:
        result = work(Share(rank, count), meet)
        if rank == 0:
            (folder / "result").write_bytes(pickle.dumps(result))
    except UserError as e:
        with replacing(folder / f"error_{rank}") as unfinished:  # the other processes may end this one meanwhile
            unfinished.write_bytes(pickle.dumps(e))
        raise SystemExit(2) from e
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
