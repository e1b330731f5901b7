"""The model folder that a folder or a zip file of ``nnUNetv2_export_model_to_zip`` stands for."""

from __future__ import annotations

import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of, stays_below

NEEDED = ("plans.json", "dataset.json")


@contextmanager
def model_folder(source: Path, checkpoint: str, wanted: Sequence[str | None] = ()) -> Iterator[Path]:
    """A model folder, unpacked for the time of its use where the model is a zip file.

    Args:
        source: ``TRAINER__PLANS__CONFIGURATION``, or a zip file that holds one or several of them.
        checkpoint: File name of the weights; no others are unpacked.
        wanted: Trainer, plans and configuration of the one in the zip file, as far as they are named.

    Raises:
        UserError: If the zip file is damaged, names files outside its folder, or does not hold one such model.
    """
    if not source.is_file():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="nnunet_covid_model_") as place:
        yield _unpacked(source, Path(place), checkpoint, wanted)


def _unpacked(source: Path, place: Path, checkpoint: str, wanted: Sequence[str | None]) -> Path:
    try:
        with zipfile.ZipFile(source) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            outside = [name for name in members if not stays_below(name)]
            if outside:
                raise UserError(f"{source} names {outside[0]}, a file outside its folder: it is no export of nnU-Net's")
            model = _chosen(source, members, wanted)
            for name in members:
                path = PurePosixPath(name)
                if path.parent == model and path.name in NEEDED:
                    _unpack(archive, name, place / model.name / path.name)
                elif path.parent.parent == model and path.name == checkpoint:
                    _unpack(archive, name, place / model.name / path.parent.name / path.name)
    except (zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, RuntimeError, ValueError) as e:
        raise UserError(f"{source} is no undamaged zip file without a password ({e}); copy or export it again") from e
    except OSError as e:
        raise UserError(f"{source} cannot be unpacked into {place} ({e.strerror or e}); make room there") from e
    return place / model.name


def _chosen(source: Path, members: list[str], named: Sequence[str | None]) -> PurePosixPath:
    models = {PurePosixPath(name).parent for name in members if PurePosixPath(name).name == "plans.json"}
    wanted = {
        model
        for model in models
        if all(part in (None, held) for part, held in zip(named, model.name.split("__"), strict=False))
    }
    if len(wanted) == 1:
        return wanted.pop()
    if not models and any(name.endswith("/data.pkl") for name in members):
        raise UserError(f"{source} is a checkpoint; give the model folder, that above fold_0, fold_1 and so on")
    if not models:
        raise UserError(f"{source} holds no model: no plans.json is in it; export it with nnUNetv2_export_model_to_zip")
    held = some_of((model.name for model in models), 20)
    if len({model.name for model in wanted}) < len(wanted):
        data_sets = some_of(model.parent.name for model in wanted)
        raise UserError(
            f"{source} holds models of one name of {data_sets}; unpack it and name the folder of one of them"
        )
    raise UserError(f"{source} holds the models {held}; choose one by its configuration, or trainer and plans too")


def _unpack(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(name) as packed, target.open("wb") as stream:
        shutil.copyfileobj(packed, stream, 1 << 20)
