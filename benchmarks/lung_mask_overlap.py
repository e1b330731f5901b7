"""How well the classical lung mask agrees with reference lungs, and how much of the lesions it keeps.

Usage: python benchmarks/lung_mask_overlap.py SOURCE [--picture FILE] [--closing RADIUS]

SOURCE is a folder in the layout of data set 508: ct/, lungs/, covid/ and cases.csv. Prints a Markdown table with one
row per patient: Dice over all voxels of the patient, and the share of the lesions' voxels that the mask covers,
separately for lesions farther from and within MARGIN pixels of the edge of the reference lungs.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from nnunet_covid.dataset_conversion.Dataset508_COVID19CTSeg2D import RECIPE
from nnunet_covid.figures.slices import BLUE, GREEN, RED, outlined, sheet
from nnunet_covid.lung_mask import threshold
from nnunet_covid.raw_dataset import Options, Problems

MARGIN = 6
"""Pixels; a lesion this close to the edge of the lungs touches the pleura, mediastinum or diaphragm."""


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--picture", type=Path, help="PNG with the worst slice of every patient")
    parser.add_argument(
        "--closing", type=float, help="radius of the closing relative to the side (default: as shipped)"
    )
    args = parser.parse_args()
    if args.closing is not None:
        threshold.CLOSING = args.closing

    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(7, dtype=np.int64))
    worst: dict[str, tuple[float, np.ndarray]] = {}
    for case in RECIPE.find_cases(args.source, Problems(args.source)):
        scan = RECIPE.read(case, RECIPE.scheme(Options()))
        assert scan.lungs is not None
        assert scan.label is not None
        mask, lungs, lesion = threshold.lungs_in_slice(scan.image), scan.lungs, scan.label > 0
        inner = ndimage.distance_transform_edt(lungs) > MARGIN
        deep, peripheral = lesion & inner, lesion & ~inner
        counts[case.patient] += [
            (mask & lungs).sum(),
            mask.sum(),
            lungs.sum(),
            (mask & deep).sum(),
            deep.sum(),
            (mask & peripheral).sum(),
            peripheral.sum(),
        ]
        missed = float((lesion & ~mask).sum())
        if missed >= worst.get(case.patient, (-1.0, None))[0]:
            worst[case.patient] = missed, outlined(scan.image, {GREEN: lungs, BLUE: mask, RED: lesion})

    print("| patient | Dice | lesion kept, inner | lesion kept, at the edge | lesion at the edge |")
    print("| --- | --- | --- | --- | --- |")
    for patient, (both, found, true, deep_kept, deep, edge_kept, edge) in sorted(counts.items()):
        dice = 2 * both / (found + true)
        print(
            f"| {patient} | {dice:.3f} | {_share(deep_kept, deep)} | {_share(edge_kept, edge)} "
            f"| {_share(edge, deep + edge)} |"
        )
    total = np.array(list(counts.values()))
    dices = 2 * total[:, 0] / (total[:, 1] + total[:, 2])
    deep_kept, deep, edge_kept, edge = total[:, 3:].sum(axis=0)
    print(
        f"| mean ± sd, all voxels | {dices.mean():.3f} ± {dices.std(ddof=1):.3f} | {_share(deep_kept, deep)} "
        f"| {_share(edge_kept, edge)} | {_share(edge, deep + edge)} |"
    )
    if args.picture:
        Image.fromarray(sheet([picture for _, picture in worst.values()], columns=5)).save(args.picture)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "–"


if __name__ == "__main__":
    main()
