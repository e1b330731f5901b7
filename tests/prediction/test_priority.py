"""Threads that read and write stand back, and work all the same where they may not."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from nnunet_covid.prediction.conveyor import NICER, Limits, Steps, convey

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux alone")


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def conveyed() -> list[int]:
    """The niceness of the threads that read, compute and write."""
    found: list[int] = []

    def compute(items: list[int]) -> list[int]:
        found.append(niceness())
        return list(items)

    steps: Steps[int, int, int] = Steps(
        lambda _: niceness(), compute, lambda _, read: found.extend((read, niceness())), lambda _: 1
    )
    assert [error for _, error in convey([1], steps, Limits())] == [None]
    return found


def test_readers_and_writers_are_nicer_than_the_network():
    own = niceness()
    assert conveyed() == [own, min(19, own + NICER), min(19, own + NICER)]
    assert niceness() == own


def test_where_that_is_forbidden_they_work_all_the_same(monkeypatch):
    def forbidden(*_: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "setpriority", forbidden)
    assert conveyed() == [niceness()] * 3
