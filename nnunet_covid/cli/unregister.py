"""Take the start-up line of 'nnunet-covid register' out of this Python environment."""

from __future__ import annotations

import argparse

from nnunet_covid.startup import unregister


def run(args: argparse.Namespace) -> None:
    removed = unregister()
    print(f"removed: {removed}" if removed else "nothing to remove: this environment was not registered")
