"""Receive CT series over DICOM, report on each when it is complete, and send the objects back.

A series is complete when its sender has released the connection and no slice has come for --quiet seconds.
Segmentation, measurement report and key slices go to --to; the whole report stays in FOLDER/done. What cannot be used
ends in FOLDER/refused with a sentence. A stopped or killed service goes on where it was with the same command.

  nnunet-covid serve MODEL --folder /data/inbox --aet INFECTION --accept SCANNER1 PACS --to 127.0.0.1:4242:ORTHANC

Listens on this machine alone unless --host says otherwise; hears only the titles of --accept. Not a medical device.
"""

from __future__ import annotations

import argparse
import math
import signal
from dataclasses import replace
from pathlib import Path
from types import FrameType

from nnunet_covid.cli.arguments import add_model_use
from nnunet_covid.cli.report import MODEL, add_classes, open_model
from nnunet_covid.disturbances import alone
from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of, writable_folder
from nnunet_covid.report.assemble import Extras, report_scan
from nnunet_covid.report.inbox import Inbox
from nnunet_covid.report.model import ReportModel
from nnunet_covid.report.pseudonyms import Pseudonymiser
from nnunet_covid.report.scans import read_scan
from nnunet_covid.report.service import Peer, Service, network_library

GIB = 1 << 30


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``nnunet-covid serve``."""
    add = parser.add_argument
    add("model", type=Path, metavar="MODEL", help=MODEL)
    add("--folder", type=Path, required=True, metavar="DIR", help="for series in work, reports and refused series")
    add("--aet", default="NNUNETCOVID", metavar="NAME", help="own application entity title (default: %(default)s)")
    add("--accept", nargs="+", required=True, metavar="AET", help="titles of the senders that are heard")
    add("--to", metavar="HOST:PORT:AET", help="where objects are sent (default: they stay in the folder)")
    add("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    add("--port", type=int, default=11112, help="default: %(default)s")
    text = "seconds without a new slice after which a series is complete (default: %(default)g)"
    add("--quiet", type=float, default=30.0, metavar="S", help=text)
    add("--most", type=float, default=20.0, metavar="GIB", help="of slices kept at a time (default: %(default)g)")
    text = "free space below which nothing is taken (default: %(default)g)"
    add("--reserve", type=float, default=2.0, metavar="GIB", help=text)
    add("--pseudonymise", type=Path, metavar="KEYFILE", help="as for nnunet-covid report")
    add_classes(parser)
    add_model_use(parser)


def serve(args: argparse.Namespace) -> None:
    """Serve until interrupted."""
    network_library()
    for title in (args.aet, *args.accept):
        if not 0 < len(title.strip()) <= 16:
            raise UserError(f"{title!r} is no application entity title: it has 1 to 16 characters")
    if not 0 < args.port < 65536:
        raise UserError(f"the port is a number from 1 to 65535, not {args.port}", about="port")
    for name in ("quiet", "most", "reserve"):
        if not 0 <= getattr(args, name) < math.inf:
            raise UserError(f"{getattr(args, name):g} is below 0, or no finite number", about=name)
    to = Peer.of(args.to) if args.to else None
    pseudonyms = Pseudonymiser.of_file(args.pseudonymise) if args.pseudonymise else None
    model, profile = open_model(args)
    with alone(writable_folder(args.folder) / ".lock", str(args.folder), "name another folder"):
        _serve(args, model, to, Extras(profile=profile, pseudonyms=pseudonyms))


def _serve(args: argparse.Namespace, model: ReportModel, to: Peer | None, extras: Extras) -> None:
    """Until a signal comes."""

    def one(slices: Path, output: Path) -> None:
        scan = read_scan(slices)
        named = replace(scan, facts=replace(scan.facts, name=slices.parent.name))  # a digest, nothing of the sender
        report_scan(named, model, output, extras=extras)

    inbox = Inbox(
        args.folder,
        quiet=args.quiet,
        most_bytes=int(args.most * GIB),
        reserve_bytes=int(args.reserve * GIB),
        digest=extras.pseudonyms.digest if extras.pseudonyms else digest_of,
    )
    service = Service(inbox, args.aet, args.accept, one, to, lambda line: print(line, flush=True))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        service.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server = service.start(args.host, args.port)
    print(f"{args.aet} listens on {args.host}:{args.port}", flush=True)
    try:
        service.run()
    finally:
        server.shutdown()
