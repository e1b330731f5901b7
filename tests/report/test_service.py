"""The service: DCMTK's storescu as sender, an archive on loopback as receiver, kills, full disks."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from box_chest import box_chest
from dcmtk import STORESCU
from dicom_files import ct_slice
from reported import write_series

pynetdicom = pytest.importorskip("pynetdicom")

from pydicom import dcmread  # noqa: E402

from nnunet_covid.errors import UserError  # noqa: E402
from nnunet_covid.files import digest_of, files_in  # noqa: E402
from nnunet_covid.report import inbox as inbox_module  # noqa: E402
from nnunet_covid.report import service as service_module  # noqa: E402
from nnunet_covid.report.inbox import Inbox  # noqa: E402
from nnunet_covid.report.service import OUT_OF_RESOURCES, SUCCESS, Peer, Service  # noqa: E402

needs_dcmtk = pytest.mark.skipif(STORESCU is None, reason="storescu of Debian's dcmtk is not installed")
KILLS = int(os.environ.get("NNUNET_COVID_SERVICE_KILLS", "3"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def archive() -> Iterator[SimpleNamespace]:
    """A receiver that keeps which objects it gets of which series; an object that comes again is told as such."""
    received: defaultdict[str, set[str]] = defaultdict(set)

    def stored(event: Any) -> int:
        objects = received[str(event.dataset.get("DeviceSerialNumber"))]
        answer = 0x0111 if event.dataset.SOPInstanceUID in objects else 0
        objects.add(str(event.dataset.SOPInstanceUID))
        return answer

    entity = pynetdicom.AE(ae_title="ARCHIVE")
    entity.supported_contexts = pynetdicom.StoragePresentationContexts
    port = free_port()
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, stored)])
    yield SimpleNamespace(received=received, to=f"127.0.0.1:{port}:ARCHIVE")
    server.shutdown()


def start(folder: Path, port: int, to: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(Path(__file__).with_name("served.py")), str(folder), str(port), to]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace", start_new_session=True
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def storescu(folder: Path, port: int, title: str) -> list[str]:
    return [str(STORESCU), "-aet", title, "-aec", "REPORTS", "--scan-directories", "127.0.0.1", str(port), str(folder)]


def send(folder: Path, port: int, title: str = "CT1") -> bool:
    """Whether storescu delivered all of a folder."""
    return subprocess.run(storescu(folder, port, title), capture_output=True, check=False, timeout=60).returncode == 0


def wait_for(condition: Any, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def kinds(folder: Path) -> dict[str, int]:
    return {state: sum(path.is_dir() for path in (folder / state).iterdir()) for state in inbox_module.STATES}


def send_until_taken(folders: list[Path], port: int, title: str) -> None:
    """As a scanner does: a series after the other, again where it failed."""
    for folder in folders:
        wait_for(lambda folder=folder: send(folder, port, title))


def break_off(folder: Path, inbox: Path, port: int) -> None:
    """A sender that dies in the middle of a series."""
    name = digest_of(dcmread(next(folder.iterdir())).SeriesInstanceUID, 16)
    arrived = inbox / "incoming" / name / "slices"
    for _ in range(20):
        sender = subprocess.Popen(storescu(folder, port, "CT1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sender.poll() is None and len(files_in(arrived)) < 10:
            time.sleep(0.01)
        if sender.poll() is None:
            sender.kill()
            sender.wait()
            return
        time.sleep(0.2)  # the service was killed first
    raise AssertionError("the sender was never in the middle")


@needs_dcmtk
def test_every_good_series_is_reported_once_whatever_is_killed(tmp_path: Path, archive: SimpleNamespace) -> None:
    """Twenty series of two senders at once, one of them sent by both and twice, between four that are no good."""
    image = box_chest().image[:40, :30, 20:26]
    good = [write_series(tmp_path / "ct" / f"s{i}", image) for i in range(20)]
    single = write_series(tmp_path / "single", image[:, :, :1])
    broken = write_series(tmp_path / "broken", box_chest().image)
    foreign = write_series(tmp_path / "mr", image, SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR")
    inbox, port, rng = tmp_path / "inbox", free_port(), random.Random()
    process = start(inbox, port, archive.to)
    with ThreadPoolExecutor(5) as senders:
        busy = [
            senders.submit(send_until_taken, [*good[:11], single, good[10]], port, "CT1"),
            senders.submit(send_until_taken, good[10:], port, "CT2"),
            senders.submit(break_off, broken, inbox, port),
            senders.submit(lambda: [send(good[0], port, "STRANGER") for _ in range(3)]),
            senders.submit(lambda: [send(foreign, port) for _ in range(3)]),
        ]
        for _ in range(KILLS):
            time.sleep(rng.uniform(0, 3))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process = start(inbox, port, archive.to)
        *_, strangers, foreigners = [one.result() for one in busy]
    assert not any(strangers + foreigners)
    wait_for(lambda: kinds(inbox)["done"] == len(good) and kinds(inbox)["refused"] == 2)
    assert kinds(inbox) == {"incoming": 0, "queue": 0, "sending": 0, "done": len(good), "refused": 2}
    assert set(archive.received) == {dcmread(folder / "IM0000").SeriesInstanceUID for folder in good}
    assert {len(objects) for objects in archive.received.values()} == {1}, "reported once each"
    assert {path.read_text(encoding="utf-8") for path in inbox.glob("done/*/report/slices.txt")} == {"6"}
    assert not list(inbox.glob("done/*/slices"))
    reasons = sorted(path.read_text(encoding="utf-8") for path in inbox.glob("refused/*/reason.txt"))
    assert "holds one slice" in reasons[0]
    assert "broke off" in reasons[1]
    assert not list(inbox.rglob("*.partial*"))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_sender_that_breaks_off_is_told_apart_and_may_send_again(tmp_path: Path, archive: SimpleNamespace) -> None:
    folder = write_series(tmp_path / "ct", box_chest().image[:40, :30, 20:26])
    inbox = Inbox(tmp_path / "inbox", quiet=0.2, most_bytes=1 << 30, reserve_bytes=0)

    def one(slices: Path, output: Path) -> None:
        output.mkdir()

    service = Service(inbox, "REPORTS", ["CT1"], one, None, lambda line: None)
    port = free_port()
    server = service.start("127.0.0.1", port)
    entity = pynetdicom.AE(ae_title="CT1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    for files, end in ((files_in(folder)[:3], "abort"), (files_in(folder), "release")):
        association = entity.associate("127.0.0.1", port, ae_title="REPORTS")
        for path in files:
            assert association.send_c_store(dcmread(path)).Status == SUCCESS
        getattr(association, end)()
        time.sleep(0.6)
        wait_for(lambda: not service.work() and not kinds(tmp_path / "inbox")["incoming"])
        found = kinds(tmp_path / "inbox")
        assert found["refused"] == (end == "abort")
        assert found["done"] == (end == "release")
    server.shutdown()


def test_a_silent_sender_has_minutes_and_is_told_apart_from_one_that_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert service_module.MOST_IDLE >= 180
    monkeypatch.setattr(service_module, "MOST_IDLE", 1.0)
    (path, *_) = files_in(write_series(tmp_path / "ct", box_chest().image[:40, :30, 20:26]))
    inbox = quick_inbox(tmp_path / "inbox")
    service = Service(inbox, "REPORTS", ["CT1"], lambda slices, output: output.mkdir(), None, lambda line: None)
    port = free_port()
    server = service.start("127.0.0.1", port)
    entity = pynetdicom.AE(ae_title="CT1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    association = entity.associate("127.0.0.1", port, ae_title="REPORTS")
    assert association.send_c_store(dcmread(path)).Status == SUCCESS
    wait_for(lambda: not service.work() and kinds(tmp_path / "inbox")["refused"], seconds=20)
    assert not association.is_established
    reason = (inbox.of("refused")[0].folder / "reason.txt").read_text(encoding="utf-8")
    assert "silent for 1 s" in reason
    assert "broke off" not in reason
    server.shutdown()


def test_dead_connections_do_not_keep_other_senders_out(tmp_path: Path) -> None:
    service = Service(quick_inbox(tmp_path), "REPORTS", ["CT1"], lambda slices, output: None, None, lambda line: None)
    port = free_port()
    server = service.start("127.0.0.1", port)
    entity = pynetdicom.AE(ae_title="CT1")
    entity.add_requested_context("1.2.840.10008.5.1.4.1.1.2")
    associations = [entity.associate("127.0.0.1", port, ae_title="REPORTS") for _ in range(20)]
    assert all(one.is_established for one in associations)
    for one in associations:
        one.abort()
    server.shutdown()


def test_a_full_disk_refuses_new_slices_and_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_series(tmp_path / "ct", box_chest().image[:40, :30, 20:26])
    inbox = Inbox(tmp_path / "inbox", quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
    service = Service(inbox, "REPORTS", ["CT1"], lambda slices, output: output.mkdir(), None, lambda line: None)
    events = [SimpleNamespace(encoded_dataset=path.read_bytes, assoc="a") for path in files_in(folder)]
    assert [service._stored(event) for event in events[:3]] == [SUCCESS] * 3
    monkeypatch.setattr(inbox_module.os, "fsync", _full)
    assert service._stored(events[3]) == OUT_OF_RESOURCES
    monkeypatch.undo()
    monkeypatch.setattr(inbox_module.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    assert service._stored(events[4]) == OUT_OF_RESOURCES
    monkeypatch.undo()
    (series,) = inbox.of("incoming")
    assert len(files_in(series.slices)) == 3
    assert not list(series.slices.glob(".partial*"))
    release = SimpleNamespace(assoc="a", pdu=type("A_RELEASE_RQ", (), {})())
    for known, state in ((events[:3], "refused"), (events, "queue")):  # ended in order, but not with every slice
        assert [service._stored(event) for event in known] == [SUCCESS] * len(known)
        service._heard(release)
        inbox.complete_quiet_ones()
        assert len(files_in(inbox.of(state)[0].slices)) == len(known)
    assert inbox.of("refused") == []


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_no_dicom_is_not_understood(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
    service = Service(inbox, "REPORTS", ["CT1"], lambda slices, output: None, None, lambda line: None)
    assert service._stored(SimpleNamespace(encoded_dataset=lambda: b"nothing", assoc="a")) == 0xC000
    assert inbox.of("incoming") == []


@pytest.mark.parametrize(
    "text", ["ORTHANC", "127.0.0.1:ORTHANC", "127.0.0.1:²:A", "127.0.0.1:0:A", "127.0.0.1:99999:A", "h:1:" + "A" * 17]
)
def test_a_peer_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UserError, match="HOST:PORT:AET"):
        Peer.of(text)


def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
    service = Service(inbox, "REPORTS", ["CT1"], lambda slices, output: None, None, lambda line: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="choose another port"):
            service.start("127.0.0.1", taken.getsockname()[1])


def complete(inbox: Inbox, series: str, *instances: str) -> None:
    """Slices of a series whose sender has ended in order, and the quiet time after them."""
    for instance in instances:
        place = inbox.store(series, instance, instance.encode())
    if place is not None:
        inbox.closed(place)
    inbox.complete_quiet_ones()


def quick_inbox(folder: Path) -> Inbox:
    return Inbox(folder, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)


def test_late_slices_join_a_series_that_waits_and_are_put_aside_of_a_reported_one(tmp_path: Path) -> None:
    inbox = quick_inbox(tmp_path)
    complete(inbox, "1.2", "1.2.1")
    complete(inbox, "1.2", "1.2.1")
    assert kinds(tmp_path) == {"incoming": 0, "queue": 1, "sending": 0, "done": 0, "refused": 0}
    complete(inbox, "1.2", "1.2.2")
    (waiting,) = inbox.of("queue")
    assert len(files_in(waiting.slices)) == 2
    for number, prepare in enumerate(
        (lambda: setattr(inbox, "working", waiting.folder), lambda: inbox.move(waiting, "sending")), start=1
    ):
        prepare()
        complete(inbox, "1.2", "1.2.1", f"1.2.{2 + number}")
        (late,) = inbox.of("refused")
        assert late.folder.name == f"{waiting.folder.name}.late"
        assert len(files_in(late.slices)) == number, "what was taken is kept"
        assert "after the series had been reported" in (late.folder / "reason.txt").read_text(encoding="utf-8")
    assert inbox.of("incoming") == []


def test_slices_sent_again_join_a_refused_series(tmp_path: Path) -> None:
    inbox = quick_inbox(tmp_path)
    complete(inbox, "1.2", "1.2.1", "1.2.2")
    inbox.refuse(inbox.of("queue")[0], "a slice is missing")
    complete(inbox, "1.2", "1.2.3")
    assert kinds(tmp_path) == {"incoming": 0, "queue": 1, "sending": 0, "done": 0, "refused": 0}
    assert len(files_in(inbox.of("queue")[0].slices)) == 3
    assert not list(tmp_path.rglob("reason.txt"))


def test_what_is_kept_is_bounded_refused_series_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(tmp_path, quiet=0.0, most_bytes=10, reserve_bytes=0)
    monkeypatch.setattr(inbox_module, "COUNT_AGAIN", 0.0)
    complete(inbox, "1.2", "1.2.1", "1.2.2")
    inbox.refuse(inbox.of("queue")[0], "bad")
    assert not inbox.has_room()
    shutil.rmtree(inbox.of("refused")[0].folder)
    assert inbox.has_room(), "somebody has made room"


def test_an_inbox_of_a_killed_service_is_tidied_up(tmp_path: Path) -> None:
    complete(quick_inbox(tmp_path), "1.2", "1.2.1")
    (tmp_path / "incoming" / digest_of("1.3", 16)).mkdir()
    delivered, foreign = (tmp_path / "done" / name / "slices" for name in (digest_of("1.4", 16), "patient"))
    for folder in (delivered, foreign, tmp_path / "incoming" / "patient"):
        folder.mkdir(parents=True)
    (foreign / "only.dcm").touch()
    inbox = quick_inbox(tmp_path)
    inbox.complete_quiet_ones()
    assert [len(inbox.of(state)) for state in inbox_module.STATES] == [0, 1, 0, 1, 0]
    assert not delivered.exists()
    assert (foreign / "only.dcm").is_file(), "a folder that is no series of ours stays"
    assert (tmp_path / "incoming" / "patient").is_dir()


def test_a_report_that_cannot_be_delivered_does_not_keep_back_the_others(tmp_path: Path) -> None:
    inbox = quick_inbox(tmp_path)
    for number in range(3):
        complete(inbox, f"1.{number}", f"1.{number}.1")

    def one(slices: Path, output: Path) -> None:
        output.mkdir()
        ct_slice(np.zeros((4, 4)), 0, "1.2").save_as(output / "object.dcm", enforce_file_format=True)

    service = Service(inbox, "REPORTS", ["CT1"], one, Peer("h", 1, "A"), lambda line: None)
    answers = iter(["the first is not wanted", None, None, None])
    service._send = lambda objects: next(answers)  # type: ignore[method-assign]
    for _ in range(6):
        service.work()
    assert kinds(tmp_path)["done"] == 2
    wait_for(lambda: service.work() and kinds(tmp_path)["done"] == 3, seconds=5)


@needs_dcmtk
@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="a small disk is mounted, which takes root")
def test_a_disk_that_is_really_full_refuses_new_series_and_loses_none(tmp_path: Path, archive: SimpleNamespace) -> None:
    disk, port = tmp_path / "disk", free_port()
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    series = [write_series(tmp_path / "ct" / f"s{i}", box_chest().image[:, :, 20:26]) for i in range(20)]
    process = start(disk / "inbox", port, archive.to)
    try:
        with (disk / "ballast").open("wb") as stream:
            stream.write(b"\0" * (3 << 19))
        taken = [send(folder, port, "CT1") for folder in series]  # 1.2 MB, and there are 0.5
        assert any(taken)
        assert not all(taken)
        (disk / "ballast").unlink()
        for folder, was_taken in zip(series, taken, strict=True):
            if not was_taken:
                wait_for(lambda folder=folder: send(folder, port, "CT1"))
        wait_for(lambda: kinds(disk / "inbox")["done"] == 20)
        assert kinds(disk / "inbox") == {"incoming": 0, "queue": 0, "sending": 0, "done": 20, "refused": 0}
        assert {path.read_text(encoding="utf-8") for path in disk.glob("inbox/done/*/report/slices.txt")} == {"6"}
        assert sorted(map(len, archive.received.values())) == [1] * 20
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        subprocess.run(["umount", "--lazy", str(disk)], check=False)
