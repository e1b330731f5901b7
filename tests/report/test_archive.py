"""A report's DICOM objects stored to and fetched from a real archive: Orthanc on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pydicom
import pytest

from nnunet_covid.report.service import Peer, Service

ORTHANC = shutil.which("Orthanc")
pytestmark = pytest.mark.skipif(ORTHANC is None, reason="Debian's orthanc is not installed")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    folder = tmp_path_factory.mktemp("orthanc")
    http, dicom = free_port(), free_port()
    settings = {
        "Name": "Test", "StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db"), "Plugins": [],
        "HttpPort": http, "DicomPort": dicom, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC", "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": True, "HttpVerbose": False,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    process = subprocess.Popen(
        [str(ORTHANC), str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{http}"
    for _ in range(300):
        try:
            urlopen(f"{url}/system", timeout=5).close()
            break
        except (URLError, ConnectionError):
            assert process.poll() is None, "Orthanc ended"
            time.sleep(0.1)
    yield SimpleNamespace(url=url, peer=Peer("127.0.0.1", dicom, "ORTHANC"))
    process.terminate()
    process.wait(timeout=30)


def _get(url: str) -> Any:
    with urlopen(url, timeout=30) as answer:
        return answer.read()


def test_all_objects_come_back_from_the_archive_as_they_were_sent(reported: Path, orthanc: SimpleNamespace) -> None:
    files = sorted((reported / "dicom").iterdir())
    service = Service(None, "REPORTS", [], lambda s, o: None, orthanc.peer, lambda line: None)  # type: ignore[arg-type]
    objects = [pydicom.dcmread(path) for path in files]
    assert service._send(objects) is None
    assert service._send(objects) is None  # again, as after a kill: nothing is double
    instances = json.loads(_get(f"{orthanc.url}/instances"))
    assert len(instances) == len(files)
    stored = {}
    for identifier in instances:
        path = reported.parent / "fetched.dcm"
        path.write_bytes(_get(f"{orthanc.url}/instances/{identifier}/file"))
        dataset = pydicom.dcmread(path)
        stored[dataset.SOPInstanceUID] = dataset
    for path in files:
        sent = pydicom.dcmread(path)
        assert stored[sent.SOPInstanceUID] == sent, path.name
