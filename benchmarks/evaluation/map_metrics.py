"""1600 PNG slices of 512×512 with probability maps, side by side with others that score one slice at a time.

    python benchmarks/evaluation/map_metrics.py --pysodmetrics sod/bin/python [--slices 1600] [--repeats 3]

``sod/bin/python`` is an interpreter in whose environment pysodmetrics is installed (its pins clash with this
project's); it reads with OpenCV. Ours uses two processes and is measured from starting them to the last
score, in three forms:

* maps: S- and E-measure, MAE and the toolbox protocol of every map (``slice_scores``);
* without distances: ``evaluate_folders(distances=False)``, all checks and all metrics but HD95 and NSD;
* everything: ``evaluate_folders``.

The first two are compared with pysodmetrics' S- and E-measure. The third has HD95 and NSD too, which pysodmetrics has
not, and is compared with pysodmetrics and then MONAI.

Beside the wall clock stands the processor time of all processes, which a busy machine does not stretch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nnunet_covid.evaluation import evaluate_folders
from nnunet_covid.evaluation.toolbox import slice_scores

SIZE = 512
DISTINCT = 100  # slices that are made; the others are shifted copies
PROCESSES = 2
LIMIT = 5.0
LABELS = {"background": 0, "infection": 1}
# Ours, and whose times are added up for comparison. The exit status asks the limit of all but the last.
COMPARISONS = (
    ("maps", ("S, E",)),
    ("without distances", ("S, E",)),
    ("everything", ("S, E", "HD95, NSD")),
    ("everything", ("S, E",)),
)
LIMITED = COMPARISONS[:3]

Means = dict[str, float]


@dataclass(frozen=True)
class Run:
    """Wall clock and processor time in seconds, and the mean scores."""

    wall: float
    processor: float
    means: Means


def make_slices(folder: Path, number: int) -> None:
    """Write maps, predictions and references."""
    from synthetic import lesion_slice

    for name in ("maps", "predictions", "references", "masks"):
        (folder / name).mkdir()
    originals = [lesion_slice(SIZE, seed) for seed in range(min(DISTINCT, number))]
    for i in range(number):
        shift = (37 * (i // DISTINCT), 53 * (i // DISTINCT))
        grey, reference = (np.roll(a, shift, (0, 1)) for a in originals[i % DISTINCT])
        images = {
            "maps": grey,
            "predictions": (grey > 127).astype(np.uint8),
            "references": reference,
            "masks": reference * 255,
        }
        for name, image in images.items():
            Image.fromarray(image).save(folder / name / f"slice_{i:04d}.png")


def score_map(folder: Path, name: str) -> Means:
    """Map-based scores of one slice."""
    with Image.open(folder / "maps" / name) as grey, Image.open(folder / "masks" / name) as mask:
        return slice_scores(np.asarray(grey), np.asarray(mask) > 128)


def score_maps(folder: Path) -> list[Means]:
    """Map-based scores of all slices, in two processes."""
    names = sorted(p.name for p in (folder / "maps").iterdir())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        return list(pool.map(partial(score_map, folder), names, chunksize=8))


def evaluate(folder: Path, *, distances: bool) -> list[Means]:
    """All scores of all slices, in two processes."""
    evaluation = evaluate_folders(
        folder / "predictions",
        folder / "references",
        labels=LABELS,
        maps=folder / "maps",
        distances=distances,
        processes=PROCESSES,
    )
    return [s.values for s in evaluation.scores]


OURS: dict[str, Callable[[Path], list[Means]]] = {
    "maps": score_maps,
    "without distances": partial(evaluate, distances=False),
    "everything": partial(evaluate, distances=True),
}


def run_ours(name: str, folder: Path) -> Run:
    """Measure one of our forms."""
    start, before = time.perf_counter(), _processor_time()
    scores = OURS[name](folder)
    wall, processor = time.perf_counter() - start, _processor_time() - before
    keys = {k: f"toolbox_{k}" for k in ("s_measure", "e_measure", "mae", "dice")} | {"hd95": "hd95", "nsd": "nsd"}
    means = {k: float(np.mean([s[key] for s in scores])) for k, key in keys.items() if key in scores[0]}
    return Run(wall, processor, means)


def run_baseline(python: str, script: str, folder: Path) -> dict[str, Run]:
    """Measure another library inside an interpreter of its own."""
    done = subprocess.run(
        [python, str(Path(__file__).with_name(script)), str(folder)],
        check=True,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )
    return {name: Run(**run) for name, run in json.loads(done.stdout).items()}


def main() -> int:
    """Make the slices, measure by turns, print the table; status 1 if the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pysodmetrics", required=True, metavar="PYTHON", help="interpreter that has pysodmetrics")
    parser.add_argument("--slices", type=int, default=1600)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    runs: dict[str, list[Run]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_slices(folder, args.slices)
        for _ in range(args.repeats):
            baselines = run_baseline(args.pysodmetrics, "pysodmetrics_baseline.py", folder)
            baselines |= run_baseline(sys.executable, "monai_baseline.py", folder)
            for label, run in baselines.items():
                runs.setdefault(label, []).append(run)
            for label in OURS:
                runs.setdefault(label, []).append(run_ours(label, folder))
    for label, measured in runs.items():
        wall, processor = (statistics.median(getattr(r, k) for r in measured) for k in ("wall", "processor"))
        print(f"{label:18} wall {wall:6.1f} s  processor {processor:6.1f} s")
    theirs = runs["S, E, MAE, Dice"][0].means | runs["HD95, NSD"][0].means
    for key, value in runs["everything"][0].means.items():
        print(f"{key:10} ours {value:.9f}  theirs {theirs[key]:.9f}")
    ratios = {pair: _ratio(runs, *pair) for pair in COMPARISONS}
    return 0 if min(ratios[pair] for pair in LIMITED) >= LIMIT else 1


def _ratio(runs: dict[str, list[Run]], ours: str, theirs: tuple[str, ...]) -> float:
    """Print how much faster ours is, by the wall clock and as processor time per core in use."""
    baselines = list(zip(*(runs[name] for name in theirs), strict=True))
    pairs = list(zip(baselines, runs[ours], strict=True))
    wall = [sum(t.wall for t in them) / o.wall for them, o in pairs]
    processor = [sum(t.processor for t in them) / (o.processor / PROCESSES) for them, o in pairs]
    print(
        f"({' + '.join(theirs)}) / ours ({ours}): wall {statistics.median(wall):.1f} "
        f"({min(wall):.1f} to {max(wall):.1f}), processor time per core {statistics.median(processor):.1f}"
    )
    return statistics.median(wall)


def _processor_time() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


if __name__ == "__main__":
    sys.exit(main())
