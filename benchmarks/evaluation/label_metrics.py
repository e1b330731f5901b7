"""All label metrics of one 512×512×300 case with 4 % foreground, side by side with MONAI's Dice, HD95 and
NSD.

    OMP_NUM_THREADS=1 python benchmarks/evaluation/label_metrics.py [--repeats 3]

Every measurement runs in a process of its own on one core, by turns. Memory is the highest resident size of
that process, inputs included; beside the wall clock stands the processor time, which a busy machine does not
stretch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

SHAPE = (300, 512, 512)
SPACING = (1.0, 0.8, 0.8)
SHARE = 0.04
TOLERANCE = 3.0
LIMIT_SECONDS, LIMIT_GIGABYTES = 3.0, 1.5


def ours(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Every label metric of this project."""
    from nnunet_covid.evaluation.labels import scheme_of_labels
    from nnunet_covid.evaluation.scores import Settings, score_case
    from nnunet_covid.geometry import Geometry

    geometry = Geometry(SPACING[::-1])
    scheme = scheme_of_labels({"background": 0, "lesion": 1})
    (score,) = score_case("case", prediction, reference, geometry, scheme, Settings(tolerance=TOLERANCE))
    return score.values


def monai(prediction: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """MONAI's counterparts: three metrics of ours' eleven."""
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    warnings.simplefilter("ignore")
    p, r = (torch.from_numpy(a == 1)[None, None] for a in (prediction, reference))
    dice = compute_dice(p, r, include_background=True)
    hd95 = compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=SPACING)
    nsd = compute_surface_dice(p, r, [TOLERANCE], include_background=True, spacing=SPACING)
    return {"dice": float(dice), "hd95": float(hd95), "nsd": float(nsd)}


CONTENDERS: dict[str, Callable[[np.ndarray, np.ndarray], dict[str, float]]] = {"ours": ours, "monai": monai}


def measure(name: str, case: Path) -> None:
    """Run one contender and print what it took as JSON."""
    contender = CONTENDERS[name]
    small = np.zeros((4, 8, 8), dtype=np.uint8)
    small[1:3, 2:5, 2:5] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "monai":
            contender(small, small)  # imports are not part of the measurement
        else:
            importlib.import_module("nnunet_covid.evaluation.scores")
    with np.load(case) as archive:
        prediction, reference = archive["prediction"], archive["reference"]
    wall, processor = time.perf_counter(), time.process_time()
    values = contender(prediction, reference)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(json.dumps({"wall": wall, "processor": processor, "gigabytes": gigabytes, "values": values}))


def main() -> int:
    """Make the case, measure by turns, print the table; status 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", nargs=2, metavar=("NAME", "FILE"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args.measure[0], Path(args.measure[1]))
        return 0
    from synthetic import lesion_volumes

    results: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        case = Path(folder) / "case.npz"
        prediction, reference = lesion_volumes(SHAPE, SHARE, seed=1)
        np.savez(case, prediction=prediction, reference=reference)
        print(f"{SHAPE}, foreground {reference.mean():.1%} of the reference, {prediction.mean():.1%} of the prediction")
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        for _ in range(args.repeats):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--measure", name, str(case)]
                done = subprocess.run(
                    command, env=environment, check=True, capture_output=True, encoding="utf-8", errors="replace"
                )
                results[name].append(json.loads(done.stdout.splitlines()[-1]))
    for name, runs in results.items():
        peak = max(r["gigabytes"] for r in runs)
        values = {k: round(v, 5) for k, v in runs[0]["values"].items() if k in ("dice", "hd95", "nsd")}
        times = ", ".join(
            f"{k} {_median(runs, k):.2f} s (best {min(r[k] for r in runs):.2f})" for k in ("wall", "processor")
        )
        print(f"{name:6} {times}, peak {peak:.2f} GB  {values}")
    ratio = _median(results["monai"], "processor") / _median(results["ours"], "processor")
    print(f"processor time of MONAI / ours: {ratio:.1f}")
    peak = max(r["gigabytes"] for r in results["ours"])
    within = _median(results["ours"], "wall") < LIMIT_SECONDS and peak < LIMIT_GIGABYTES
    return 0 if within and ratio >= 1 else 1


def _median(runs: list[dict], key: str) -> float:
    return statistics.median(r[key] for r in runs)


if __name__ == "__main__":
    sys.exit(main())
