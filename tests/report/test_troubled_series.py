"""Series that the service cannot take whole, or at which it dies: nothing is reported on in part, nothing stops it."""

from __future__ import annotations

import io
import multiprocessing
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from dicom_files import ct_slice

from nnunet_covid.files import files_in
from nnunet_covid.report.inbox import Inbox
from nnunet_covid.report.service import OUT_OF_RESOURCES, SUCCESS, Peer, Service


def content_of(number: int, series: str = "1.2.3") -> bytes:
    """The file of a slice."""
    stream = io.BytesIO()
    ct_slice(np.zeros((4, 4)), number, series).save_as(stream, enforce_file_format=True)
    return stream.getvalue()


class Node:
    """A service without a network around it, which counts the slices that it reports on and the objects that it sends.

    Args:
        folder: Of its inbox.
        to: Where the objects go; they stay in the folder if not given.
        objects: Contents of the files of a report, which becomes one of a slice that can be read if not given.
    """

    def __init__(self, folder: Path, *, to: Peer | None = None, objects: list[bytes] | None = None) -> None:
        self.inbox = Inbox(folder, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
        self.counted: list[int] = []
        self.sent: list[int] = []
        self.objects = [content_of(0)] if objects is None else objects
        self.service = Service(self.inbox, "REPORTS", ["CT1"], self.one, to, lambda line: None)
        self.service._send = lambda objects: self.sent.append(len(objects))  # type: ignore[method-assign]

    def one(self, slices: Path, output: Path) -> None:
        self.counted.append(len(files_in(slices)))
        output.mkdir()
        for number, content in enumerate(self.objects):
            (output / f"{number}.dcm").write_bytes(content)

    def send(self, *numbers: int, room: bool = True, series: str = "1.2.3") -> set[int]:
        """Slices over a connection of their own that ends in order; the answers to them."""
        answers = self.store(numbers, *numbers, room=room, series=series)
        self.release(numbers)
        return answers

    def store(self, association: Any, *numbers: int, room: bool = True, series: str = "1.2.3") -> set[int]:
        """Slices over a connection that goes on; the answers to them."""
        self.inbox.has_room = lambda: room  # type: ignore[method-assign]
        contents = [content_of(number, series) for number in numbers]
        return {
            self.service._stored(SimpleNamespace(assoc=association, encoded_dataset=lambda content=content: content))
            for content in contents
        }

    def release(self, association: Any) -> None:
        self.service._heard(SimpleNamespace(assoc=association, pdu=type("A_RELEASE_RQ", (), {})()))
        self.break_off(association)

    def break_off(self, association: Any) -> None:
        self.service._ended(SimpleNamespace(assoc=association))

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


def test_a_series_that_breaks_the_report_is_put_aside_and_the_others_go_on(tmp_path: Path) -> None:
    node = Node(tmp_path)

    def one(slices: Path, output: Path) -> None:
        if len(files_in(slices)) == 1:
            raise ValueError("first line\nthe library is puzzled")
        node.one(slices, output)

    node.service.one = one
    node.send(0, series="1.2")
    node.send(0, 1, series="1.3")
    assert node.work() == [2]
    assert [len(node.inbox.of(state)) for state in ("incoming", "queue", "done", "refused")] == [0, 0, 1, 1]
    (refused,) = node.inbox.of("refused")
    assert "(the library is puzzled)" in (refused.folder / "reason.txt").read_text(encoding="utf-8")
    assert "ValueError" in (refused.folder / "error.txt").read_text(encoding="utf-8")


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


@pytest.mark.parametrize(
    ("events", "reported"),
    [
        ("A0 A1 B2 A. B.", [3]),
        ("A0 A1 B2 A. B!", []),
        ("A0 A1 B2 B! A.", []),
        ("A0 A1 B2 B! A3 A.", []),
        ("A0 A1 B2 A. killed", []),
        ("A0 A1 B2 B! C2 C. A.", [3]),
        ("A0 A1 B2 B! C2 A. C.", [3]),
        ("A0 A1 B2 B! C2 A. C!", []),
        ("A0 A1 B2 A. B! C2 C.", [3]),
        ("A0 A1 B2 B! A2 A.", [3]),
        ("A0 A1 B0 B1 B2 B. A!", [3]),
        ("A0 A1 B0 B1 A! B2 B.", [3]),
        ("A0 A! B1 B0 B.", [2]),
        ("A0 B0 B1 B. A1 A!", [2]),
        ("A0 A1 B0 B1 B2 B. killed", [3]),
        ("A0 A1 B0 C2 A! B1 B. C.", [3]),
        ("A0 A1 B0 C2 A! B. C.", []),
        ("A0 A3 B0 B1 B2 B. A!", []),
        ("A0 B1 B! C0 A! C.", []),
        ("A0 A1 A! C2 C.", [3]),
    ],
)
def test_a_series_over_several_connections_is_whole_when_all_end_in_order_or_send_again(
    tmp_path: Path, events: str, reported: list[int]
) -> None:
    """A number is a slice over that connection, ``.`` ends it in order, and ``!`` breaks it off.

    A connection that is dead may be found out after the same slices came again over another.
    """
    node = Node(tmp_path)
    for event in events.split():
        if event == "killed":
            node = Node(tmp_path)
        elif event[1] == ".":
            node.release(event[0])
        elif event[1] == "!":
            node.break_off(event[0])
        else:
            assert node.store(event[0], int(event[1])) == {SUCCESS}
        counted = list(node.work())
    assert counted == reported
    reasons = [path.read_text(encoding="utf-8") for path in tmp_path.glob("refused/*/reason.txt")]
    assert len(reasons) == (not reported)
    assert all("broke off" in reason for reason in reasons)


HEADERLESS = content_of(0)[:300]
"""Of a file that a power cut left with its beginning alone."""


@pytest.mark.parametrize("left", [[b""], [], [HEADERLESS], [content_of(1), b"\0" * 500]])
def test_objects_that_a_power_cut_damaged_are_made_anew(tmp_path: Path, left: list[bytes]) -> None:
    node = Node(tmp_path, objects=left)
    node.send(0, 1)
    node.send(0, 1, 2, series="1.2.4")
    node.inbox.complete_quiet_ones()
    while node.inbox.of("queue"):
        node.service._report_next()
    node = Node(tmp_path, to=Peer("h", 1, "A"))
    assert sorted(node.work()) == [2, 3]
    assert node.sent == [1, 1]
    assert [len(node.inbox.of(state)) for state in ("sending", "done", "refused")] == [0, 2, 0]
    assert not list(tmp_path.rglob(".report*"))


def test_a_report_that_a_killed_service_left_unsent_is_made_anew_with_slices_that_came_since(tmp_path: Path) -> None:
    node = Node(tmp_path, objects=[HEADERLESS])
    node.send(0, 1)
    node.inbox.complete_quiet_ones()
    (series,) = node.inbox.of("queue")
    node.one(series.slices, series.report)  # and the power is cut
    node = Node(tmp_path, to=Peer("h", 1, "A"))
    node.send(2)
    assert node.work() == [3]
    assert node.sent == [1]
    assert [len(node.inbox.of(state)) for state in ("queue", "done", "refused")] == [0, 1, 0]


def test_objects_that_never_can_be_read_do_not_keep_the_service_busy(tmp_path: Path) -> None:
    node = Node(tmp_path, to=Peer("h", 1, "A"), objects=[])
    node.send(0, 1)
    assert node.work() == [2, 2]
    (refused,) = node.inbox.of("refused")
    assert "cannot be read" in (refused.folder / "reason.txt").read_text(encoding="utf-8")
    node.objects = [content_of(0)]
    node.send(1)
    assert node.work() == [2, 2, 2], "sent again, it is tried again"
    assert node.sent == [1]


def test_slices_that_come_while_a_series_is_refused_for_its_objects_do_not_end_the_service(tmp_path: Path) -> None:
    node = Node(tmp_path, to=Peer("h", 1, "A"), objects=[])
    node.send(0, 1)
    lock = node.service._lock

    class Busy:
        """Lets a slice in as soon as the series lies where one can join it, after the second report."""

        def __enter__(self) -> None:
            lock.acquire()

        def __exit__(self, *_: object) -> None:
            lock.release()
            if len(node.counted) == 2 and node.inbox.of("queue"):
                node.store("B", 2)

    node.service._lock = Busy()  # type: ignore[assignment]
    assert node.work() == [2, 2]
    assert "cannot be read" in next(tmp_path.glob("refused/*/reason.txt")).read_text(encoding="utf-8")
