"""Turn a public data set, or your own folder, into an nnU-Net raw data set.

nnunet-covid convert --list                       what can be converted, and where to get it
nnunet-covid convert covid-semiseg SOURCE         one data set
nnunet-covid convert covid-semiseg --help         its options
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_covid.cli.arguments import positive, seed
from nnunet_covid.dataset_conversion import recipe_named, recipes
from nnunet_covid.dataset_conversion.folder import TEMPLATE, FolderLayout, convert_folder
from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask import METHODS, MODELS
from nnunet_covid.raw_dataset import Recipe, SliceSelection, convert_dataset, read_patients
from nnunet_covid.startup import cores


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """Two stages: the name chooses the parser for the rest."""
    parser.add_argument("--list", action="store_true", help="show every data set: paper, licence, expected files")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the data set, as --list shows it")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="see: convert NAME --help")
    parser.set_defaults(parser=parser)


def convert(args: argparse.Namespace) -> None:
    """List the data sets or convert one."""
    if args.list:
        print(listing([*recipes().values(), TEMPLATE]))
        return
    if args.name is None:
        args.parser.error("give the NAME of a data set, or --list")
    recipe = TEMPLATE if args.name == TEMPLATE.info.command else recipe_named(args.name)
    _convert(recipe, f"nnunet-covid convert {args.name}", args.arguments)


def listing(recipes: Iterable[Recipe]) -> str:
    """One paragraph per data set: name, title, paper, source, licence, expected files."""
    paragraphs = []
    for info in (recipe.info for recipe in recipes):
        lines = [
            f"{info.command}  (Dataset{info.number:03d}_{info.name})",
            f"  {info.title}",
            f"  paper    {info.paper}",
            f"  get it   {info.url}",
            f"  licence  {info.licence}",
        ]
        lines += [f"  {'expects' if i == 0 else '       '}  {files}" for i, files in enumerate(info.expected_files)]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _convert(recipe: Recipe, program: str, given: Sequence[str]) -> None:
    what = "your own images and masks" if recipe is TEMPLATE else recipe.info.title
    parser = argparse.ArgumentParser(prog=program, description=f"Convert {what} to an nnU-Net raw data set.")
    _add_conversion(parser, recipe)
    if recipe is not TEMPLATE:
        args = parser.parse_args(given)
        convert_dataset(recipe, args.source, **_how(recipe, args))
        return
    _add_folder(parser)
    args = parser.parse_args(given)
    layout = FolderLayout(
        images=args.images,
        masks=args.masks,
        lungs=args.lungs,
        patients=read_patients(args.patients) if args.patients else {},
        patient_pattern=args.patient_pattern,
        allow_missing_masks=args.allow_missing_masks,
        resample_masks=args.resample_masks,
    )
    labels = _labels(args.label) if args.label else None
    convert_folder(args.source, layout=layout, name=args.name, labels=labels, **_how(recipe, args))


def _add_conversion(parser: argparse.ArgumentParser, recipe: Recipe) -> None:
    """The arguments of every conversion; of those for ``Options`` only what makes sense for this data set."""
    add = parser.add_argument
    unpacked = "folder of your images" if recipe is TEMPLATE else "folder into which the data set was unpacked"
    add("source", type=Path, metavar="SOURCE", help=unpacked)
    add("-d", "--number", type=int, default=recipe.info.number, help="data set number (default: %(default)s)")
    add("-o", "--output", type=Path, help="folder for raw data sets (default: nnUNet_raw of the environment)")
    processes = min(8, cores())
    add("--workers", type=positive, default=processes, help="number of processes (default: %(default)s)")
    add = parser.add_argument_group("changes on the way").add_argument
    if len(recipe.schemes) > 1:
        add("--classes", choices=list(recipe.schemes), help="label scheme (default: the first)")
    if recipe.is_hu:
        text = "Hounsfield range that becomes 0 to 255, for example -1250 250"
        add("--window", type=float, nargs=2, metavar=("LOW", "HIGH"), help=text)
        if recipe.defaults.window:
            add("--no-window", action="store_true", help="keep Hounsfield units")
    text = "crop around the lungs' centre of gravity, pixels"
    add("--crop", type=positive, nargs=2, metavar=("HEIGHT", "WIDTH"), help=text)
    add("--lung-mask-channel", action="store_true", help="add the lung mask as last channel")
    text = "where lung masks come from if the data set has none (default: %(default)s)"
    add("--lung-method", choices=METHODS, default="auto", help=text)
    add("--lung-model", choices=MODELS, default="R231", help="lungmask's model")
    add("--lung-weights", type=Path, metavar="FILE", help="lungmask's weights, to stay offline")
    add("--no-unlabelled", action="store_true", help="leave unlabelled cases out")
    text = "your own folds, a JSON list of {train, val} (default: the data set's, or five by patient)"
    add("--splits", type=Path, metavar="FILE", help=text)
    if recipe.has_volumes:
        add("--slices", choices=("all", "lesion"), help="axial slices as cases of their own")
        add("--every", type=positive, default=1, metavar="N", help="every N-th of these slices")
        add("--at-most", type=positive, metavar="N", help="at most N of them per volume, drawn")
        add("--seed", type=seed, default=12345, help="seed of that draw (default: %(default)s)")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("your folder").add_argument
    add("--name", default=TEMPLATE.info.name, help="name of the data set")
    add("--images", type=Path, metavar="DIR", help="folder of the images within SOURCE")
    add("--masks", type=Path, metavar="DIR", help="folder of the masks within SOURCE")
    add("--lungs", type=Path, metavar="DIR", help="folder of lung masks within SOURCE")
    text = "a class and its value in the masks"
    add("--label", type=_label, action="append", metavar="NAME=VALUE", help=text)
    add("--patients", type=Path, metavar="CSV", help="table with the columns file and case")
    add("--patient-pattern", type=_pattern, metavar="REGEX", help="finds the patient in the case name")
    add("--allow-missing-masks", action="store_true", help="images without mask become unlabelled")
    add("--resample-masks", action="store_true", help="masks may lie on another grid than the image")


def _how(recipe: Recipe, args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``convert_dataset`` beside recipe and source; options over the data set's defaults."""
    window = getattr(args, "window", None) or recipe.defaults.window
    options = replace(
        recipe.defaults,
        classes=getattr(args, "classes", None),
        window=None if getattr(args, "no_window", False) else window and tuple(window),
        crop=args.crop and tuple(args.crop),
        lung_mask_channel=args.lung_mask_channel,
        lung_method=args.lung_method,
        lung_model=args.lung_model,
        lung_weights=args.lung_weights,
        slices=_slices(args),
        unlabelled=not args.no_unlabelled,
        splits=args.splits,
    )
    return {
        "options": options,
        "number": args.number,
        "output": args.output,
        "workers": args.workers,
        "tell": lambda message: print(message, flush=True),
    }


def _slices(args: argparse.Namespace) -> SliceSelection | None:
    kind = getattr(args, "slices", None)
    if kind is not None:
        return SliceSelection(kind == "lesion", args.every, args.at_most, args.seed)
    if getattr(args, "at_most", None) is not None or getattr(args, "every", 1) != 1:
        raise UserError("--every and --at-most choose among slices; add --slices all or --slices lesion")
    return None


def _labels(given: Sequence[tuple[str, int]]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for name, value in given:
        if name in labels:
            raise UserError(f"--label {name} has the values {labels[name]} and {value}; give each class one")
        labels[name] = value
    return labels


def _label(text: str) -> tuple[str, int]:
    name, separator, value = text.partition("=")
    if not (name and separator and re.fullmatch(r"-?[0-9]+", value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a whole number")
    return name, int(value)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as e:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {e}") from e
    return text
