"""The synthetic download goes through the converters that a user's own one goes through."""

import json

import pytest

from nnunet_covid.dataset_conversion import recipe_named
from nnunet_covid.demo.covid_semiseg import write_tiny_covid_semiseg
from nnunet_covid.raw_dataset import convert_dataset


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_covid_semiseg(tmp_path_factory.mktemp("tiny"))


@pytest.mark.parametrize(("name", "labels"), [("covid-semiseg", 2), ("502", 3)])
def test_converter_takes_the_synthetic_download(tiny, tmp_path, name, labels):
    folder = convert_dataset(recipe_named(name), tiny, output=tmp_path, tell=lambda _: None)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["numTraining"] == 8
    assert len(description["labels"]) == labels
    assert len(list((folder / "labelsTs").iterdir())) == 2
