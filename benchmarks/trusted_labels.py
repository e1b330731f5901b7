"""Which of a model's labels are trusted at which η, and how many of them are right, on cases it was not trained on.

For every η: the share of all voxels that is trusted, and by class the share of the predicted voxels that is kept, how
many of the kept are right (precision), and how many of the reference's voxels they find (recall). Cases are all
pre-processed labelled ones but those of the fold's training, so that a fold with few labels is looked at on many.

    python benchmarks/trusted_labels.py MODEL_FOLDER --fold 5 [--checkpoint checkpoint_best.pth] [--eta 0.5 0.8 0.95]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_covid.semi_supervised.labelling import Classes

ETAS = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def held_out(folder: Path, fold: int) -> tuple[Any, list[str]]:
    """nnU-Net's data set of a folder of pre-processed cases, and the names of those not trained on."""
    splits = json.loads((folder.parent / "splits_final.json").read_text(encoding="utf-8"))
    data = infer_dataset_class(str(folder))(str(folder))
    return data, sorted(set(data.identifiers) - set(splits[fold]["train"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--checkpoint", default="checkpoint_final.pth")
    parser.add_argument("--eta", type=float, nargs="+", default=ETAS)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=False, device=torch.device(args.device), allow_tqdm=False
    )  # as the teacher sees a patch: once
    predictor.initialize_from_trained_model_folder(str(args.model), (args.fold,), args.checkpoint)
    predictor.network.load_state_dict(predictor.list_of_parameters[0])
    plans, configuration = predictor.plans_manager, predictor.configuration_manager
    classes = Classes(predictor.dataset_json, plans, ignore=True)
    data, cases = held_out(
        Path(nnUNet_preprocessed.get()) / plans.dataset_name / configuration.data_identifier, args.fold
    )
    found = []
    for case in cases:
        image, reference, *_ = data.load_case(case)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.asarray(image[:]))).float()
        found.append((classes.manager.apply_inference_nonlin(logits), np.maximum(np.asarray(reference[:])[0], 0)))

    print(f"{len(cases)} cases, {args.checkpoint}\n")
    print("| η | class | trusted, all voxels | kept of predicted | precision of kept | recall of kept |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for eta in args.eta:
        pairs = [classes.heads.trusted(p, [eta] * len(p), classes.manager.ignore_label) for p, _ in found]
        trusted = np.mean([float((kept != classes.manager.ignore_label).float().mean()) for kept, _ in pairs])
        for name, values in classes.names.items():
            kept, predicted, right, wanted = 0, 0, 0, 0
            for (label, before), (_, reference) in zip(pairs, found, strict=True):
                mine, theirs = np.isin(label, values), np.isin(reference, values)
                kept, predicted = kept + mine.sum(), predicted + np.isin(before, values).sum()
                right, wanted = right + (mine & theirs).sum(), wanted + theirs.sum()
            shares = (trusted, kept / predicted, right / kept if kept else float("nan"), right / wanted)
            print(f"| {eta:g} | {name} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
