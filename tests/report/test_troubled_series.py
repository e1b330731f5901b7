"""Series that the service cannot take whole, or at which it dies: nothing is reported on in part, nothing stops it."""

from __future__ import annotations

import io
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from dicom_files import ct_slice

from nnunet_covid.files import files_in
from nnunet_covid.report.inbox import Inbox
from nnunet_covid.report.service import OUT_OF_RESOURCES, SUCCESS, Service


class Node:
    """A service without a network around it, which counts the slices that it reports on."""

    def __init__(self, folder: Path) -> None:
        self.inbox = Inbox(folder, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
        self.counted: list[int] = []
        self.service = Service(self.inbox, "REPORTS", ["CT1"], self.one, None, lambda line: None)

    def one(self, slices: Path, output: Path) -> None:
        self.counted.append(len(files_in(slices)))
        output.mkdir()

    def send(self, *numbers: int, room: bool = True, series: str = "1.2.3") -> set[int]:
        """Slices over a connection of their own that ends in order; the answers to them."""
        self.inbox.has_room = lambda: room  # type: ignore[method-assign]
        contents = []
        for number in numbers:
            stream = io.BytesIO()
            ct_slice(np.zeros((4, 4)), number, series).save_as(stream, enforce_file_format=True)
            contents.append(stream.getvalue())
        answers = {
            self.service._stored(SimpleNamespace(assoc=numbers, encoded_dataset=lambda content=content: content))
            for content in contents
        }
        self.service._heard(SimpleNamespace(assoc=numbers, pdu=type("A_RELEASE_RQ", (), {})()))
        return answers

    def work(self) -> list[int]:
        """How many slices each report has that is due."""
        while self.service.work():
            pass
        return self.counted


@pytest.mark.parametrize("refused", [0, 2, 4], ids=["first", "middle", "last"])
@pytest.mark.parametrize("is_killed", [False, True], ids=["goes on", "killed"])
def test_a_series_waits_for_a_refused_slice_whichever_connection_brings_it(
    tmp_path: Path, refused: int, is_killed: bool
) -> None:
    node = Node(tmp_path)
    for number in range(5):
        expected = OUT_OF_RESOURCES if number == refused else SUCCESS
        assert node.send(number, room=number != refused) == {expected}
        if number == refused:
            assert node.work() == [], "not without the slice, however long nothing comes"
            node = Node(tmp_path) if is_killed else node
    assert node.work() == []
    assert "no room for 1 of its slices" in next(tmp_path.glob("refused/*/reason.txt")).read_text(encoding="utf-8")
    node.send(refused)
    assert node.work() == [5]
    assert not list(tmp_path.glob("refused/*"))


def test_a_series_that_waits_does_not_go_on_without_a_slice_that_is_refused_later(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.send(0, 1)
    node.inbox.complete_quiet_ones()
    node.send(0, 2, room=False)
    assert node.work() == []
    node.send(2)
    assert node.work() == [3]
    node.send(3, room=False)
    assert node.work() == [3], "what has been reported on stays"
    assert [len(node.inbox.of(state)) for state in ("incoming", "queue", "done", "refused")] == [0, 0, 1, 0]


def dies_of(folder: Path, slices: int, is_told: bool) -> None:
    """A service whose process ends at a series of so many slices, as for want of memory; or is told to stop first."""
    node = Node(folder)

    def one(files: Path, output: Path) -> None:
        if len(files_in(files)) == slices:
            if is_told:
                node.service.stop()
            os._exit(137)
        output.mkdir()

    node.service.one = one
    node.work()


def start(folder: Path, slices: int, *, is_told: bool = False) -> int | None:
    """The exit status of such a service."""
    process = multiprocessing.get_context("spawn").Process(target=dies_of, args=(folder, slices, is_told))
    process.start()
    process.join()
    return process.exitcode


def test_a_series_of_which_the_service_dies_stops_it_twice_and_not_for_ever(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.send(0, 1, 2)
    node.inbox.complete_quiet_ones()
    node.send(0, 1, series="1.2.4")
    assert [start(tmp_path, 3) for _ in range(3)] == [137, 137, 0]
    assert [len(node.inbox.of(state)) for state in ("queue", "done", "refused")] == [0, 1, 1]
    assert "ended twice" in next(tmp_path.glob("refused/*/reason.txt")).read_text(encoding="utf-8")
    node = Node(tmp_path)
    node.send(0)
    assert node.work() == [3], "sent again, it is tried again"


def test_a_service_that_was_told_to_stop_has_not_died_of_the_series_in_work(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.send(0, 1, 2)
    node.inbox.complete_quiet_ones()
    assert [start(tmp_path, 3, is_told=True) for _ in range(3)] == [137] * 3
    assert Node(tmp_path).work() == [3]
