"""The world of the matrix, and its results on paper."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cells import Cell
from models import Models
from nnunet_here import World


@pytest.fixture(scope="session")
def all_models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Data sets and models, each made when it is first asked for."""
    return Models(World(tmp_path_factory.mktemp("matrix")))


@pytest.fixture
def models(all_models: Models) -> Iterator[Models]:
    """The same, and the disk does not fill up with weights."""
    yield all_models
    all_models.forget()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Every cell's outcome goes to the file of results."""
    found: Any = yield
    cell = getattr(item, "callspec", None) and item.callspec.params.get("cell")
    report = found.get_result()
    if isinstance(cell, Cell) and (report.when == "call" or report.failed):
        good = "refused" if cell.refusal else "works"
        cell.record(good if report.passed else "fails")
