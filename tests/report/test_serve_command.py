"""``nnunet-covid serve`` as it is started: a real model, a real sender, the objects in an archive."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dcmtk import STORESCU
from reported import CPU, headers_of

from nnunet_covid.cli import main
from nnunet_covid.files import digest_of

pynetdicom = pytest.importorskip("pynetdicom")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.skipif(STORESCU is None, reason="storescu of Debian's dcmtk is not installed")
@pytest.mark.parametrize("has_key", [False, True])
def test_a_series_comes_in_and_its_objects_go_out(model: Path, series: Path, tmp_path: Path, has_key: bool) -> None:
    received: list[str] = []

    def stored(event: pynetdicom.evt.Event) -> int:
        received.append(event.dataset.Modality)
        return 0

    archive = pynetdicom.AE(ae_title="ARCHIVE")
    archive.supported_contexts = pynetdicom.StoragePresentationContexts
    to, port = free_port(), free_port()
    server = archive.start_server(("127.0.0.1", to), block=False, evt_handlers=[(pynetdicom.evt.EVT_C_STORE, stored)])
    command = [sys.executable, "-m", "nnunet_covid.cli", "serve", str(model), "--folder", str(tmp_path / "inbox"),
               "--accept", "CT1", "--to", f"127.0.0.1:{to}:ARCHIVE", "--port", str(port), "--quiet", "1",
               "--reserve", "0", *CPU]  # fmt: skip
    if has_key:
        (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef", encoding="utf-8")
        command += ["--pseudonymise", str(tmp_path / "key")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8", env=dict(os.environ))
    try:
        assert process.stdout is not None
        assert "listens on" in process.stdout.readline()
        again = main(["serve", str(model), "--folder", str(tmp_path / "inbox"), "--accept", "CT1", *CPU])
        assert again == 2, "a second service on the same folder is refused"
        sent = [str(STORESCU), "-aet", "CT1", "-aec", "NNUNETCOVID", "--scan-directories"]
        sent += ["127.0.0.1", str(port), str(series)]
        assert subprocess.run(sent, capture_output=True, check=False, timeout=60).returncode == 0
        done = tmp_path / "inbox" / "done"
        end = time.monotonic() + 120
        while not any(done.iterdir()):
            assert time.monotonic() < end, "no report came"
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        server.shutdown()
    (report,) = done.glob("*/report/report.html")
    assert report.stat().st_size > 10_000
    document = json.loads((report.parent / "report.json").read_text(encoding="utf-8"))
    unkeyed = digest_of(headers_of(series)[0].SeriesInstanceUID, 16)
    assert (report.parents[1].name == unkeyed) is not has_key
    assert (document["scan"]["name"] == unkeyed) is not has_key
    assert sorted(set(received)) == ["OT", "SEG", "SR"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--aet", "A" * 17], "application entity title"),
        (["--to", "nowhere"], "HOST:PORT:AET"),
        (["--pseudonymise", "none"], "openssl rand"),
    ],
)
def test_what_cannot_be_served_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    command = ["serve", str(model), "--folder", str(tmp_path / "inbox"), "--accept", "CT1", *arguments, *CPU]
    assert main(command) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "inbox").exists()
