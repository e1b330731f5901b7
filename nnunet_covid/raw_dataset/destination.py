"""Where the converted data set goes: nnU-Net's folders and what may already lie there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nnunet_covid.errors import UserError

NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What nnU-Net's commands and a file system take."""


def raw_base_folder(output: Path | None) -> Path:
    """The folder that holds raw data sets: ``output``, else the environment's ``nnUNet_raw``.

    Raises:
        UserError: If neither is given.
    """
    if output is not None:
        return output
    value = os.environ.get("nnUNet_raw")  # noqa: SIM112, nnU-Net's spelling
    if not value:
        raise UserError("nnUNet_raw is not set: export nnUNet_raw=/your/folder ('convert' also takes a folder with -o)")
    return Path(value)


def is_environments_raw_folder(folder: Path) -> bool:
    """Whether a folder is the environment's ``nnUNet_raw``, so that the other nnU-Net folders belong to it."""
    value = os.environ.get("nnUNet_raw")  # noqa: SIM112
    return bool(value) and Path(str(value)).resolve() == folder.resolve()


def data_set_folder_name(number: int, name: str) -> str:
    """``Dataset501_COVIDSemiSeg``.

    Raises:
        UserError: If the number does not fit nnU-Net's three digits, or the name is none for a folder.
    """
    if not NAME.fullmatch(name):
        raise UserError(f"the name {name!r} of a data set must consist of letters, digits, hyphens and underscores")
    if not 1 <= number <= 999:
        raise UserError(f"data set number {number} is not between 1 and 999; choose another with -d")
    return f"Dataset{number:03d}_{name}"


def refuse_number_in_use(folder: Path, *, search_environment: bool) -> None:
    """nnU-Net finds data sets by number, so one number must not stand for two names.

    Args:
        folder: The data set folder that is to be written.
        search_environment: Whether to look in the environment's three nnU-Net folders as well.

    Raises:
        UserError: If another data set with the same number exists.
    """
    bases = [folder.parent]
    if search_environment:
        names = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        bases += [Path(os.environ[name]) for name in names if os.environ.get(name)]
    prefix = folder.name[: len("Dataset000")]
    for base in bases:
        for other in sorted(base.glob(f"{prefix}*")) if base.is_dir() else []:
            if other.is_dir() and other.name != folder.name:
                raise UserError(f"{other} has the same number; choose another number with -d")


def place_splits(folder: Path, *, use_environment: bool) -> str | None:
    """Copy ``splits_final.json`` to where nnU-Net looks for it, below ``nnUNet_preprocessed``.

    An existing file is never changed: it may be the user's own.

    Returns:
        A sentence for the user, or ``None`` where there is nothing to say.
    """
    splits = folder / "splits_final.json"
    base = os.environ.get("nnUNet_preprocessed")  # noqa: SIM112
    if not splits.is_file():
        return None
    if not use_environment or not base:
        where = f"nnUNet_preprocessed/{folder.name}/"
        return f"copy {splits} to {where} before training, or nnU-Net draws its own split"
    target = Path(base) / folder.name / splits.name
    if not target.exists():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + ".tmp")
            temporary.write_bytes(splits.read_bytes())
            temporary.replace(target)
        except OSError as e:
            return f"cannot write {target} ({e.strerror}); copy {splits} there before training"
        return None
    if target.read_bytes() != splits.read_bytes():
        return f"{target} differs from this data set's split and was left as it is; delete it to use {splits}"
    return None
