"""HD95 and NSD of a folder of slices by MONAI, one at a time; run by ``map_metrics.py``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from PIL import Image

TOLERANCE = 3.0


def main() -> None:
    """Print wall clock, processor time and means as JSON."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    folder = Path(sys.argv[1])
    wall, processor = time.perf_counter(), time.process_time()
    hd95, nsd = [], []
    for path in sorted((folder / "predictions").iterdir()):
        p, r = (_mask(folder / name / path.name) for name in ("predictions", "references"))
        hd95.append(float(compute_hausdorff_distance(p, r, include_background=True, percentile=95)))
        nsd.append(float(compute_surface_dice(p, r, [TOLERANCE], include_background=True)))
    means = {"hd95": float(np.mean(hd95)), "nsd": float(np.mean(nsd))}
    run = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor, "means": means}
    print(json.dumps({"HD95, NSD": run}))


def _mask(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image) == 1)[None, None]


if __name__ == "__main__":
    main()
