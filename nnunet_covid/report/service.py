"""A DICOM node that reports: takes CT series from the senders it knows, reports on each, sends the objects back.

pynetdicom, of the extra ``dicom``, speaks the protocol; where a series stands is kept on disk (``inbox``), so that a
killed service goes on, loses no series and reports on none twice: objects are made once, and sent again with the same
UIDs.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pydicom

from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in
from nnunet_covid.report.inbox import Inbox, Series

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
"""CT and Enhanced CT Image Storage."""
VERIFICATION = "1.2.840.10008.1.1"
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds before another try to deliver


@dataclass(frozen=True)
class Peer:
    """Where objects are sent."""

    host: str
    port: int
    title: str

    @classmethod
    def of(cls, text: str) -> Peer:
        """From ``HOST:PORT:AET``.

        Raises:
            UserError: If it is not of that form.
        """
        host, _, rest = text.partition(":")
        port, _, title = rest.partition(":")
        if not (host and title) or not port.isdigit() or not 0 < int(port) < 65536 or len(title) > 16:
            raise UserError(f"{text!r} is no HOST:PORT:AET, such as 127.0.0.1:4242:ORTHANC")
        return cls(host, int(port), title)


def network_library() -> Any:
    """The package pynetdicom.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import pynetdicom
    except ImportError as e:
        raise UserError("the service needs further packages: pip install 'nnunet_covid[dicom]'") from e
    return pynetdicom


class Service:
    """Receives and reports.

    Args:
        inbox: Where series stand.
        title: Own application entity title.
        accepted: Titles of the senders that are heard.
        one: Reports on a folder of slices into another folder; a ``UserError`` refuses the series.
        to: Where objects are sent; None keeps them on disk alone.
        tell: Prints a line.
    """

    def __init__(
        self,
        inbox: Inbox,
        title: str,
        accepted: Sequence[str],
        one: Callable[[Path, Path], object],
        to: Peer | None,
        tell: Callable[[str], None],
    ) -> None:
        self.inbox = inbox
        self.title = title
        self.accepted = list(accepted)
        self.one = one
        self.to = to
        self.tell = tell
        self.stopping = Event()
        self._wait, self._next_delivery = FIRST_WAIT, 0.0
        self._open: dict[Any, set[Path]] = {}
        self._lock = Lock()

    def start(self, host: str, port: int) -> Any:
        """Listen; returns the server, whose ``shutdown`` ends it.

        Raises:
            UserError: If the port cannot be had.
        """
        library = network_library()
        entity = library.AE(ae_title=self.title)
        entity.require_called_aet = True
        entity.require_calling_aet = self.accepted
        entity.add_supported_context(VERIFICATION)
        for uid in CT_CLASSES:
            entity.add_supported_context(uid, library.ALL_TRANSFER_SYNTAXES)
        handlers = [
            (library.evt.EVT_C_STORE, self._stored),
            (library.evt.EVT_RELEASED, self._released),
            (library.evt.EVT_CONN_CLOSE, self._ended),
        ]
        try:
            return entity.start_server((host, port), block=False, evt_handlers=handlers)
        except OSError as e:
            raise UserError(f"cannot listen on {host}:{port} ({e.strerror}); choose another port") from e

    def _stored(self, event: Any) -> int:
        """Answer to one slice: kept, no room, or not understood."""
        if not self.inbox.has_room():
            return OUT_OF_RESOURCES
        try:
            header = pydicom.dcmread(io.BytesIO(event.encoded_dataset()), stop_before_pixels=True)
            series, instance = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
        except Exception:  # whatever a sender's bytes do to the parser
            return CANNOT_UNDERSTAND
        try:
            with self._lock:
                place = self.inbox.store(series, instance, event.encoded_dataset())
                if place is not None:
                    self.inbox.opened(place)
                    self._open.setdefault(event.assoc, set()).add(place.folder)
        except OSError:
            return OUT_OF_RESOURCES
        return SUCCESS

    def _released(self, event: Any) -> None:
        """The sender has ended in order: its series are complete as far as it goes."""
        with self._lock:
            for folder in self._open.pop(event.assoc, ()):
                self.inbox.closed(Series(folder))

    def _ended(self, event: Any) -> None:
        """The connection is gone; what was not released stays marked as broken off."""
        with self._lock:
            self._open.pop(event.assoc, None)

    def work(self) -> bool:
        """One round: complete series, report on one, deliver one; whether there was anything to do."""
        with self._lock:
            self.inbox.complete_quiet_ones(frozenset().union(*self._open.values()))
        return self._report_next() | self._deliver_next()

    def run(self, pause: float = 0.5) -> None:
        """Work until :attr:`stopping` is set."""
        while not self.stopping.is_set():
            if not self.work():
                self.stopping.wait(pause)

    def _report_next(self) -> bool:
        waiting = self.inbox.of("queue")
        if not waiting:
            return False
        series = waiting[0]
        if not series.report.is_dir():
            try:
                self.one(series.slices, series.report)
            except UserError as e:
                self.inbox.refuse(series, str(e))
                self.tell(f"refused {series.folder.name}: {e}")
                return True
        self.inbox.move(series, "sending")
        self.tell(f"reported {series.folder.name}")
        return True

    def _deliver_next(self) -> bool:
        waiting = self.inbox.of("sending")
        if not waiting or time.monotonic() < self._next_delivery:
            return False
        series = waiting[0]
        if self.to is not None and (problem := self._send(files_in(series.report, ".dcm", below=True))):
            self.tell(f"cannot deliver {series.folder.name} ({problem}); trying again in {self._wait:g} s")
            self._next_delivery = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            return False
        self._wait = FIRST_WAIT
        self.inbox.finish(series)
        return True

    def _send(self, files: Sequence[Path]) -> str | None:
        """Deliver objects; what went wrong, if anything did."""
        assert self.to is not None
        library = network_library()
        objects = [pydicom.dcmread(path) for path in files]
        entity = library.AE(ae_title=self.title)
        for uid in sorted({one.SOPClassUID for one in objects}):
            entity.add_requested_context(uid)
        association = entity.associate(self.to.host, self.to.port, ae_title=self.to.title)
        if not association.is_established:
            return f"{self.to.host}:{self.to.port}:{self.to.title} does not answer"
        try:
            for one in objects:
                status = association.send_c_store(one)
                if not status or status.Status != SUCCESS:
                    code = f"status {status.Status:04x}" if status else "no answer"
                    return f"{self.to.title} did not take {one.SOPClassUID.name}: {code}"
        except (ValueError, RuntimeError) as e:
            return str(e)
        finally:
            association.release()
        return None
