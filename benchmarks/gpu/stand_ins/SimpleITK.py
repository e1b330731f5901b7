"""Stand-in for SimpleITK, 30 MiB of a pack that holds slices as PNG files alone: it imports, and refuses to be used."""

from __future__ import annotations

from typing import NoReturn


def __getattr__(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    msg = f"SimpleITK.{name}: SimpleITK is not in this pack (prepare.sh: WITH_ITK=1)"
    raise ImportError(msg)
