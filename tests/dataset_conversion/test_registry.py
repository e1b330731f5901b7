"""The list of converters: complete, light to import, found by every name a user might type."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunet_covid.cli.convert import listing
from nnunet_covid.dataset_conversion import recipe_named, recipes
from nnunet_covid.errors import UserError


def test_every_data_set_of_the_table_is_there() -> None:
    numbers = [recipe.info.number for recipe in recipes().values()]
    assert numbers == [501, 502, 503, 504, 505, 506, 507, 508, 520, 521, 522, 530]


@pytest.mark.parametrize("name", ["covid-semiseg", "COVIDSemiSeg", "501"])
def test_a_data_set_is_found_by_any_of_its_names(name: str) -> None:
    assert recipe_named(name).info.number == 501


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"covid-semiseg, .*non-covid-lesions, folder;"):
        recipe_named("covid")


def test_the_list_tells_where_to_get_the_data() -> None:
    text = listing(recipes().values())
    for recipe in recipes().values():
        for part in (recipe.info.command, recipe.info.paper, recipe.info.url, recipe.info.licence):
            assert part in text


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from nnunet_covid.cli import main; main(['convert', '--list']); "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
