"""Lung masks of arrays: by the lungmask package where it is at hand, else by threshold and shape.

Start at ``segment.segment_lungs``; everything else is one way of doing it. Which files are read and written stands in
``nnunet_covid.raw_dataset.images``.
"""

from nnunet_covid.lung_mask.pretrained import MODELS
from nnunet_covid.lung_mask.segment import (
    METHODS,
    LungMask,
    automatic_method,
    check_weights,
    segment_lungs,
    unfit_for_network,
)

__all__ = ["METHODS", "MODELS", "LungMask", "automatic_method", "check_weights", "segment_lungs", "unfit_for_network"]
