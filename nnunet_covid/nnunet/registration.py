"""Making nnU-Net find our trainers in an environment: a start-up line in its site-packages, written and taken out.

Python runs every ``.pth`` line that begins with ``import`` when it starts, in child processes too. Ours appends the
trainers' folder to ``nnUNet_extTrainer`` and can never raise: where the package is gone, it does nothing.
"""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

from nnunet_covid.errors import UserError

FILE_NAME = "nnunet_covid_trainers.pth"
OPT_OUT = "NNUNET_COVID_NO_STARTUP"
STARTUP_LINE = (
    f"import os; os.environ.get('{OPT_OUT}') or exec('try:\\n "
    "from nnunet_covid.startup import offer_trainers; offer_trainers()\\nexcept Exception: pass')\n"
)


def startup_file(site_packages: Path | None = None) -> Path:
    """Where the start-up line of the running environment stands, or would stand."""
    return (site_packages or Path(sysconfig.get_paths()["purelib"])) / FILE_NAME


def is_registered(site_packages: Path | None = None) -> bool:
    """Whether the start-up line of this version is in place."""
    path = startup_file(site_packages)
    return path.is_file() and path.read_text() == STARTUP_LINE


def register(site_packages: Path | None = None) -> Path:
    """Write the start-up line; returns the file.

    Raises:
        UserError: If site-packages cannot be written.
    """
    path = startup_file(site_packages)
    temporary = path.with_suffix(".tmp")  # not files.replacing, whose names end as the file: Python runs every .pth
    try:
        temporary.write_text(STARTUP_LINE)
        os.replace(temporary, path)
    except OSError as e:
        msg = (
            f"cannot write {path} ({e.strerror}): use a virtual environment of your own, "
            "or run: export nnUNet_extTrainer=$(nnunet-covid where)"
        )
        raise UserError(msg) from e
    return path


def unregister(site_packages: Path | None = None) -> Path | None:
    """Take the start-up line out; returns the file, or ``None`` if there was none.

    Raises:
        UserError: If the file cannot be removed.
    """
    path = startup_file(site_packages)
    try:
        path.unlink()
    except FileNotFoundError:
        return None
    except OSError as e:
        msg = f"cannot remove {path} ({e.strerror}): remove it with the rights of whoever owns this environment"
        raise UserError(msg) from e
    return path
