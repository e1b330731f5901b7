"""Segment the lungs of an image, a DICOM series or a folder of either.

Masks hold 0 and 1 (PNG: 0 and 255). With --method auto the lungmask package is used if it is installed and its
weights are at hand, else a threshold; the line printed for each image says which.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nnunet_covid.cli.arguments import refuse_among_inputs
from nnunet_covid.disturbances import full_disk_told
from nnunet_covid.errors import Unusable
from nnunet_covid.figures.slices import BLUE, LUNG_WINDOW, outlined, sheet
from nnunet_covid.files import replacing, writable_folder
from nnunet_covid.geometry import Turn
from nnunet_covid.lung_mask import METHODS, MODELS, check_weights
from nnunet_covid.raw_dataset import Problems, Scan, read_scan
from nnunet_covid.raw_dataset.grey_scale import span_of
from nnunet_covid.raw_dataset.images import images_and_masks, with_lungs, write_lung_mask

OVERLAY_SLICES = 8
"""Of a volume, at most."""


def add_lung_mask_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid lung-mask``."""
    add = parser.add_argument
    add("source", type=Path, metavar="IN", help="image, DICOM folder, or folder of images")
    add("output", type=Path, metavar="OUT", help="file for one image, folder for several")
    add("--method", choices=METHODS, default="auto", help="default: %(default)s")
    add("--model", choices=MODELS, default="R231", help="lungmask's model (default: %(default)s)")
    add("--weights", type=Path, metavar="FILE", help="lungmask's weights, to stay offline")
    add("--overlay", type=Path, metavar="DIR", help="folder for pictures of the masks' outlines")


def lung_mask(args: argparse.Namespace) -> None:
    """Segment every image that IN names."""
    check_weights(args.method, args.weights)
    problems = Problems(args.source)
    pairs = images_and_masks(args.source, args.output, problems)
    if args.source.is_dir():
        refuse_among_inputs(args.output, "masks", args.source)
        refuse_among_inputs(args.overlay, "pictures of outlines", args.source)
    for note in problems.notes():
        print(note, flush=True)
    places = [writable_folder(folder) for folder in (pairs[0][1].parent, args.overlay) if folder is not None]
    unusable = Unusable()
    with full_disk_told(*places):
        for source, output in pairs:
            with unusable.going_on():
                _segment(source, output, args)
    unusable.raise_if_any(len(pairs))


def _segment(source: Path, output: Path, args: argparse.Namespace) -> None:
    """Segment one image, and tell how."""
    scan = with_lungs(read_scan(source), source, method=args.method, model=args.model, weights=args.weights)
    write_lung_mask(output, scan)
    if args.overlay:
        with replacing(args.overlay / f"{output.name}.png") as unfinished:
            Image.fromarray(lung_overlay(scan)).save(unfinished)
    share = 0.0 if scan.lungs is None else scan.lungs.mean()
    print(f"{output}: {share:.1%} of the image, by {scan.notes['lung_mask']}", flush=True)
    if not share:
        text = f"no lungs are found, the mask is empty; it holds {span_of(scan.image)}, look at it"
        print(f"warning: {source}: {text}", file=sys.stderr, flush=True)


def lung_overlay(scan: Scan) -> NDArray[np.uint8]:
    """The outline of the lung mask over the picture, or over evenly spaced slices of the volume."""
    assert scan.lungs is not None
    turn = Turn.upright(scan.geometry)
    image, lungs = turn(scan.image.clip(*LUNG_WINDOW) if scan.is_hu else scan.image), turn(scan.lungs)
    if image.ndim == 2:
        return outlined(image, {BLUE: lungs})
    indices = np.unique(np.linspace(0.1 * len(image), 0.9 * len(image), OVERLAY_SLICES).astype(int))
    return sheet([outlined(image[i], {BLUE: lungs[i]}) for i in indices], columns=4)
