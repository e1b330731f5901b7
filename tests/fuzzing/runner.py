"""Fuzz for as long as one likes: ``PYTHONPATH=tests python -m fuzzing.runner SECONDS FIRST_SEED LOG``.

Every line of the log is a batch of one target; those with a failure have its smallest edits, to be kept in
``fuzzing/kept.py``. The last line sums up.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzzing.targets import TARGETS

EXAMPLES = 100
"""In one batch."""
QUIET = {"OMP_NUM_THREADS": "1", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "TQDM_DISABLE": "1"}


class Fuzzer:
    """Hands tasks to the process of :mod:`fuzzing.worker`."""

    def __init__(self, folder: Path) -> None:
        tests = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzzing.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            env={**os.environ, **QUIET, "PYTHONPATH": path},
        )

    def ask(self, target: str, **task: Any) -> dict[str, Any]:
        """Edits as JSON holds them, or a seed and a number of examples; the worker's answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"target": target, **task}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main() -> None:
    seconds, seed, log = float(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    end = time.monotonic() + seconds
    total: Counter[str] = Counter()
    grown = 0
    with tempfile.TemporaryDirectory() as folder, log.open("a", encoding="utf-8") as stream:
        fuzzer = Fuzzer(Path(folder))
        while time.monotonic() < end:
            for target in TARGETS:
                answer = fuzzer.ask(target, seed=seed, examples=EXAMPLES)
                grown = max(grown, answer["grown_mb"])
                total.update(read=answer["read"], told=answer["told"], failures=bool(answer["failure"]), batches=1)
                found = {"edits": answer["edits"], "failure": answer["failure"]} if answer["failure"] else {}
                line = {"target": target, "seed": seed, "read": answer["read"], "told": answer["told"], **found}
                print(json.dumps(line), file=stream, flush=True)
            seed += 1
        print(json.dumps({**total, "most_memory_grown_mb": grown, "next_seed": seed}), file=stream)
        fuzzer.close()


if __name__ == "__main__":
    main()
