"""A service in a process of its own whose reports are quick: it counts slices instead of asking a network."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import generate_uid

from nnunet_covid.errors import UserError
from nnunet_covid.files import files_in, replacing_folder, write_text
from nnunet_covid.report import service as service_module
from nnunet_covid.report.inbox import Inbox
from nnunet_covid.report.service import Peer, Service


def one(slices: Path, output: Path) -> None:
    """The first slice goes back as the object, under UIDs that no other report has; a series of one slice is bad."""
    files = files_in(slices)
    if len(files) < 2:
        raise UserError(f"{slices} holds one slice; send the whole series")
    with replacing_folder(output) as folder:
        first = dcmread(min(files))
        first.StudyID, first.SeriesInstanceUID, first.SOPInstanceUID = str(len(files)), generate_uid(), generate_uid()
        first.DeviceSerialNumber = dcmread(min(files)).SeriesInstanceUID
        first.save_as(folder / "object.dcm")
        time.sleep(0.1)  # time to be killed in
        write_text(folder / "slices.txt", str(len(files)))


if __name__ == "__main__":
    service_module.FULL_WAIT = 0.5
    service_module.MOST_TRIES = 99  # it is killed at random
    folder, port, to = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    inbox = Inbox(folder, quiet=1.0, most_bytes=1 << 30, reserve_bytes=0)
    service = Service(inbox, "REPORTS", ["CT1", "CT2"], one, Peer.of(to), lambda line: print(line, flush=True))
    service.start("127.0.0.1", port)
    print("ready", flush=True)
    service.run(0.05)
