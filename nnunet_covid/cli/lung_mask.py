"""Segment the lungs of an image, a DICOM series or a folder of either.

Masks hold 0 and 1 (PNG: 0 and 255). With --method auto the lungmask package is used if it is installed and its
weights are at hand, else a threshold; the line printed for each image says which.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask.files import images_and_outputs, lung_overlay, write_lung_mask
from nnunet_covid.lung_mask.pretrained import MODELS
from nnunet_covid.lung_mask.segment import METHODS, refuse_unused_weights, segment_lungs
from nnunet_covid.raw_dataset.image_file import read_scan
from nnunet_covid.raw_dataset.problems import UnusableFile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the subcommand."""
    parser.add_argument("source", type=Path, metavar="IN", help="image, DICOM folder, or folder of images")
    parser.add_argument("output", type=Path, metavar="OUT", help="file for one image, folder for several")
    parser.add_argument("--method", choices=METHODS, default="auto", help="default: %(default)s")
    parser.add_argument("--model", choices=MODELS, default="R231", help="lungmask's model (default: %(default)s)")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="lungmask's weights, to stay offline")
    parser.add_argument("--overlay", type=Path, metavar="DIR", help="folder for pictures of the masks' outlines")


def run(args: argparse.Namespace) -> None:
    """Segment every image that IN names."""
    refuse_unused_weights(args.method, args.weights)
    for source, output in images_and_outputs(args.source, args.output):
        try:
            scan = read_scan(source)
        except UnusableFile as e:
            raise UserError(f"{e.path}: {e.reason}") from e
        spacing = scan.geometry.spacing if scan.geometry else None
        lungs = segment_lungs(
            scan.image, is_hu=scan.is_hu, spacing=spacing, method=args.method, model=args.model, weights=args.weights
        )
        write_lung_mask(output, lungs, scan)
        if args.overlay:
            args.overlay.mkdir(parents=True, exist_ok=True)
            Image.fromarray(lung_overlay(scan, lungs)).save(args.overlay / f"{output.name}.png")
        print(f"{output}: {lungs.mask.mean():.1%} of the image, by {lungs.method}", flush=True)
