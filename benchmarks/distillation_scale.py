"""How peaked the distributions of self-attention distillation are, and how much its loss says beside Dice.

An untrained SSANetTrainer network of a planned configuration, two pre-processed cases of the data set:

    python benchmarks/distillation_scale.py 501 2d_half
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.errors import UserError
from nnunet_covid.losses.ssa_net import attention_distribution, attention_map, distillation_loss
from nnunet_covid.nnunet.dataset import dataset_name
from nnunet_covid.nnunet.training import DiceLoss
from nnunet_covid.trainers import SSANetTrainer

CASES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        name = dataset_name(args.dataset)
    except UserError as e:
        raise SystemExit(str(e)) from e
    folder = Path(nnUNet_preprocessed.get()) / name
    plans = PlansManager(load_json(folder / "nnUNetPlans.json"))
    configuration = plans.get_configuration(args.configuration)
    labels = plans.get_label_manager(load_json(folder / "dataset.json"))

    data = folder / configuration.data_identifier
    cases = infer_dataset_class(str(data))(str(data))
    images, targets = zip(*(_patch(cases, c, configuration.patch_size) for c in cases.identifiers[:CASES]), strict=True)
    torch.manual_seed(args.seed)
    network = SSANetTrainer.build_network_architecture(
        plans, configuration, images[0].shape[0], labels.num_segmentation_heads, True
    )
    image, target = torch.stack(images), torch.stack(targets)
    features = network.stage_features(image)
    peaks = [attention_distribution(attention_map(f)).flatten(1).max().item() for f in features]
    dice = DiceLoss(labels, ddp=False)(network(image)[0], target)
    weight = SSANetTrainer.distillation_weight
    encoder = list(network.encoder.parameters())
    of_dice = _norm(dice, encoder)
    print("largest value of the distribution, by stage:", *(f"{p:.3f}" for p in peaks))
    for detach in (True, False):
        loss = weight * distillation_loss(network.stage_features(image), detach=detach)
        print(f"detach={detach}: {weight} L_SA {loss.item():.4f}, Dice loss {dice.item():.3f}, ", end="")
        print(f"ratio of their gradients' norms in the encoder {_norm(loss, encoder) / of_dice:.2f}")


def _patch(cases: object, case: str, size: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The middle of a slice, zeros beyond its border."""
    image, target, *_ = cases.load_case(case)  # type: ignore[attr-defined]
    pair = [torch.from_numpy(a[:, 0]).float() for a in (image, target)]
    for axis, n in enumerate(size, start=1):
        start = max(0, (pair[0].shape[axis] - n) // 2)
        pair = [a.narrow(axis, start, min(n, a.shape[axis])) for a in pair]
    missing = [n for axis in (2, 1) for n in (0, size[axis - 1] - pair[0].shape[axis])]
    image, target = (torch.nn.functional.pad(a, missing) for a in pair)
    return image, target.clamp_min(0)


def _norm(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> float:
    gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return float(torch.stack([g.norm() for g in gradients if g is not None]).norm())


if __name__ == "__main__":
    main()
