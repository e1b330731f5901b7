"""Validation Dice along the way of pseudo-label runs, as a picture: one panel per fold, one line per run.

Reads the ``state.json`` of every result of ``nnunet-covid pseudo-label`` with this data set, configuration and length.

    python benchmarks/pseudo_label_curves.py 501 --configuration 2d_small --length 10epochs_25its --folds 5 0 \\
        --titles "10 labelled slices" "40 labelled slices" -o docs/images/pseudo_label_curves.png
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from matplotlib.axes import Axes
from nnunetv2.paths import nnUNet_results

from nnunet_covid.errors import UserError
from nnunet_covid.figures.style import class_colour, light_grid, new_figure, save, styled
from nnunet_covid.nnunet.dataset import dataset_name

STEPS = ("base", "round 1", "round 2", "pre-trained", "fine-tuned")
MARKERS = "osD^v<>*"


def dice_along_the_way(state: Path) -> dict[str, float]:
    """Mean validation Dice, in pre-processed space, of every model that a run made."""
    found = {}
    for unit, content in json.loads(state.read_text(encoding="utf-8"))["units"].items():
        _, _, model = unit.partition("/validate ")
        if model:
            name = re.sub(r"^round_0*(\d+)$", r"round \1", model).replace("_", "-")
            found[name] = float(content["result"]["mean"])
    return found


def draw(axes: Axes, runs: dict[tuple[str, str], Path], looks: dict[str, tuple[str, str]], title: str) -> None:
    """One panel; the runs of a trainer share a colour, those of a name a marker."""
    for (trainer, name), state in runs.items():
        dice = {step: value for step, value in dice_along_the_way(state).items() if step in STEPS}
        places = [STEPS.index(step) for step in dice]
        style = {"color": looks[trainer][0], "marker": looks[name][1], "ms": 6, "lw": 1}
        axes.plot(places, list(dice.values()), label=f"{trainer}, {name}", **style)
    axes.set_xticks(range(len(STEPS)), STEPS)
    axes.set_title(title)
    light_grid(axes)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--configuration", default="2d_small")
    parser.add_argument("--length", default="10epochs_25its")
    parser.add_argument("--folds", nargs="+", type=int, required=True)
    parser.add_argument("--titles", nargs="+", help="of the panels (default: the folds)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    titles = args.titles or [f"fold {fold}" for fold in args.folds]
    if len(titles) != len(args.folds):
        parser.error("as many titles as folds")

    try:
        name = dataset_name(args.dataset)
    except UserError as e:
        raise SystemExit(str(e)) from e
    results = Path(nnUNet_results.get()) / name
    pattern = re.compile(rf"^(.+)_{args.length}_seed\d+_pseudo(\w+)__nnUNetPlans__{args.configuration}$")
    matches = {folder: pattern.match(folder.name) for folder in sorted(results.iterdir())}
    found = {(match[1], match[2]): folder for folder, match in matches.items() if match}
    looks = {}
    for position in (0, 1):
        for index, label in enumerate(dict.fromkeys(run[position] for run in found)):
            looks[label] = (class_colour(index), MARKERS[index % len(MARKERS)])
    with styled():
        figure = new_figure(10, 3.2 * len(args.folds), "validation Dice along the way (pre-processed)")
        panels = figure.subplots(len(args.folds), 1, squeeze=False)[:, 0]
        for axes, fold, title in zip(panels, args.folds, titles, strict=True):
            states = {run: folder / f"fold_{fold}" / "pseudo_labels" / "state.json" for run, folder in found.items()}
            draw(axes, {run: state for run, state in states.items() if state.is_file()}, looks, title)
        print(save(figure, args.output))


if __name__ == "__main__":
    main()
