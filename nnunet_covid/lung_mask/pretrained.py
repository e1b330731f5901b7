"""Lung masks by the lungmask package (Hofmanninger et al., European Radiology Experimental 2020), an optional extra."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.checkpoint import restricted
from nnunet_covid.errors import UserError

MODELS = ("R231", "R231CovidWeb")
"""R231 for Hounsfield units, R231CovidWeb trained on COVID-19 slices converted from pictures."""


def is_ready(model: str, weights: Path | None) -> bool:
    """Whether the package works and its weights can be had without downloading."""
    if weights is not None:
        return True  # asked for by name: what is wrong with it must be told
    try:
        import torch
        from lungmask.mask import MODEL_URLS
    except ImportError:
        return False
    name = MODEL_URLS[model][0].rpartition("/")[2]
    return (Path(torch.hub.get_dir()) / "checkpoints" / name).is_file()


def lungs_by_network(
    image: NDArray[Any], *, is_hu: bool, model: str = "R231", weights: Path | None = None
) -> NDArray[np.bool_]:
    """Both lungs as one mask.

    Args:
        image: Shape (z, y, x) or (y, x); Hounsfield units, or 8-bit grey values if not ``is_hu``.
        is_hu: Whether the values are Hounsfield units.
        model: One of ``MODELS``; the weights are downloaded on first use.
        weights: File with the weights, for machines without internet.

    Raises:
        UserError: If the package or the weights are missing.
    """
    volume = image if image.ndim == 3 else image[None]
    if not is_hu:
        volume = volume.astype(np.float32) / 255 * 1624 - 1024  # the package's own convention for pictures
    mask = np.asarray(_inferer(model, weights).apply(volume)) > 0
    return mask if image.ndim == 3 else mask[0]


@lru_cache(maxsize=1)
def _inferer(model: str, weights: Path | None) -> Any:
    try:
        from lungmask.mask import MODEL_URLS, LMInferer
    except ImportError as e:
        message = f"the lungmask package cannot be used ({e}); pip install 'nnunet_covid[lungmask]'"
        raise UserError(message) from e
    try:
        path = None if weights is None else str(weights)
        with restricted():
            return LMInferer(modelname=model, modelpath=path, tqdm_disable=True)
    except (URLError, OSError) as e:
        url = MODEL_URLS[model][0]
        message = f"cannot download lungmask's weights ({e}); fetch {url} elsewhere and name the file as weights"
        raise UserError(message) from e
    except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
        raise UserError(f"{weights} does not hold weights of lungmask's {model}; download it again") from e
