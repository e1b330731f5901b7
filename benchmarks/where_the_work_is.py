"""Multiply-adds of a forward pass, by part of the network, on a plan's patch and batch of one.

python benchmarks/where_the_work_is.py PLANS.json 2d --trainers nnUNetTrainer InfNetTrainer
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nnunet_covid import trainers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", type=Path)
    parser.add_argument("configuration")
    parser.add_argument("--trainers", nargs="+", required=True)
    args = parser.parse_args()
    manager = PlansManager(str(args.plans))
    configuration = manager.get_configuration(args.configuration)
    print("| trainer | part | G multiply-adds | share |")
    print("| --- | --- | ---: | ---: |")
    for name in args.trainers:
        kind = getattr(trainers, f"{name}_1epochs")
        network = kind.build_network_architecture(manager, configuration, 1, 2, True).eval()
        with FlopCounterMode(network, display=False, depth=3) as counter, torch.no_grad():
            network(torch.zeros(1, 1, *configuration.patch_size))
        counts = {k: sum(v.values()) / 2e9 for k, v in counter.get_flop_counts().items()}
        total = counts["Global"]
        print(f"| {name} | all | {total:.2f} | 100 % |")
        for part, count in parts(network, counts).items():
            print(f"| | {part} | {count:.2f} | {100 * count / total:.0f} % |")


def parts(network: nn.Module, counts: dict[str, float]) -> dict[str, float]:
    """Counts of the network's children; a list of modules counts as the sum of its members."""
    root = type(network).__name__
    found = {}
    for name, child in network.named_children():
        if isinstance(child, nn.ModuleList):
            found[name] = sum(counts.get(f"{root}.{name}.{i}", 0.0) for i in range(len(child)))
        elif name == "encoder" and hasattr(getattr(network, "decoder", None), "encoder"):
            # nnU-Net's decoder holds its encoder, whose count therefore stands under the decoder's name
            found[name] = counts["Global"] - counts[f"{root}.decoder"]
        else:
            found[name] = counts.get(f"{root}.{name}", 0.0)
    return {name: count for name, count in found.items() if count}


if __name__ == "__main__":
    main()
