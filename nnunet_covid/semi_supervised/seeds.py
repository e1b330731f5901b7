"""Random numbers that depend on what is done, not on what was done before.

Every unit of work gets a seed from (seed of the run, round, what is done). A run that was killed and started again
draws the same numbers as one that was not.
"""

from __future__ import annotations

import hashlib


def seed_for(seed: int, round_number: int, phase: str) -> int:
    """A seed of 32 bits."""
    text = f"{seed}/{round_number}/{phase}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "little")
