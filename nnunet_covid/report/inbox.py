"""Series on disk while a service works on them: a folder for each, which moves from state to state by one rename.

``incoming`` (slices arrive) → ``queue`` (complete, waits) → ``sending`` (reported, not yet delivered) → ``done``, or
``refused`` with the reason in a file. A killed service finds every series where it was. No slice that was taken is
dropped: those that come late join a series that waits or was refused, and are put aside where it has been reported on.
Names are digests of UIDs, under the service's key if it has one: nothing that a sender writes becomes a path.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_covid.files import digest_of, files_in, remove_abandoned, replacing, unfinished_folder, write_text

State = Literal["incoming", "queue", "sending", "done", "refused"]
STATES: tuple[State, ...] = ("incoming", "queue", "sending", "done", "refused")
SLICES, REPORT, INSTANCES, REASON, OPEN, TRIES = "slices", "report", "instances.txt", "reason.txt", ".open", ".tries"
NAME = re.compile(r"[0-9a-f]{16}(\.late)?")
"""Of a series' folder."""
BROKEN_OFF = "the sender broke off before the series was complete; send it again"
NO_ROOM = "there was no room for {} of its slices, which their sender was told; send it again"
LATE = "these slices arrived after the series had been reported on; send all of it as a new series"
NOT_TAKEN = ".refused"
"""Ending of the hidden empty file that stands among the slices for one that could not be taken."""
COUNT_AGAIN = 10.0
"""Seconds between two looks at the disk while there is no room: somebody may have emptied ``refused``."""


@dataclass(frozen=True)
class Series:
    """A series in one of the states."""

    folder: Path

    @property
    def slices(self) -> Path:
        """Folder of its DICOM files."""
        return self.folder / SLICES

    @property
    def report(self) -> Path:
        """Folder of its report."""
        return self.folder / REPORT

    @property
    def tries(self) -> int:
        """Reports on it that were begun and at which the service died."""
        file = self.folder / TRIES
        return int(file.read_text(encoding="utf-8")) if file.is_file() else 0

    def begin(self) -> None:
        """Count a report as begun."""
        write_text(self.folder / TRIES, f"{self.tries + 1}\n", durable=True)

    def ended(self) -> None:
        """The report has ended, or is to be ended, in order, whatever became of it."""
        (self.folder / TRIES).unlink(missing_ok=True)


class Inbox:
    """The folder of a service.

    Args:
        folder: Holds the states; made where it is not there.
        quiet: Seconds without a new slice after which a series counts as complete.
        most_bytes: Of all slices that are kept, refused ones too; more are not taken.
        reserve_bytes: Free space of the disk below which nothing is taken.
        digest: Hexadecimal digits, as many as asked for, in place of a UID. Series that lie here under the digest
            without a key keep it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        quiet: float,
        most_bytes: int,
        reserve_bytes: int,
        digest: Callable[[str, int], str] = digest_of,
    ) -> None:
        self.folder = folder
        self.digest = digest
        self.quiet = quiet
        self.most_bytes = most_bytes
        self.reserve_bytes = reserve_bytes
        for state in STATES:
            (folder / state).mkdir(parents=True, exist_ok=True)
        self.working: Path | None = None  # the series of the queue that is being reported on
        for series in (one for state in STATES[:3] for one in self.of(state)):
            for written in (series.folder, series.slices):
                remove_abandoned(written, 0)
        for series in self.of("incoming"):
            series.slices.mkdir(exist_ok=True)
            os.utime(series.slices)  # its quiet time starts anew
        for series in self.of("done"):
            shutil.rmtree(series.slices, ignore_errors=True)  # of a service that was killed while it tidied up
        self._kept, self._counted = self._bytes(), time.monotonic()
        self._missing = {  # name of a series to its slices that could not be taken
            series.folder.name: {path.name[1 : -len(NOT_TAKEN)] for path in series.slices.glob(f".*{NOT_TAKEN}")}
            for state in ("incoming", "refused")
            for series in self.of(state)
        }

    def _bytes(self) -> int:
        every = (path for state in STATES for series in self.of(state) for path in files_in(series.slices))
        return sum(path.stat().st_size for path in every)

    def of(self, state: State) -> list[Series]:
        """The series in a state, the first arrived first; a folder of another name is none and stays as it is."""
        folders = [path for path in (self.folder / state).iterdir() if path.is_dir() and NAME.fullmatch(path.name)]
        return [Series(path) for path in sorted(folders, key=lambda path: path.stat().st_ctime_ns)]

    def has_room(self) -> bool:
        """Whether another slice may be taken."""
        if self._kept >= self.most_bytes and time.monotonic() > self._counted + COUNT_AGAIN:
            self._kept, self._counted = self._bytes(), time.monotonic()
        return self._kept < self.most_bytes and shutil.disk_usage(self.folder).free > self.reserve_bytes

    def store(self, series_uid: str, instance_uid: str, content: bytes) -> Series | None:
        """Keep a slice of a series whose sender has not said yet that all is sent; None where it changes nothing.

        Raises:
            OSError: If it cannot be written, such as for a full disk; nothing of it is left.
        """
        name, instance = self._names(series_uid, instance_uid)
        if self._holds(name, instance):
            return None
        if self._is_late(name):
            late = Series(self.folder / "refused" / f"{name}.late")
            late.slices.mkdir(parents=True, exist_ok=True)
            self._write(late.slices / f"{instance}.dcm", content)
            write_text(late.folder / REASON, LATE + "\n")
            return None
        place = self._place(name)
        target = place.slices / f"{instance}.dcm"
        if not target.exists() or target.read_bytes() != content:
            (place.folder / OPEN).touch()  # until its sender says that all is sent, the series counts as broken off
            self._write(target, content)
        (place.slices / f".{instance}{NOT_TAKEN}").unlink(missing_ok=True)
        self._missing.get(name, set()).discard(instance)
        os.utime(place.slices)
        return place

    def _names(self, series_uid: str, instance_uid: str) -> tuple[str, str]:
        """What a series and a slice of it are called here."""
        plain = digest_of(series_uid, 16)
        known = any((self.folder / state / plain).is_dir() for state in STATES)
        digest = digest_of if known else self.digest
        return digest(series_uid, 16), digest(instance_uid, 24)

    def _holds(self, name: str, instance: str) -> bool:
        """Whether a slice belongs to a series that counts as complete."""
        return any(instance in _instances(self.folder / state / name) for state in STATES[1:4])

    def _is_late(self, name: str) -> bool:
        """Whether a series is in work or has been reported on, so that no slice can join it."""
        waiting, *reported = (self.folder / state / name for state in STATES[1:4])
        return (waiting == self.working and waiting.is_dir()) or any(folder.is_dir() for folder in reported)

    def _place(self, name: str) -> Series:
        """Where slices of a series arrive; one that waits or was refused goes back there."""
        place = Series(self.folder / "incoming" / name)
        for state in ("queue", "refused"):
            earlier = Series(self.folder / state / name)
            if earlier.slices.is_dir() and not place.folder.exists():
                self.move(earlier, "incoming")
                (place.folder / REASON).unlink(missing_ok=True)
        place.slices.mkdir(parents=True, exist_ok=True)
        return place

    def _write(self, target: Path, content: bytes) -> None:
        before = target.stat().st_size if target.exists() else 0
        with replacing(target) as unfinished, unfinished.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        self._kept += len(content) - before

    def broken(self, series_uid: str, instance_uid: str) -> Series:
        """A slice of a series could not be taken: it counts as broken off until that slice has been sent again."""
        name, instance = self._names(series_uid, instance_uid)
        if not self._holds(name, instance) and not self._is_late(name):
            self._missing.setdefault(name, set()).add(instance)
            with suppress(OSError):  # for a full disk: known as long as the service lives
                (self._place(name).slices / f".{instance}{NOT_TAKEN}").touch()
        return Series(self.folder / "incoming" / name)

    def closed(self, series: Series) -> None:
        """The sender has said that all is sent."""
        if not self._missing.get(series.folder.name):
            (series.folder / OPEN).unlink(missing_ok=True)
        if series.slices.is_dir():
            os.utime(series.slices)

    def broke_off(self, series: Series, reason: str) -> None:
        """The connection ended before the sender had said that all is sent; the reason stands where it is refused."""
        if (series.folder / OPEN).exists():
            with suppress(OSError):  # for a full disk: refused all the same
                write_text(series.folder / OPEN, reason)

    def complete_quiet_ones(self, busy: frozenset[Path] = frozenset()) -> None:
        """Move series without a new slice for the quiet time on: to the queue, or to ``refused`` where broken off.

        Args:
            busy: Folders of series whose sender is still connected.
        """
        for series in self.of("incoming"):
            if series.folder in busy or not series.slices.is_dir():
                continue
            if time.time() - series.slices.stat().st_mtime < self.quiet:
                continue
            kept, missing = files_in(series.slices), self._missing.get(series.folder.name)
            if not kept and not missing:  # no slice could be written
                shutil.rmtree(series.folder)
                continue
            write_text(series.folder / INSTANCES, "".join(f"{path.stem}\n" for path in kept), durable=True)
            if missing:
                self.refuse(series, NO_ROOM.format(len(missing)))
            elif (series.folder / OPEN).exists():
                self.refuse(series, (series.folder / OPEN).read_text(encoding="utf-8") or BROKEN_OFF)
            else:
                self.move(series, "queue")

    def move(self, series: Series, state: State) -> Series:
        """Change a series' state by one rename; an older one of that name gives way."""
        target = self.folder / state / series.folder.name
        if target.exists():
            shutil.rmtree(target)
        os.replace(series.folder, target)
        return Series(target)

    def refuse(self, series: Series, reason: str) -> Series:
        """Put a series aside with a sentence; slices that are sent again join it, and it is tried again."""
        write_text(series.folder / REASON, reason + "\n")
        return self.move(series, "refused")

    def drop_report(self, series: Series) -> None:
        """Delete a report that is to be made anew; it goes by one rename, so that no part of it is ever delivered."""
        gone = unfinished_folder(series.report)
        shutil.rmtree(gone, ignore_errors=True)
        if series.report.exists():
            os.replace(series.report, gone)
            shutil.rmtree(gone, ignore_errors=True)

    def finish(self, series: Series) -> Series:
        """Keep the report and the names of the slices, not the slices."""
        self._kept -= sum(path.stat().st_size for path in files_in(series.slices))
        done = self.move(series, "done")
        shutil.rmtree(done.slices, ignore_errors=True)
        return done


def _instances(folder: Path) -> set[str]:
    file = folder / INSTANCES
    return set(file.read_text(encoding="utf-8").split()) if file.is_file() else set()
