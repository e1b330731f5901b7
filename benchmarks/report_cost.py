"""What a report of one scan costs beside the network's forward passes: time, processor time and memory.

  python benchmarks/report_cost.py SCAN -m MODEL

Runs twice, each in a process of its own: with the model's network, and with a stand-in that costs next to nothing and
marks a band of grey values, so that there is infection to measure and to draw. The second run's time and memory are
those of everything else: reading, pre-processing, sliding window, masks, numbers, pictures, DICOM objects, page.
``--slices N`` repeats or cuts the scan's slices to N first (a volume file then, without DICOM objects).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from torch import nn

from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.report.assemble import report_scan
from nnunet_covid.report.model import ReportModel
from nnunet_covid.report.scans import read_scan

BAND = (-0.1, 0.3)
"""Of normalised grey values, what the stand-in calls infected."""


class StandIn(nn.Module):
    """As many maps as the network gives; the second is above the others in a band of grey values."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (B, heads, *spatial) of images (B, 1, *spatial)."""
        maps = torch.zeros((x.shape[0], self.heads, *x.shape[2:]), dtype=x.dtype, device=x.device)
        maps[:, min(1, self.heads - 1)] = ((x[:, 0] > BAND[0]) & (x[:, 0] < BAND[1])).to(x.dtype) * 2 - 1
        return maps


def main() -> None:
    """Print one line for each way."""
    args = _arguments()
    if args.way is not None:
        print(json.dumps(_measured(args)))
        return
    print(f"{'':12}{'wall s':>9}{'processor s':>13}{'peak GiB':>10}  parts, processor s")
    for way in ("network", "stand-in"):
        command = [sys.executable, __file__, *sys.argv[1:], "--way", way]
        done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        parts = ", ".join(f"{part} {spent['processor']:.1f}" for part, spent in row["parts"].items())
        print(f"{way:12}{row['wall']:9.1f}{row['processor']:13.1f}{row['peak_gib']:10.2f}  {parts}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("-m", "--model", type=Path, required=True)
    parser.add_argument("-f", "--folds", nargs="+")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--disable_tta", action="store_true")
    parser.add_argument("--slices", type=int, help="repeat or cut the scan to this number")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(args: argparse.Namespace) -> dict[str, object]:
    """One report; the model is loaded before the clocks start."""
    model = TrainedModel(args.model, folds=args.folds, device=args.device, mirroring=not args.disable_tta)
    if args.way == "stand-in":
        model.predictor.network = StandIn(model.predictor.label_manager.num_segmentation_heads)
        model.predictor.use_weights = lambda index: None  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as place:
        scan = args.scan
        if args.slices:
            image = read_scan(scan).image
            array = np.resize(sitk.GetArrayFromImage(image), (args.slices, *image.GetSize()[1::-1]))
            longer = sitk.GetImageFromArray(array)
            longer.SetSpacing(image.GetSpacing())
            longer.SetDirection(image.GetDirection())
            scan = Path(place, "scan.nii.gz")
            sitk.WriteImage(longer, str(scan))
            del image, array, longer
        wall, processor = time.perf_counter(), time.process_time()
        document = report_scan(read_scan(scan), ReportModel(model), Path(place, "report"))
        return {
            "wall": time.perf_counter() - wall,
            "processor": time.process_time() - processor,
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            "parts": document.seconds,
        }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
