"""Folds with few labelled cases, appended to a data set's splits_final.json; repeatable.

For fold k of the first five the training cases are shuffled by a seed of its own and the first N kept; the validation
cases stay, so that the same cases are scored with few and with all labels. More labels include fewer: the first 10 of
20 are the 10. nnU-Net numbers folds by their place in the file, and draws a random split for a number beyond it, so
the new folds follow the last one without a gap; the command prints their numbers.

Example, the collaborative trainer with 10 and with 40 labelled slices:

    python benchmarks/few_label_splits.py 501 --cases 10
    nnunet-covid sweep -d 501 -c 2d -f 0 1 5 6 -tr nnUNetTrainer CollaborativeTrainer --lengths 10epochs_50its
    nnunet-covid table -d 501 -c 2d -f 5 6 -tr nnUNetTrainer CollaborativeTrainer --lengths 10epochs_50its
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from nnunetv2.paths import nnUNet_preprocessed

from nnunet_covid.dataset_json import Split
from nnunet_covid.errors import UserError
from nnunet_covid.files import write_text
from nnunet_covid.nnunet.dataset import dataset_name
from nnunet_covid.raw_dataset.splits import NNUNET_SEED

FOLDS = 5


def with_few_labels(split: Split, fold: int, cases: int) -> Split:
    """The same fold with ``cases`` of its training cases, drawn by nnU-Net's seed plus the fold's number.

    Raises:
        ValueError: If it has fewer.
    """
    names = sorted(split["train"])
    if cases > len(names):
        msg = f"fold {fold} has {len(names)} training cases, not {cases}"
        raise ValueError(msg)
    order = np.random.RandomState(NNUNET_SEED + fold).permutation(len(names))
    return {"train": sorted(names[i] for i in order[:cases]), "val": list(split["val"])}


def append_few_label_folds(splits: list[Split], cases: int) -> tuple[list[Split], list[int]]:
    """All folds, and the numbers of those with few labels; what is there already keeps its number."""
    extended = list(splits)
    numbers = []
    for fold in range(min(FOLDS, len(splits))):
        few = with_few_labels(splits[fold], fold, cases)
        if few not in extended:
            extended.append(few)
        numbers.append(extended.index(few))
    return extended, numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="id or name, pre-processed, with splits_final.json")
    parser.add_argument("--cases", type=int, default=10, help="training cases per fold (default: 10)")
    args = parser.parse_args()
    try:
        path = Path(nnUNet_preprocessed.get()) / dataset_name(args.dataset) / "splits_final.json"
        splits, numbers = append_few_label_folds(json.loads(path.read_text(encoding="utf-8")), args.cases)
    except (UserError, ValueError) as e:
        raise SystemExit(str(e)) from e
    write_text(path, json.dumps(splits, indent=4) + "\n")
    for fold, number in enumerate(numbers):
        scored = len(splits[fold]["val"])
        print(f"fold {number}: {args.cases} training cases of fold {fold}, its {scored} validation cases")


if __name__ == "__main__":
    main()
