"""Which device the commands of this package compute on."""

from __future__ import annotations

from nnunet_covid.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
DEVICE_HELP = "auto: cuda if there is one, else cpu (default: %(default)s)"


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
