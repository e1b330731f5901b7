"""All converters by their name on the command line; a ``DatasetNNN_Name.py`` is found by its file name."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from nnunet_covid import dataset_conversion
from nnunet_covid.dataset_conversion.folder import TEMPLATE
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.recipe import Recipe


@cache
def recipes() -> dict[str, Recipe]:
    """Command name to recipe, in the order of the data set numbers."""
    names = sorted(m.name for m in pkgutil.iter_modules(dataset_conversion.__path__) if m.name.startswith("Dataset"))
    found = [importlib.import_module(f"{dataset_conversion.__name__}.{name}").RECIPE for name in names]
    return {recipe.info.command: recipe for recipe in found}


def recipe_named(name: str) -> Recipe:
    """The recipe for a command name, a folder name (``COVIDSemiSeg``) or a number.

    Raises:
        UserError: If there is none.
    """
    for recipe in recipes().values():
        if name.lower() in {recipe.info.command, recipe.info.name.lower(), str(recipe.info.number)}:
            return recipe
    known = ", ".join([*recipes(), TEMPLATE.info.command])
    raise UserError(f"no converter is called {name!r}; known are {known}; 'nnunet-covid convert --list' tells more")
