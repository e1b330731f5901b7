"""The table of ``cross_validate.py``: Dice per method over all validation cases, and paired differences.

python benchmarks/cross_validation_table.py 501 --configuration 2d_half --length 10epochs_50its
"""

from __future__ import annotations

import argparse
import itertools
import re
from pathlib import Path

import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

from nnunet_covid.evaluation.paired_statistics import bootstrap_interval

Key = tuple[int, int, str]  # seed, fold, case


def dice_per_case(results: Path, configuration: str, length: str) -> dict[str, dict[Key, float]]:
    """Dice of class 1 of every validation case of every finished run, by trainer."""
    pattern = re.compile(rf"^(.+)_{length}_seed(\d+)__nnUNetPlans__{configuration}$")
    found: dict[str, dict[Key, float]] = {}
    for folder in sorted(results.iterdir()):
        match = pattern.match(folder.name)
        if not match:
            continue
        for summary in sorted(folder.glob("fold_*/validation/summary.json")):
            fold = int(summary.parents[1].name.removeprefix("fold_"))
            for case in load_json(summary)["metric_per_case"]:
                name = Path(case["reference_file"]).stem
                found.setdefault(match[1], {})[int(match[2]), fold, name] = case["metrics"]["1"]["Dice"]
    return found


def paired(a: dict[Key, float], b: dict[Key, float]) -> np.ndarray:
    """Mean difference per case over the seeds that both have."""
    common = sorted(set(a) & set(b))
    cases = itertools.groupby(sorted(common, key=lambda k: k[1:]), key=lambda k: k[1:])
    return np.array([np.mean([a[k] - b[k] for k in keys]) for _, keys in cases])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--configuration", default="2d_half")
    parser.add_argument("--length", default="10epochs_50its")
    parser.add_argument("--baseline", default="nnUNetTrainer")
    args = parser.parse_args()
    dataset = maybe_convert_to_dataset_name(int(args.dataset) if args.dataset.isdigit() else args.dataset)
    found = dice_per_case(Path(nnUNet_results.get()) / dataset, args.configuration, args.length)

    print(f"| trainer | folds | seeds | cases | Dice, mean ± sd | difference to {args.baseline} | 95 % interval | |")
    print("| --- | --- | --- | ---: | --- | ---: | --- | --- |")
    for name, scores in found.items():
        values = np.array(list(scores.values()))
        seeds = sorted({seed for seed, _, _ in scores})
        folds = sorted({fold for _, fold, _ in scores})
        row = [name, _join(folds), _join(seeds), str(len({k[1:] for k in scores}))]
        row.append(f"{np.nanmean(values):.3f} ± {np.nanstd(values):.3f}")
        if name != args.baseline and args.baseline in found:
            differences = paired(scores, found[args.baseline])
            low, high = bootstrap_interval(differences)
            verdict = "no difference shown" if low <= 0 <= high else ("higher" if low > 0 else "lower")
            if len(seeds) < 2 and verdict != "no difference shown":
                verdict += ", with one seed"
            row += [f"{differences.mean():+.3f} ({len(differences)} cases)", f"{low:+.3f} … {high:+.3f}", verdict]
        else:
            row += ["", "", ""]
        print("| " + " | ".join(row) + " |")


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


if __name__ == "__main__":
    main()
