"""Every format that is read, damaged at random: read, or told in one sentence; no traceback, crash, hang or flood.

A short run with the same inputs each time. For a long one: ``PYTHONPATH=tests python -m fuzzing.runner``, or
``NNUNET_COVID_FUZZ_EXAMPLES=500`` and other seeds by ``NNUNET_COVID_FUZZ_SEED``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing.kept import KEPT
from fuzzing.mutations import edited
from fuzzing.runner import Fuzzer
from fuzzing.targets import TARGETS

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork and /proc")

EXAMPLES = int(os.environ.get("NNUNET_COVID_FUZZ_EXAMPLES", "6"))
SEED = int(os.environ.get("NNUNET_COVID_FUZZ_SEED", "0"))
MEGABYTES = 500
"""By so much a process may grow; the inputs are tiny."""


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    made = Fuzzer(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_at_random(target: str, fuzzer: Fuzzer) -> None:
    answer = fuzzer.ask(target, seed=SEED, examples=EXAMPLES)
    assert answer["failure"] is None, f"{answer['failure']}\nkeep: {(target, answer['edits'])}"
    assert answer["read"] > 0, "the good input is read"
    assert answer["grown_mb"] < MEGABYTES


@pytest.mark.parametrize(("target", "edits"), KEPT)
def test_kept(target: str, edits: list[list[Any]], fuzzer: Fuzzer) -> None:
    assert fuzzer.ask(target, edits=edits)["failure"] is None


def test_a_failure_would_be_seen(fuzzer: Fuzzer) -> None:
    """An input that no command accepts, a reader that raises, one that crashes, and one that hangs."""
    for target, failure in (("raises", "ZeroDivisionError"), ("crashes", "SIGSEGV"), ("takes memory", "MemoryError")):
        answer = fuzzer.ask(f"test: {target}", edits=[["cut", 1]])
        assert failure in answer["failure"]
        assert answer["edits"] == [["cut", 1]]


def test_edits_change_what_they_say() -> None:
    assert edited(b"abcdef", [("put", 1, b"XY")]) == b"aXYdef"
    assert edited(b"abcdef", [("cut", 2), ("insert", 1, b"-")]) == b"a-b"
    assert edited(b"a = 1 2", [("token", 2, "nan")]) == b"a = 1 nan"
    assert edited(b'{"a": [1]}', [("node", 2, "null")]) == b'{"a": [null]}'
    assert edited(b'{"a": [1]}', [("node", 1, "delete")]) == b"{}"


def test_seeds_give_the_same_inputs(fuzzer: Fuzzer, tmp_path: Path) -> None:
    first, second = (fuzzer.ask("patients", seed=3, examples=5) for _ in range(2))
    assert first == {**second, "grown_mb": first["grown_mb"]}
