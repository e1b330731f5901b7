"""The folder that a command writes into."""

from __future__ import annotations

import tempfile
from pathlib import Path

from nnunet_covid.errors import UserError


def writable_folder(folder: Path) -> Path:
    """Make a folder if need be and try whether a file can be made in it, before any work.

    Raises:
        UserError: If not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as e:
        raise UserError(f"{folder} cannot be written into ({e.strerror}); name another folder") from e
