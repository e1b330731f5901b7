"""What is settled before nnU-Net starts: that it finds our trainers, its commands, cores and device to compute on.

nnU-Net looks for trainers in the folders that ``nnUNet_extTrainer`` names. :func:`register` writes a start-up line into
an environment's site-packages: Python runs every ``.pth`` line that begins with ``import`` when it starts, in child
processes too. Ours calls :func:`offer_trainers` and can never raise: where the package is gone, it does nothing. This
module is therefore quick to import, and in every process it touches one variable only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from nnunet_covid.errors import UserError

TRAINERS_FOLDER = Path(__file__).parent / "nnunet" / "external_trainers"
"""The folder for ``nnUNet_extTrainer``: one module that hands out our trainers."""
VARIABLE = "nnUNet_extTrainer"
FILE_NAME = "nnunet_covid_trainers.pth"
OPT_OUT = "NNUNET_COVID_NO_STARTUP"
STARTUP_LINE = (
    f"import os; os.environ.get('{OPT_OUT}') or exec('try:\\n "
    "from nnunet_covid.startup import offer_trainers; offer_trainers()\\nexcept Exception: pass')\n"
)
SPINS = "10000"
"""Of GNU's OpenMP, before a thread sleeps: tens of microseconds."""
DEVICES = ("auto", "cpu", "cuda", "mps")


def offer_trainers(environment: MutableMapping[str, str] = os.environ) -> None:
    """Append the trainers' folder to ``nnUNet_extTrainer``, once, keeping what is there."""
    if not is_offered(environment):
        present = [p for p in environment.get(VARIABLE, "").split(os.pathsep) if p]
        environment[VARIABLE] = os.pathsep.join([*present, str(TRAINERS_FOLDER)])


def is_offered(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the trainers' folder stands in ``nnUNet_extTrainer``."""
    return str(TRAINERS_FOLDER) in environment.get(VARIABLE, "").split(os.pathsep)


def startup_file(site_packages: Path | None = None) -> Path:
    """Where the start-up line of the running environment stands, or would stand."""
    import sysconfig  # not needed by the processes that the line starts in

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


def console_command(name: str, *arguments: object) -> list[str]:
    """A console command of the running interpreter's environment, whatever stands on ``PATH``.

    Raises:
        UserError: If no installed package brings the command.
    """
    from importlib.metadata import entry_points

    found = list(entry_points(group="console_scripts", name=name))
    if not found:
        raise UserError(f"the command {name} is not installed beside {sys.executable}; install nnunetv2 there")
    module, function = found[0].module, found[0].attr
    program = f"import sys; from {module} import {function}; sys.argv[0] = {name!r}; sys.exit({function}())"
    return [sys.executable, "-c", program, *map(str, arguments)]


def let_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Threads of torch that wait for each other soon sleep; of no effect once torch is imported, or where it is set.

    They would wait in a loop that takes a whole core each, which on a shared machine keeps the others from being done.
    On a quiet one a short loop is worth it: what they wait for is mostly done within some microseconds.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
        environment.setdefault("GOMP_SPINCOUNT", SPINS)


def cores() -> int:
    """Those that this process may use, by affinity and by the limit of a container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = container_limit("cpu.max").split()
    if len(limit) == 2 and limit[0].isdecimal():
        count = min(count, max(1, int(limit[0]) // int(limit[1])))
    return count


def container_limit(file: str) -> str:
    """As the kernel's control groups (version 2) tell it; empty if there is none."""
    try:
        return Path("/sys/fs/cgroup", file).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def chosen_device(wish: str) -> str:
    """The device for ``auto`` (CUDA where there is one, else the CPU), or the wish itself.

    Raises:
        UserError: If the device is not there.
    """
    if wish == "cpu":
        return wish
    import torch  # takes seconds

    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wish == "auto":
        return "cuda" if present["cuda"] else "cpu"
    if not present[wish]:
        there = ", ".join(name for name, here in present.items() if here)
        raise UserError(f"torch sees no {wish} device here; choose {there}")
    return wish
