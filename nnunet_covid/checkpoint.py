"""Checkpoints of whatever origin, read so that a hostile one runs nothing.

A checkpoint is a pickle, and a pickle may name any function to be called. torch's restricted reader knows tensors and
plain Python; to it are added, by name, the few numpy classes that nnU-Net's own checkpoints hold.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_covid.errors import UserError, reason_of

RESTRICTED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""With this variable torch reads restrictedly even where its caller, such as nnU-Net, asks for all of pickle."""
OURS = "true"
"""As good as 1 to torch; tells what this module has set from what the user has."""
NUMPY_MODULES = ("numpy._core.multiarray", "numpy.core.multiarray")
"""The second name stands in what numpy 1 wrote."""
KINDS = ("Bool", *(f"{s}Int{n}" for s in ("", "U") for n in (8, 16, 32, 64)), "Float16", "Float32", "Float64", "Str")
"""Kinds of values by their classes in ``numpy.dtypes``."""


def plain_values() -> list[Any]:
    """What a checkpoint may name beside torch's own list: numpy's numbers, arrays of them and their kinds."""
    import numpy as np

    # scalar and _reconstruct are what numpy's own pickles call; numpy 1.26 has them under either name
    core = getattr(np, "_core", None) or np.core
    functions = [core.multiarray.scalar, core.multiarray._reconstruct]
    kinds = [getattr(np.dtypes, f"{name}DType") for name in KINDS]
    named = [(function, f"{module}.{function.__name__}") for module in NUMPY_MODULES for function in functions]
    return [*named, np.ndarray, np.dtype, *kinds]


def restrict_process() -> None:
    """Until :func:`release_process` every ``torch.load`` of this process is restricted, as a training starts.

    Whoever must read another kind of checkpoint, and trusts it, sets ``TORCH_FORCE_WEIGHTS_ONLY_LOAD=0`` before.
    """
    import torch

    if RESTRICTED not in os.environ:
        os.environ[RESTRICTED] = OURS
    torch.serialization.add_safe_globals(plain_values())


def release_process() -> None:
    """Take back what :func:`restrict_process` set: commands started from here, such as nnU-Net's own, read as usual."""
    if os.environ.get(RESTRICTED) == OURS:
        del os.environ[RESTRICTED]


@contextmanager
def restricted() -> Iterator[None]:
    """While this lasts, every ``torch.load`` of this process, nnU-Net's too, reads values and runs nothing."""
    import torch

    before = os.environ.get(RESTRICTED)
    os.environ[RESTRICTED] = "1"
    # not torch's safe_globals: at its end it would take away what restrict_process() has allowed
    torch.serialization.add_safe_globals(plain_values())
    try:
        yield
    finally:
        os.environ.pop(RESTRICTED, None)
        if before is not None:
            os.environ[RESTRICTED] = before


def read_checkpoint(path: Path, device: Any = "cpu", needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a checkpoint of nnU-Net's: a dictionary with ``network_weights``.

    Args:
        path: The file.
        device: Where its tensors go.
        needed: Entries that it must have beside the weights.

    Raises:
        UserError: If it cannot be read, holds more than values, or is no checkpoint of nnU-Net's.
    """
    import torch

    try:
        with restricted():
            content = torch.load(path, map_location=device, weights_only=True)
    except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
        raise UserError(f"{path} cannot be read as a checkpoint ({refusal_of(e)}); copy or train it again") from e
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise UserError(f"{path} is no checkpoint of nnU-Net: it holds no network_weights; name another file")
    if missing := [name for name in needed if name not in content]:
        raise UserError(f"{path} is no checkpoint of nnU-Net: it holds no {missing[0]}; name another file")
    return content


def refusal_of(error: BaseException) -> str:
    """Why a checkpoint was not read, in a few words: torch's own text is a page of advice to switch the check off."""
    text = str(error)
    if found := re.search(r"GLOBAL (\S+)", text):
        return f"it names {found[1]}, which is no part of a checkpoint and may be an attack"
    return (
        "it is cut short or damaged"
        if isinstance(error, EOFError) or "\n" in text
        else reason_of(error).partition(". ")[0]
    )
