"""Spatial convolution, forward and backward, against a loop over slices that are concatenated at the end.

Both run in the same process on the same numbers, in turns, so that what else the machine does falls on both alike; the
best of the rounds counts. Ends with status 1 where the ratio is below the bound (1.5 on a CPU, 1 on a GPU) or where
the two disagree.

    python benchmarks/spatial_convolution.py [--threads 1] [--clock cpu] [--device cuda]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from nnunet_covid.networks.spatial_convolution import SpatialConvolution

CHANNELS = 512
SIZES = (16, 24)
BATCHES = (2, 12)
BOUNDS = {"cpu": 1.5, "cuda": 1.0}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class SliceLoop(nn.Module):
    """Eq. (5) as it is usually written: a list of slices, a convolution for each, and a concatenation."""

    def __init__(self, like: SpatialConvolution) -> None:
        super().__init__()
        self.weights = nn.ParameterList()
        for direction, weight in enumerate(like.weights):
            kernel = weight.detach().permute(2, 1, 0)[:, :, None]
            kernel = kernel if direction < 2 else kernel.transpose(2, 3)
            self.weights.append(kernel.contiguous())  # as a convolution layer holds it

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for direction, weight in enumerate(self.weights):
            axis, reverse = 2 + direction // 2, direction % 2 == 1
            slices = list(x.split(1, dim=axis))
            order = range(len(slices))[::-1] if reverse else range(len(slices))
            padding = [k // 2 for k in weight.shape[2:]]
            before = order[0]
            for step in order[1:]:
                slices[step] = slices[step] + functional.relu(
                    functional.conv2d(slices[before], weight, None, 1, padding)
                )
                before = step
            x = torch.cat(slices, dim=axis)
        return x


def seconds(run: Callable[[], None], device: str, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def compare(
    batch: int, size: int, device: str, rounds: int, clock: Callable[[], float]
) -> dict[str, tuple[float, float]]:
    """Best seconds of forward and backward of both; checks that they agree."""
    torch.manual_seed(0)
    fast = SpatialConvolution(CHANNELS).to(device)
    slow = SliceLoop(fast).to(device)
    image = torch.randn(batch, CHANNELS, size, size, device=device)
    grad = torch.randn_like(image)
    best = {}
    results = {}
    for _ in range(rounds + 1):
        for name, module in (("slice loop", slow), ("ours", fast)):
            x = image.clone().requires_grad_()
            module.zero_grad()
            outputs: list[torch.Tensor] = []
            forward = seconds(lambda m=module, x=x, o=outputs: o.append(m(x)), device, clock)
            backward = seconds(lambda o=outputs: o[0].backward(grad), device, clock)
            results[name] = outputs[0].detach(), x.grad
            times = best.setdefault(name, [])
            times.append((forward + backward, forward, backward))
    torch.testing.assert_close(results["ours"][0], results["slice loop"][0], atol=1e-3, rtol=1e-3)
    # a message next to zero may pass in one and not in the other, so single gradients may differ
    apart = (results["ours"][1] - results["slice loop"][1]).norm() / results["slice loop"][1].norm()
    if apart > 0.01:
        sys.exit(f"the gradients differ by {apart:.1%}")
    return {name: min(times[1:])[1:] for name, times in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=BOUNDS, default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: time of the processor, for one thread on a busy machine"
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds, after one that is not")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bound = BOUNDS[args.device]
    print("| batch | map | slice loop, s (forward + backward) | ours, s | ratio |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    ratios = []
    for size, batch in itertools.product(args.sizes, args.batches):
        times = compare(batch, size, args.device, args.rounds, CLOCKS[args.clock])
        (f0, b0), (f1, b1) = times["slice loop"], times["ours"]
        ratios.append((f0 + b0) / (f1 + b1))
        print(f"| {batch} | {size}×{size} | {f0:.3f} + {b0:.3f} | {f1:.3f} + {b1:.3f} | {ratios[-1]:.2f} |", flush=True)
    if min(ratios) < bound:
        sys.exit(f"the smallest ratio is {min(ratios):.2f}, the bound {bound}")


if __name__ == "__main__":
    main()
