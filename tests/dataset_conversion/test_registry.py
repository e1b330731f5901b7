"""The list of converters: complete, light to import, found by every name a user might type, run by each of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_covid.cli.convert import listing
from nnunet_covid.dataset_conversion import Dataset503_MedSeg100 as medseg
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


@pytest.mark.parametrize("how", ["as a module", "as a script"])
def test_a_converter_can_be_run_alone(tmp_path: Path, how: str) -> None:
    command = ["-m", medseg.__name__] if how == "as a module" else [medseg.__file__]
    told = subprocess.run(
        [sys.executable, *command, str(tmp_path / "nowhere"), "-o", str(tmp_path)], capture_output=True, text=True
    )
    assert told.returncode == 2
    assert told.stderr.startswith("error: ")
    assert "nowhere is not a folder" in told.stderr


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from nnunet_covid.cli import main; main(['convert', '--list']); "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
