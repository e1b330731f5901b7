"""Converters to nnU-Net raw data sets: one module per public data set, ``folder`` for a user's own images.

A module ``DatasetNNN_Name`` is found by its file name, offers ``RECIPE`` and can be run as a script.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from functools import cache

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Recipe


@cache
def recipes() -> dict[str, Recipe]:
    """Command name to recipe, in the order of the data set numbers."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("Dataset"))
    found = [importlib.import_module(f"{__name__}.{name}").RECIPE for name in names]
    return {recipe.info.command: recipe for recipe in found}


def recipe_named(name: str) -> Recipe:
    """The recipe for a command name, a folder name (``COVIDSemiSeg``) or a number.

    Raises:
        UserError: If there is none.
    """
    for recipe in recipes().values():
        if name.lower() in {recipe.info.command, recipe.info.name.lower(), str(recipe.info.number)}:
            return recipe
    known = ", ".join([*recipes(), "folder"])
    raise UserError(f"no converter is called {name!r}; known are {known}; 'nnunet-covid convert --list' tells more")


def run_as_script(recipe: Recipe) -> int:
    """What ``python DatasetNNN_Name.py SOURCE`` does, by the command line that lies above this package."""
    return int(importlib.import_module("nnunet_covid.cli").main(["convert", recipe.info.command, *sys.argv[1:]]))
