"""What a round of pseudo labels costs beyond its gradient steps and forward passes, against nnU-Net's commands by hand.

Both ways start from the same trained model and do the same rounds: label K images, add them, train the same number of
gradient steps on the enlarged set. By hand a round is

    nnUNetv2_predict           on the K images
    copy images and labels     into the raw data set, rewrite splits_final.json
    nnUNetv2_preprocess        which pre-processes the whole data set again
    nnUNetv2_train -pretrained_weights

Of both the same gradient steps and forward passes are taken off: those of ``pseudo-label`` are measured in the run,
those by hand are taken to cost the same, so that everything else they do is counted and nothing more.

    python benchmarks/pseudo_label_overhead.py Dataset501_COVIDSemiSeg 2d_half imagesUn --slices 15 --steps 10
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

from nnunet_covid.semi_supervised.experiment import Experiment, find_experiment
from nnunet_covid.semi_supervised.options import make_options
from nnunet_covid.semi_supervised.pseudo_label_run import run_pseudo_labels

NUMBER = 899
MANUAL = f"Dataset{NUMBER}_ByHand"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="full name; planned, pre-processed, with splits_final.json")
    parser.add_argument("configuration")
    parser.add_argument("images", type=Path, help="unlabelled images")
    parser.add_argument("--slices", type=int, default=15, help="size of the pool (default: %(default)s)")
    parser.add_argument("-k", type=int, default=5, help="images per round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps per round (default: %(default)s)")
    parser.add_argument("--trainer", default="nnUNetTrainer", help="without a length (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only-ours", action="store_true", help="leave out the loop by hand")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Path(folder) / "pool"
        pool.mkdir()
        for path in sorted(args.images.iterdir())[: args.slices]:
            (pool / path.name).symlink_to(path.resolve())
        experiment, ours = pseudo_label(args, pool)
        report_ours(ours, experiment)
        if not args.only_ours:
            report_by_hand(args, ours, by_hand(args, experiment))


def pseudo_label(args: argparse.Namespace, pool: Path) -> tuple[Experiment, dict[str, Any]]:
    """The rounds of this project; returns the units of the state."""
    trainer = f"{args.trainer}_1epochs_{args.steps}its"
    device = torch.device(args.device)
    experiment = find_experiment(args.dataset, args.configuration, "0", trainer, "Overhead", "nnUNetPlans", device)
    shutil.rmtree(experiment.model_folder, ignore_errors=True)
    shutil.rmtree(experiment.label_folder, ignore_errors=True)
    given = {"per_round": args.k, "max_rounds": args.rounds, "round_epochs": 1, "round_iterations": args.steps}
    options = make_options("random", {**given, "two_step": False, "learning_rate": 0.0})
    run_pseudo_labels(experiment, options, pool)
    return experiment, json.loads((experiment.report_folder / "state.json").read_text())["units"]


def report_ours(units: dict[str, Any], experiment: Experiment) -> None:
    """Time of each round, split into computing and all else."""
    print("| round | whole, s | steps and forward passes, s | all else, s | share |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for number in rounds_of(units):
        whole, computing = times(units, number)
        print(f"| {number} | {whole:.2f} | {computing:.2f} | {whole - computing:.2f} | {1 - computing / whole:.1%} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"pool of {len(units['pool']['result']['cases'])}; peak memory of the process {peak:.0f} MiB")


def rounds_of(units: dict[str, Any]) -> list[int]:
    """Numbers of the rounds, without round 0."""
    return sorted({int(name.partition("/")[0]) for name in units if name[0].isdigit()} - {0})


def times(units: dict[str, Any], number: int) -> tuple[float, float]:
    """Seconds of a round, and of its gradient steps and forward passes."""
    mine = [unit for name, unit in units.items() if name.startswith(f"{number}/")]
    results = [unit["result"] for unit in mine if isinstance(unit["result"], dict)]
    return sum(unit["seconds"] for unit in mine), sum(r.get("forward_seconds", 0.0) for r in results)


def by_hand(args: argparse.Namespace, experiment: Experiment) -> list[dict[str, float]]:
    """The loop of nnU-Net's own commands on a copy of the data set; seconds of each command by round."""
    raw, preprocessed, results = (Path(p.require()) for p in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results))
    clean_up = [base / MANUAL for base in (raw, preprocessed, results)]
    for folder in clean_up:
        shutil.rmtree(folder, ignore_errors=True)
    try:
        shutil.copytree(raw / args.dataset, raw / MANUAL, ignore=shutil.ignore_patterns("imagesUn", "imagesTs"))
        ignored = shutil.ignore_patterns("pseudo_labels", "*_unlabelled_*")
        shutil.copytree(preprocessed / args.dataset, preprocessed / MANUAL, ignore=ignored)
        rename_data_set(preprocessed / MANUAL / "nnUNetPlans.json")
        model = experiment.report_folder / "models" / "base.pth"
        folder = results / MANUAL / experiment.model_folder.name.replace("_pseudoOverhead", "")
        (folder / "fold_0").mkdir(parents=True)
        shutil.copy(model, folder / "fold_0" / "checkpoint_final.pth")
        for name in ("plans.json", "dataset.json"):
            shutil.copy(experiment.model_folder / name, folder / name)
        cases = json.loads((experiment.report_folder / "state.json").read_text())["units"]
        return [
            one_round_by_hand(args, experiment, number, cases[f"{number}/select"]["result"], folder)
            for number in rounds_of(cases)
        ]
    finally:
        for folder in clean_up:
            shutil.rmtree(folder, ignore_errors=True)


def rename_data_set(plans_file: Path) -> None:
    """nnU-Net takes the name of the data set from the plans."""
    plans = json.loads(plans_file.read_text())
    plans["dataset_name"] = MANUAL
    plans_file.write_text(json.dumps(plans))


def one_round_by_hand(
    args: argparse.Namespace, experiment: Experiment, number: int, cases: list[str], model: Path
) -> dict[str, float]:
    """Predict, add, pre-process, train."""
    raw, preprocessed = (Path(p.require()) / MANUAL for p in (nnUNet_raw, nnUNet_preprocessed))
    ending, channels = experiment.dataset_json["file_ending"], len(experiment.dataset_json["channel_names"])
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        images, labels = Path(folder) / "images", Path(folder) / "labels"
        images.mkdir()
        for case in cases:
            for channel in range(channels):
                name = f"{case}_{channel:04d}{ending}"
                shutil.copy(args.images / name, images / name)
        at = ["-d", MANUAL, "-c", args.configuration, "-f", "0", "-tr", experiment.trainer, "-device", args.device]
        seconds["predict"] = timed("nnUNetv2_predict", "-i", images, "-o", labels, *at, "-npp", 1, "-nps", 1)
        for path in images.iterdir():
            shutil.move(str(path), raw / "imagesTr" / path.name)
        for case in cases:
            shutil.move(str(labels / f"{case}{ending}"), raw / "labelsTr" / f"{case}{ending}")
    splits = json.loads((preprocessed / "splits_final.json").read_text())
    splits[0]["train"] += cases
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    description = json.loads((raw / "dataset.json").read_text())
    description["numTraining"] += len(cases)
    (raw / "dataset.json").write_text(json.dumps(description))
    seconds["preprocess"] = timed("nnUNetv2_preprocess", "-d", NUMBER, "-c", args.configuration, "-np", 1)
    weights = shutil.copy(model / "fold_0" / "checkpoint_final.pth", raw / "weights.pth")
    arguments = [MANUAL, args.configuration, 0, "-tr", experiment.trainer, "-device", args.device]
    seconds["train"] = timed("nnUNetv2_train", *arguments, "-pretrained_weights", weights)
    return seconds


def timed(command: str, *arguments: object) -> float:
    """Seconds of a command of this environment."""
    path = shutil.which(command, path=str(Path(sys.executable).parent))
    assert path is not None, command
    start = time.perf_counter()
    done = subprocess.run([path, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SystemExit(f"{command} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return time.perf_counter() - start


def report_by_hand(args: argparse.Namespace, units: dict[str, Any], rounds: list[dict[str, float]]) -> None:
    """The same table for the loop by hand, and the ratio of what is neither step nor forward pass."""
    print("| round by hand | predict, s | pre-process, s | train, s | all else, s | times ours |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for number, seconds in enumerate(rounds, 1):
        whole, computing = times(units, number)
        rest = sum(seconds.values()) - computing
        cells = " | ".join(f"{seconds[name]:.1f}" for name in ("predict", "preprocess", "train"))
        print(f"| {number} | {cells} | {rest:.1f} | {rest / (whole - computing):.1f} |")


if __name__ == "__main__":
    main()
