"""One workspace for all end-to-end tests."""

from __future__ import annotations

import pytest
from workspace import Workspace


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("workspace"))
    for folder in (made.raw, made.preprocessed, made.results):
        folder.mkdir()
    return made
