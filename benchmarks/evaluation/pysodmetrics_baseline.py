"""A folder of slices scored by pysodmetrics, one at a time; run by ``map_metrics.py``.

Two sets of measures: S- and E-measure alone, and these with MAE and Dice over the thresholds, all that it
shares with us.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import cv2
from py_sod_metrics import MAE, DICEHandler, Emeasure, FmeasureV2, Smeasure


def score(folder: Path, *, everything: bool) -> dict[str, object]:
    """Wall clock, processor time and means."""
    wall, processor = time.perf_counter(), time.process_time()
    meters = {"s": Smeasure(), "e": Emeasure()}
    if everything:
        dice = DICEHandler(with_dynamic=True, with_adaptive=False)
        meters |= {"mae": MAE(), "dice": FmeasureV2({"dice": dice})}
    for path in sorted((folder / "maps").iterdir()):
        grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        mask = cv2.imread(str(folder / "masks" / path.name), cv2.IMREAD_GRAYSCALE)
        for meter in meters.values():
            meter.step(grey, mask)
    means = {
        "s_measure": float(meters["s"].get_results()["sm"]),
        "e_measure": float(meters["e"].get_results()["em"]["curve"].mean()),
    }
    if everything:
        means["mae"] = float(meters["mae"].get_results()["mae"])
        means["dice"] = float(meters["dice"].get_results()["dice"]["dynamic"].mean())
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor, "means": means}


def main() -> None:
    """Print both runs as JSON."""
    cv2.setNumThreads(1)
    folder = Path(sys.argv[1])
    print(json.dumps({"S, E": score(folder, everything=False), "S, E, MAE, Dice": score(folder, everything=True)}))


if __name__ == "__main__":
    main()
