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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from box_chest import box_chest
from reported import write_series

pynetdicom = pytest.importorskip("pynetdicom")

from nnunet_covid.errors import UserError  # noqa: E402
from nnunet_covid.files import files_in  # noqa: E402
from nnunet_covid.report import inbox as inbox_module  # noqa: E402
from nnunet_covid.report.inbox import Inbox  # noqa: E402
from nnunet_covid.report.service import OUT_OF_RESOURCES, SUCCESS, Peer, Service  # noqa: E402

STORESCU = shutil.which("storescu")
needs_dcmtk = pytest.mark.skipif(STORESCU is None, reason="storescu of Debian's dcmtk is not installed")
KILLS = int(os.environ.get("NNUNET_COVID_SERVICE_KILLS", "3"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def archive() -> Iterator[SimpleNamespace]:
    """A receiver that counts what it gets by UID."""
    received: Counter[str] = Counter()

    def stored(event: Any) -> int:
        received[str(event.dataset.SOPInstanceUID)] += 1
        return 0

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


@needs_dcmtk
def test_every_good_series_is_reported_once_whatever_is_killed(tmp_path: Path, archive: SimpleNamespace) -> None:
    image = box_chest().image[:40, :30, 20:26]
    series = [write_series(tmp_path / "ct" / f"s{i}", image) for i in range(6)]
    foreign = write_series(tmp_path / "mr", image, SOPClassUID="1.2.840.10008.5.1.4.1.1.4", Modality="MR")
    single = write_series(tmp_path / "single", image[:, :, :1])
    inbox, port, rng = tmp_path / "inbox", free_port(), random.Random(7)
    process = start(inbox, port, archive.to)
    assert not send(series[0], port, "STRANGER")
    assert not send(foreign, port)
    pending = [*series, single, series[1]]
    kills = 0
    while pending:
        title = rng.choice(["CT1", "CT2"])
        sender = subprocess.Popen(
            storescu(pending[0], port, title), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if kills < KILLS and rng.random() < 0.6:
            time.sleep(rng.uniform(0, 0.4))
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            sender.wait(timeout=60)
            process = start(inbox, port, archive.to)
        if sender.wait(timeout=60) == 0:
            pending.pop(0)
    wait_for(lambda: kinds(inbox)["done"] == len(series) and kinds(inbox)["refused"] == 1)
    assert kinds(inbox) == {"incoming": 0, "queue": 0, "sending": 0, "done": len(series), "refused": 1}
    assert len(archive.received) == len(series)
    assert {(path / "report" / "slices.txt").read_text(encoding="utf-8") for path in (inbox / "done").iterdir()} == {
        "6"
    }
    (reason,) = [path / "reason.txt" for path in (inbox / "refused").iterdir()]
    assert "one slice" in reason.read_text(encoding="utf-8")
    assert not list(inbox.rglob(".partial*"))
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
    from pydicom import dcmread

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
    assert [service._stored(event) for event in events] == [SUCCESS] * 6
    assert len(files_in(series.slices)) == 6


def _full(_: int) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_no_dicom_is_not_understood(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
    service = Service(inbox, "REPORTS", ["CT1"], lambda slices, output: None, None, lambda line: None)
    assert service._stored(SimpleNamespace(encoded_dataset=lambda: b"nothing", assoc="a")) == 0xC000
    assert inbox.of("incoming") == []


@pytest.mark.parametrize(
    "text", ["ORTHANC", "127.0.0.1:ORTHANC", "127.0.0.1:0:A", "127.0.0.1:99999:A", "h:1:" + "A" * 17]
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


def test_late_slices_of_a_reported_series_are_put_aside(tmp_path: Path) -> None:
    inbox = Inbox(tmp_path, quiet=0.0, most_bytes=1 << 30, reserve_bytes=0)
    place = inbox.store("1.2", "1.2.1", b"a")
    assert place is not None
    inbox.closed(place)
    inbox.complete_quiet_ones()
    (queued,) = inbox.of("queue")
    assert inbox.store("1.2", "1.2.1", b"a") is None
    assert inbox.of("refused") == []
    assert inbox.store("1.2", "1.2.2", b"b") is None
    assert inbox.of("refused")[0].folder.name == f"{queued.folder.name}.late"
