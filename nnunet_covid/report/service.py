"""A DICOM node that reports: takes CT series from the senders it knows, reports on each, sends the objects back.

pynetdicom, of the extra ``dicom``, speaks the protocol; where a series stands is kept on disk (``inbox``), so that a
killed service goes on, loses no series and reports on none twice: objects are made once, and sent again with the same
UIDs.
"""

from __future__ import annotations

import io
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Any

import pydicom

from nnunet_covid.disturbances import full_place
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import files_in, to_disk, write_text
from nnunet_covid.report.inbox import BROKEN_OFF, Inbox, Series

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
"""CT and Enhanced CT Image Storage."""
VERIFICATION = "1.2.840.10008.1.1"
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
DUPLICATE = 0x0111
"""Answer to an object that is there already: a service that was killed sends it again."""
WARNINGS = range(0xB000, 0xC000)
"""Answers to an object that was stored with a remark (PS3.4, table B.2-1)."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0  # seconds before another try to deliver
FULL_WAIT = 10.0  # seconds before another try to write
MOST_IDLE = 600.0
"""Seconds without a word from a connected sender after which the service ends the connection."""
MOST_CONNECTIONS = 100
"""At a time; one that is dead holds its place until it has been silent for too long."""
IDLE = "its sender was silent for {:g} s without having said that the series was complete; send it again"
ERROR = "error.txt"
MOST_TRIES = 2
"""Deaths of the service while it reports on one series, such as for want of memory, after which that is refused."""
DIED_OF = (
    "the service ended twice while reporting on it; if the machine has memory enough, send it again for another try"
)
DAMAGED = "the objects of its report cannot be read ({}), nor could those that were made anew; send it again"


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
        if not (host and title) or not port.isdecimal() or not 0 < int(port) < 65536 or len(title) > 16:
            raise UserError(f"{text!r} is no HOST:PORT:AET, such as 127.0.0.1:4242:ORTHANC")
        return cls(host, int(port), title)


@dataclass
class Sent:
    """Slices of a series over one association.

    Attributes:
        own: Instances that it brought.
        owed: Those of associations beside it that broke off; one that ends in order has to send them.
    """

    own: set[str] = field(default_factory=set)
    owed: set[str] = field(default_factory=set)


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
        self._later: dict[Path, tuple[float, float]] = {}  # series to when it is delivered again, and the wait
        self._has_room = True
        self._remade: set[str] = set()  # names of series whose objects could not be read
        self._open: dict[Any, dict[Path, Sent]] = {}  # association to its series
        self._in_order: dict[Path, set[str]] = {}  # open series to its slices over associations that ended in order
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
        entity.network_timeout = MOST_IDLE
        entity.maximum_associations = MOST_CONNECTIONS
        entity.add_supported_context(VERIFICATION)
        for uid in CT_CLASSES:
            entity.add_supported_context(uid, library.ALL_TRANSFER_SYNTAXES)
        handlers = [
            (library.evt.EVT_C_STORE, self._stored),
            (library.evt.EVT_PDU_RECV, self._heard),
            (library.evt.EVT_PDU_SENT, self._said),
            (library.evt.EVT_CONN_CLOSE, self._ended),
        ]
        try:
            return entity.start_server((host, port), block=False, evt_handlers=handlers)
        except OSError as e:
            raise UserError(
                f"cannot listen on {host}:{port} ({e.strerror}); choose another port, or an address of this machine"
            ) from e

    def _stored(self, event: Any) -> int:
        """Answer to one slice: kept, no room, or not understood."""
        try:
            header = pydicom.dcmread(io.BytesIO(event.encoded_dataset()), stop_before_pixels=True)
            series, instance = str(header.SeriesInstanceUID), str(header.SOPInstanceUID)
        except Exception:  # whatever a sender's bytes do to the parser
            return CANNOT_UNDERSTAND
        if not (series and instance):
            return CANNOT_UNDERSTAND
        with self._lock:
            try:
                place = self.inbox.store(series, instance, event.encoded_dataset()) if self._room() else None
                answer = SUCCESS if self._has_room else OUT_OF_RESOURCES
            except OSError:
                place, answer = None, OUT_OF_RESOURCES
            if answer != SUCCESS:
                place = self.inbox.broken(series, instance)
            if place is not None:
                sent = self._open.setdefault(event.assoc, {}).setdefault(place.folder, Sent())
                sent.own |= {instance} if answer == SUCCESS else set()
        return answer

    def _room(self) -> bool:
        """Whether another slice may be taken; a change is told."""
        room = self.inbox.has_room()
        if room != self._has_room:
            self._has_room = room
            self.tell("takes slices again" if room else "takes no more slices: too many are kept, or the disk is full")
        return room

    def _heard(self, event: Any) -> None:
        """A sender ends in order: its series are complete as far as it goes. Noted before the sender is answered.

        Where other associations have the same series, it is complete when associations that ended in order have brought
        every slice. One that breaks off spoils those beside it until that holds for its slices, or until a later one
        ends in order.
        """
        if type(event.pdu).__name__ != "A_RELEASE_RQ":
            return
        with self._lock:
            for folder, sent in self._open.pop(event.assoc, {}).items():
                others = self._beside(folder)
                in_order = self._in_order.setdefault(folder, set())
                in_order |= sent.own
                if sent.owed <= in_order:
                    for other in others:
                        other.owed.clear()
                    if all(other.own <= in_order for other in others):
                        self.inbox.closed(Series(folder))
                if not others:
                    del self._in_order[folder]

    def _beside(self, folder: Path) -> list[Sent]:
        """What the associations that are open have sent of a series."""
        return [held[folder] for held in self._open.values() if folder in held]

    def _said(self, event: Any) -> None:
        """The service itself ends a connection whose sender has been silent for too long."""
        if type(event.pdu).__name__ == "A_ABORT_RQ" and event.assoc.dul.idle_timer_expired():
            self._ended(event, IDLE.format(MOST_IDLE))

    def _ended(self, event: Any, reason: str = BROKEN_OFF) -> None:
        """The connection is gone; what was not released is marked as broken off."""
        with self._lock:
            for folder, sent in self._open.pop(event.assoc, {}).items():
                others = self._beside(folder)
                if lost := (sent.own | sent.owed) - self._in_order.get(folder, set()):
                    for other in others:
                        other.owed |= lost
                    self.inbox.broke_off(Series(folder), reason)
                if not others:
                    self._in_order.pop(folder, None)

    def work(self) -> bool:
        """One round: complete series, report on one, deliver one; whether there was anything to do."""
        with self._lock:
            self.inbox.complete_quiet_ones(frozenset().union(*self._open.values()))
        return self._report_next() | self._deliver_next()

    def stop(self) -> None:
        """End after the series in work; what kills the service from now on is not put down to that series."""
        self.stopping.set()
        if self.inbox.working is not None:
            Series(self.inbox.working).ended()

    def run(self, pause: float = 0.5) -> None:
        """Work until :attr:`stopping` is set."""
        while not self.stopping.is_set():
            try:
                busy = self.work()
            except (OSError, RuntimeError, UserError) as e:
                if full_place(e.__cause__ or e, [self.inbox.folder]) is None:
                    raise
                self.tell(f"the disk of {self.inbox.folder} is full; trying again in {FULL_WAIT:g} s")
                self.stopping.wait(FULL_WAIT)
                continue
            if not busy:
                self.stopping.wait(pause)

    def _report_next(self) -> bool:
        with self._lock:
            series = min(self.inbox.of("queue"), key=lambda one: one.tries, default=None)
            self.inbox.working = series.folder if series else None
        if series is None:
            return False
        try:
            self._report(series)
        except Exception as e:  # one series must not end the service: its folder tells what happened
            if full_place(e.__cause__ or e, [self.inbox.folder]) is not None:
                raise
            if isinstance(e, UserError):
                self._refuse(series, str(e))
                return True
            write_text(series.folder / ERROR, traceback.format_exc())
            self._refuse(series, f"it cannot be reported on ({reason_of(e)}); {ERROR} beside this file says where")
        else:
            with self._lock:
                self.inbox.move(series, "sending")
            self.tell(f"reported {series.folder.name}")
        return True

    def _report(self, series: Series) -> None:
        """Report on a series, unless the service has died of it; it is counted on disk while that goes on.

        A report that is there already was never sent, and not all of it may have reached the disk: it is made anew.
        """
        try:
            if series.tries >= MOST_TRIES:
                raise UserError(DIED_OF)
            series.begin()
            self.inbox.drop_report(series)
            self.one(series.slices, series.report)
            to_disk(series.report)
        finally:
            series.ended()

    def _refuse(self, series: Series, reason: str) -> None:
        with self._lock:
            self.inbox.refuse(series, reason)
        self.tell(f"refused {series.folder.name}: {reason}")

    def _deliver_next(self) -> bool:
        """Deliver the first report whose time it is; one that cannot be delivered does not keep back the others."""
        now = time.monotonic()
        due = (one for one in self.inbox.of("sending") if self._later.get(one.folder, (0.0, 0.0))[0] <= now)
        series = next(due, None)
        if series is None:
            return False
        problem = None
        if self.to is not None:
            try:
                objects = _objects(series)
            except Exception as e:  # whatever a power cut or a failing disk makes of a file
                self._report_anew(series, reason_of(e))
                return True
            try:
                problem = self._send(objects)
            except Exception as e:  # of an object that cannot be encoded, among others
                problem = reason_of(e)
        if problem:
            wait = min(2 * self._later.get(series.folder, (0.0, FIRST_WAIT / 2))[1], LONGEST_WAIT)
            self._later[series.folder] = time.monotonic() + wait, wait
            self.tell(f"cannot deliver {series.folder.name} ({problem}); trying again in {wait:g} s")
            return True
        self._later.pop(series.folder, None)
        self._remade.discard(series.folder.name)
        with self._lock:
            self.inbox.finish(series)
        return True

    def _report_anew(self, series: Series, reason: str) -> None:
        """Make objects that cannot be read once more, of the slices; a second time in a row the series is refused."""
        name, refusal = series.folder.name, DAMAGED.format(reason)
        again = name not in self._remade
        self._remade ^= {name}
        with self._lock:
            self.inbox.drop_report(series)
            if again:
                self.inbox.move(series, "queue")
            else:
                self.inbox.refuse(series, refusal)
        anew = f"reports on {name} again: its objects cannot be read ({reason})"
        self.tell(anew if again else f"refused {name}: {refusal}")

    def _send(self, objects: Sequence[Any]) -> str | None:
        """Deliver objects; what went wrong, if anything did."""
        assert self.to is not None
        library = network_library()
        entity = library.AE(ae_title=self.title)
        for uid in sorted({one.SOPClassUID for one in objects}):
            entity.add_requested_context(uid)
        association = entity.associate(self.to.host, self.to.port, ae_title=self.to.title)
        if not association.is_established:
            return f"{self.to.host}:{self.to.port}:{self.to.title} does not answer"
        try:
            for one in objects:
                status = association.send_c_store(one)
                taken = bool(status) and (status.Status in (SUCCESS, DUPLICATE) or status.Status in WARNINGS)
                if not taken:
                    code = f"status {status.Status:04x}" if status else "no answer"
                    return f"{self.to.title} did not take {one.SOPClassUID.name}: {code}"
        finally:
            association.release()
        return None


def _objects(series: Series) -> list[Any]:
    """The objects of a report.

    Raises:
        ValueError: If there are none, or one does not say what it is; pydicom raises others if one cannot be read.
    """
    objects = [pydicom.dcmread(path) for path in files_in(series.report, ".dcm", below=True)]
    if not objects or not all(one.get("SOPClassUID") and one.get("SOPInstanceUID") for one in objects):
        raise ValueError("it has no objects, or one does not say what it is")
    return objects
