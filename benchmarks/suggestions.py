"""Do suggestions point at what a model gets wrong? On labelled cases of its data set that it was not trained on.

Ranks all of them with ``nnunet-covid suggest``, predicts them, and prints Spearman's rank correlation of the score with
the share of wrong voxels and with 1 - Dice (the worst class), and the share of wrong voxels of the first suggestions
against that of the others. The images are copied to a folder of their own, and nnU-Net's raw data is hidden, because
``suggest`` would leave out images that it knows.

    python benchmarks/suggestions.py MODEL_FOLDER --fold 5 [--first 10]
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from nnunetv2.paths import nnUNet_raw
from scipy.stats import spearmanr

from nnunet_covid.cli import main as run
from nnunet_covid.dataset_json import channel_names, read_dataset_json
from nnunet_covid.evaluation import evaluate_folders
from nnunet_covid.nnunet.cases import list_cases
from nnunet_covid.nnunet.dataset import read_splits


def command(*words: object) -> None:
    """``nnunet-covid`` with these words."""
    if status := run([*map(str, words)]):
        raise SystemExit(status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--first", type=int, default=10)
    args = parser.parse_args()

    dataset = args.model.resolve().parent.name
    description = read_dataset_json(args.model / "dataset.json")
    raw = Path(nnUNet_raw.get() or ".") / dataset
    trained = set((read_splits(dataset) or [])[args.fold]["train"])
    found = list_cases(raw / "imagesTr", description["file_ending"], len(channel_names(description)))
    unseen = [case for case in found if case.name not in trained]
    with tempfile.TemporaryDirectory() as home:
        images, references = Path(home) / "images", Path(home) / "references"
        images.mkdir()
        references.mkdir()
        for case in unseen:
            for file in case.files:
                shutil.copy(file, images)
            shutil.copy(raw / "labelsTr" / f"{case.name}{description['file_ending']}", references)
        os.environ.pop("nnUNet_raw", None)
        model = ("-f", args.fold, "-device", "cpu")
        command("suggest", args.model, "-i", images, "-n", len(unseen), "-o", f"{home}/suggested", *model)
        command("predict", "-i", images, "-o", f"{home}/predicted", "-m", args.model, *model)
        with open(f"{home}/suggested/suggestions.csv", newline="", encoding="utf-8") as stream:
            score = {row["image"]: float(row["score"]) for row in csv.DictReader(stream)}
        scored = evaluate_folders(f"{home}/predicted", references, distances=False).scores
    wrong, loss = (dict.fromkeys(score, 0.0) for _ in range(2))
    for one in scored:
        wrong[one.case] = max(wrong[one.case], one.values["label_mae"])
        loss[one.case] = max(loss[one.case], 1 - one.values["dice"])
    for what, values in (("share of wrong voxels", wrong), ("1 - Dice", loss)):
        correlation = spearmanr([score[name] for name in score], [values[name] for name in score]).statistic
        print(f"rank correlation of the score with {what}: {correlation:.2f}, {len(score)} cases")
    ordered = [wrong[name] for name in score]
    first, others = np.mean(ordered[: args.first]), np.mean(ordered[args.first :])
    print(f"wrong voxels: {first:.1%} in the first {args.first} suggestions, {others:.1%} in the others")


if __name__ == "__main__":
    main()
