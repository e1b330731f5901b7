"""The text of ``nnunet-covid convert --list``."""

from __future__ import annotations

from collections.abc import Iterable

from nnunet_covid.raw_dataset.recipe import Recipe


def listing(recipes: Iterable[Recipe]) -> str:
    """One paragraph per data set: name, title, paper, source, licence, expected files."""
    return "\n\n".join(_paragraph(recipe) for recipe in recipes)


def _paragraph(recipe: Recipe) -> str:
    info = recipe.info
    lines = [
        f"{info.command}  (Dataset{info.number:03d}_{info.name})",
        f"  {info.title}",
        f"  paper    {info.paper}",
        f"  get it   {info.url}",
        f"  licence  {info.licence}",
    ]
    lines += [f"  {'expects' if i == 0 else '       '}  {files}" for i, files in enumerate(info.expected_files)]
    return "\n".join(lines)
