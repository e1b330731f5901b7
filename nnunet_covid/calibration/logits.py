r"""Temperature and threshold of each class as a scale and a shift of the logits.

nnU-Net reads its maps in one way: argmax of a softmax, or a sigmoid per region above 0.5. Another operating point is
therefore written as other logits. With the log-odds of class k

.. math::
    d_k = z_k - z_0 = \log(p_k / p_0) \;\text{(softmax)}, \qquad d_k = z_k = \log\frac{p_k}{1 - p_k} \;\text{(sigmoid)},

a threshold :math:`t_k` and a temperature :math:`T_k` (Guo et al., "On Calibration of Modern Neural Networks", 2017) the
calibrated logits are

.. math:: z'_k = (d_k - \log\tfrac{t_k}{1 - t_k}) / T_k, \qquad z'_0 = 0 \;\text{(softmax)},

that is scale :math:`1 / T_k` and shift :math:`-\operatorname{logit}(t_k) / T_k`. Then :math:`\sigma(z'_k) > 1/2`
exactly where :math:`\sigma(d_k) > t_k`, whatever the temperature; with one foreground class that is :math:`p > t`. With
several classes of a softmax, :math:`t_k` is read from class k against background, :math:`p_k / (p_k + p_0)`, and among
the classes above their thresholds the one with the largest excess wins; they share one temperature, so that no
temperature changes a label. A softmax does not change when a constant is added to all its logits, and neither do its
log-odds: they are known from saved probabilities, which a scale of each logit by itself would not be.

Between network and label map nnU-Net only takes means of logits with weights that sum to one: over mirrored copies,
tiles, folds and neighbouring voxels. Scale and shift commute with these, so that what is fitted on the saved
probabilities holds for the network's logits (up to the 16-bit floats in which nnU-Net adds up tiles).

Not here: how the numbers are found (``fit``), and how they get into a checkpoint (``checkpoints``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

LARGEST_LOG_ODDS = 20.0
"""Beyond it, probabilities in 32-bit floats are 0 or 1."""


def logit(probability: float) -> float:
    """log(p / (1 − p))."""
    return float(np.log(probability) - np.log1p(-probability))


def log_odds(probabilities: NDArray[np.floating], *, softmax: bool) -> NDArray[np.float32]:
    """Log-odds of every foreground class, (classes, *spatial), from probabilities (heads, *spatial).

    Clipped to ±:data:`LARGEST_LOG_ODDS`. A softmax has the background as its first head, a sigmoid has none.
    """
    tiny = np.finfo(np.float32).tiny
    p = np.asarray(probabilities, np.float32)
    positive = np.log(np.maximum(p[1:] if softmax else p, tiny))
    negative = np.log(np.maximum(p[:1] if softmax else 1 - p, tiny))
    return np.clip(positive - negative, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS)


@dataclass(frozen=True)
class Calibration:
    """Temperature and threshold of every foreground class or region, in the order of the network's heads.

    Attributes:
        softmax: Whether the heads are a softmax with the background first, or a sigmoid each.
        temperatures: T, above 0; 1 changes nothing.
        thresholds: t, between 0 and 1; 0.5 changes nothing.
    """

    softmax: bool
    temperatures: tuple[float, ...]
    thresholds: tuple[float, ...]

    @classmethod
    def identity(cls, classes: int, *, softmax: bool) -> Calibration:
        """What nnU-Net does by itself."""
        return cls(softmax, (1.0,) * classes, (0.5,) * classes)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Calibration:
        """The inverse of :meth:`to_json`."""
        return cls(bool(content["softmax"]), tuple(content["temperatures"]), tuple(content["thresholds"]))

    def to_json(self) -> dict[str, Any]:
        """As plain lists and numbers."""
        return {
            "softmax": self.softmax,
            "temperatures": list(self.temperatures),
            "thresholds": list(self.thresholds),
        }

    @property
    def scale(self) -> tuple[float, ...]:
        """Factor of the log-odds of every class."""
        return tuple(1 / t for t in self.temperatures)

    @property
    def shift(self) -> tuple[float, ...]:
        """What is added to the scaled log-odds of every class."""
        return tuple(-logit(t) * s for t, s in zip(self.thresholds, self.scale, strict=True))

    def of_log_odds(self, odds: NDArray[np.floating], position: int) -> NDArray[np.floating]:
        """Calibrated log-odds of the class at a position among the foreground classes."""
        return odds * self.scale[position] + self.shift[position]

    def of_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated logits (B, heads, *spatial) of a network's logits of the same shape."""
        if not self.softmax:
            return logits * _per_head(self.scale, logits) + _per_head(self.shift, logits)
        background, foreground = logits[:, :1], logits[:, 1:]
        odds = foreground - background
        calibrated = odds * _per_head(self.scale, odds) + _per_head(self.shift, odds)
        return torch.cat((torch.zeros_like(calibrated[:, :1]), calibrated), dim=1)


def _per_head(values: Sequence[float], logits: torch.Tensor) -> torch.Tensor:
    """(1, heads, 1, …) in 32-bit floats, also under autocast."""
    return torch.tensor(values, device=logits.device).view(1, -1, *(1,) * (logits.ndim - 2))
