"""What suggestions are worth, on labelled cases of the data set that a model was not trained on.

Ranks them with ``nnunet-covid suggest``, predicts them, and prints Spearman's rank correlation of the score with the
share of wrong voxels and with 1 - Dice (the worst class), and the share of wrong voxels of the first suggestions
against that of the others. The images are copied to a folder of their own, and nnU-Net's raw data is hidden, because
``suggest`` would leave out images that it knows.

    python benchmarks/suggestions.py MODEL_FOLDER --fold 5 [--first 10]

With ``--label N`` two folds are appended to the data set's splits_final.json, whose numbers are printed: the training
cases of the fold and N suggested ones, and as many drawn ones, out of all cases but those of its validation. What
labelling is worth is then the Dice of trainings on both, on the same validation cases.

    python benchmarks/suggestions.py MODEL_FOLDER --fold 5 --label 10 [--seed 0]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw
from scipy.stats import spearmanr

from nnunet_covid.cli import main as run
from nnunet_covid.dataset_json import channel_names, read_dataset_json
from nnunet_covid.evaluation import evaluate_folders
from nnunet_covid.files import write_text
from nnunet_covid.nnunet.cases import list_cases
from nnunet_covid.nnunet.dataset import read_splits


def command(*words: object) -> None:
    """``nnunet-covid`` with these words."""
    if status := run([*map(str, words)]):
        raise SystemExit(status)


def copy_unseen(model: Path, raw: Path, without: set[str], home: Path) -> int:
    """Images and references of the cases that are not in ``without``; returns how many."""
    description = read_dataset_json(model / "dataset.json")
    ending = description["file_ending"]
    images, references = home / "images", home / "references"
    images.mkdir()
    references.mkdir()
    found = list_cases(raw / "imagesTr", ending, len(channel_names(description)))
    unseen = [case for case in found if case.name not in without]
    for case in unseen:
        for file in case.files:
            shutil.copy(file, images)
        shutil.copy(raw / "labelsTr" / f"{case.name}{ending}", references)
    return len(unseen)


def suggested(folder: Path) -> dict[str, float]:
    """Image to score, in the order of rank."""
    with (folder / "suggestions.csv").open(newline="", encoding="utf-8") as stream:
        return {row["image"]: float(row["score"] or 0) for row in csv.DictReader(stream)}


def point_at_errors(home: Path, model: tuple[Any, ...], number: int, first: int) -> None:
    """Print what the score says about errors."""
    command("suggest", *model[:1], "-i", home / "images", "-n", number, "-o", home / "suggested", *model[1:])
    command("predict", "-i", home / "images", "-o", home / "predicted", "-m", *model)
    score = suggested(home / "suggested")
    scored = evaluate_folders(home / "predicted", home / "references", distances=False).scores
    wrong, loss = (dict.fromkeys(score, 0.0) for _ in range(2))
    for one in scored:
        wrong[one.case] = max(wrong[one.case], one.values["label_mae"])
        loss[one.case] = max(loss[one.case], 1 - one.values["dice"])
    for what, values in (("share of wrong voxels", wrong), ("1 - Dice", loss)):
        correlation = spearmanr([score[name] for name in score], [values[name] for name in score]).statistic
        print(f"rank correlation of the score with {what}: {correlation:.2f}, {len(score)} cases")
    ordered = [wrong[name] for name in score]
    print(f"wrong voxels: {np.mean(ordered[:first]):.1%} in the first {first} suggestions, ", end="")
    print(f"{np.mean(ordered[first:]):.1%} in the others")


def append_folds(home: Path, model: tuple[Any, ...], splits: list[Any], fold: int, number: int, seed: int) -> None:
    """Add a fold with the suggested cases and one with drawn ones, and print their numbers."""
    for kind, options in (("suggested", ()), ("drawn", ("--random", "--seed", seed))):
        command("suggest", *model[:1], "-i", home / "images", "-n", number, "-o", home / kind, *model[1:], *options)
        chosen = list(suggested(home / kind))
        split = {"train": sorted([*splits[fold]["train"], *chosen]), "val": splits[fold]["val"]}
        if split not in splits:
            splits.append(split)
        print(f"fold {splits.index(split)}: fold {fold} and {number} {kind} cases, {' '.join(chosen)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--first", type=int, default=10)
    parser.add_argument("--label", type=int, metavar="N", help="append folds with N suggested and N drawn cases")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    args = parser.parse_args()

    dataset = args.model.resolve().parent.name
    raw = Path(nnUNet_raw.get() or ".") / dataset
    splits = list(read_splits(dataset) or [])
    without = set(splits[args.fold]["train"]) | (set(splits[args.fold]["val"]) if args.label else set())
    model = (args.model, "-f", args.fold, "-device", "cpu")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        number = copy_unseen(args.model, raw, without, home)
        os.environ.pop("nnUNet_raw", None)
        if not args.label:
            point_at_errors(home, model, number, args.first)
            return
        append_folds(home, model, splits, args.fold, args.label, args.seed)
    path = Path(nnUNet_preprocessed.get() or ".") / dataset / "splits_final.json"
    write_text(path, json.dumps(splits, indent=4) + "\n")


if __name__ == "__main__":
    main()
