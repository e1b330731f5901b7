"""Whether an image is on the scale of the images that the plans were made of: Hounsfield units, or grey values.

nnU-Net takes either without a word and normalises it; what the network then marks means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.grey_scale import AIR_BELOW, is_hounsfield, span_of

BRIGHTEST = 255
"""Of the grey values that a window makes."""


def refuse_other_scale(
    image: NDArray[Any], what: str, plans: Mapping[str, Any], normalisations: Sequence[str | None]
) -> None:
    """Refuse Hounsfield units where the plans know grey values, and the other way round.

    Only the first channel is looked at. Nothing is said where the plans themselves do not tell which it is.

    Args:
        image: (channels, *axes), as it was read.
        what: The image in words, for the message.
        plans: A plans file's content.
        normalisations: Names of the configuration's normalisation schemes, one for each channel.

    Raises:
        UserError: If the image is on the other scale.
    """
    trained = (plans.get("foreground_intensity_properties_per_channel") or {}).get("0") or {}
    of_ct = bool(normalisations) and str(normalisations[0]).startswith("CT")
    made_of = ""
    if not of_ct and trained.get("min", -1) >= 0 and trained.get("max", np.inf) <= BRIGHTEST:
        made_of = f"grey values up to {BRIGHTEST}" if is_hounsfield(image[0]) else ""
    elif of_ct and trained.get("percentile_00_5", 0) < AIR_BELOW:
        made_of = "Hounsfield units" if image[0].min() >= 0 else ""
    if made_of:
        told = f"{what} holds {span_of(image[0])}, but the plans are made of {made_of}"
        raise UserError(f"{told}; convert it as the training images were converted")
