"""A patch and its mirrored copies in one forward pass against one pass each, on the CPU: time, and layers set apart.

python benchmarks/mirrored_patches.py MODEL_FOLDER --sizes 128 96 256 192 512 512
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nnunet_covid.nnunet.exact_batches import ExactBatches, one_by_one
from nnunet_covid.nnunet.predictor import TrainedModel

COPIES = 4


def milliseconds(answer: Callable[[torch.Tensor], torch.Tensor], patches: torch.Tensor, repeats: int) -> float:
    """Of one answer, the mean after one that is not counted."""
    with torch.inference_mode():
        answer(patches)
        start = time.perf_counter()
        for _ in range(repeats):
            answer(patches)
    return (time.perf_counter() - start) / repeats * 1000


def main() -> None:
    """Print a line per size of patch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fold", default="0")
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 96, 512, 512], help="rows and columns, in pairs")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    model = TrainedModel(args.model, folds=[args.fold], device="cpu")
    for size in zip(args.sizes[::2], args.sizes[1::2], strict=True):
        patches = torch.randn(COPIES, model.channels, *size)
        together = ExactBatches(model.network, patches.shape)
        times = [
            milliseconds(answer, patches, args.repeats)
            for answer in (together, lambda patches: one_by_one(model.network, patches))
        ]
        bits = "same bits" if together.exact else "other bits"
        print(f"{size[0]}×{size[1]}: together {times[0]:.1f} ms, alone {times[1]:.1f} ms, ", end="")
        print(f"{len(together.apart)} layers apart, {bits}")


if __name__ == "__main__":
    main()
