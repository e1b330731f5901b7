"""Our trainers as nnU-Net finds them, without its search, which imports every module with a trainer in two seconds."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager

from nnunetv2.inference import predict_from_raw_data

from nnunet_covid.startup import TRAINERS_FOLDER, VARIABLE


@contextmanager
def known_trainers_found_at_once() -> Iterator[None]:
    """While this lasts, nnU-Net's predictor asks our trainers first.

    They come after nnU-Net's own in its search, but share no name with these except for lengths and seeds, which do not
    change a network. Where other folders of trainers are named too, one may hold another trainer of the same name, and
    everything is as it was.
    """
    search = predict_from_raw_data.recursive_find_trainer_class_by_name

    def find(name: str) -> type:
        return _ours(name) or search(name)

    predict_from_raw_data.recursive_find_trainer_class_by_name = find
    try:
        yield
    finally:
        predict_from_raw_data.recursive_find_trainer_class_by_name = search


def _ours(name: str) -> type | None:
    if os.environ.get(VARIABLE, "").split(os.pathsep) != [str(TRAINERS_FOLDER)]:
        return None
    spec = importlib.util.spec_from_file_location("offered", next(TRAINERS_FOLDER.glob("*.py")))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name, None)
