"""Kill as often as one likes: ``PYTHONPATH=tests python -m killing.count KILLS LOG [NAME …]``; a line per command."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from killing.harness import Zygote, kill_and_go_on
from killing.runs import RUNS


def main() -> None:
    kills, log, names = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or list(RUNS)
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as stream:
        zygote = Zygote()
        for name in names:
            try:
                found = asdict(kill_and_go_on(RUNS[name], zygote, Path(folder) / name, kills))
            except AssertionError as e:
                found = {"failure": str(e)}
            print(json.dumps({"command": name, **found}), file=stream, flush=True)
        zygote.close()


if __name__ == "__main__":
    main()
