"""Physical size of a segmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence

CUBIC_MILLIMETRES_PER_MILLILITRE = 1000.0


def volume_ml(voxels: int, spacing: Sequence[float]) -> float:
    """Volume in ml of a number of voxels with edges in mm: n · Π spacing / 1000."""
    return voxels * math.prod(spacing) / CUBIC_MILLIMETRES_PER_MILLILITRE
