"""Lesions of a lung infection: hazy ground glass with, in some, a dense core.

A lesion is a level set of an ellipsoid, noise of two scales and the depth under the pleura, so that its border is
irregular and it spreads along the chest wall.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_covid.demo.fields import Array, SmoothField


@dataclass(frozen=True)
class Lesion:
    """One lesion.

    Attributes:
        centre: (3,), mm.
        axes: (3, 3), rows are the directions divided by the radii, 1/mm.
        size: Mean radius, mm.
        coarse, fine: Fields that make the border irregular.
        mottle: Field that makes the haze uneven.
        roughness: Weight of the coarse field.
        haze: Radiodensity of the ground glass, HU.
        softness: Width of the border, mm.
        reticular: Strength of a net of fine lines within ("crazy paving"), 0 for none.
        core: How much of the lesion is consolidated: 0 for none, about 1 for nearly all.
        density: Radiodensity of the consolidation, HU.
    """

    centre: Array
    axes: Array
    size: float
    coarse: SmoothField
    fine: SmoothField
    mottle: SmoothField
    roughness: float
    haze: float
    softness: float
    reticular: float
    core: float
    density: float

    @classmethod
    def draw(cls, rng: np.random.Generator, centre: Array) -> Lesion:
        """A random lesion at a place."""
        size = float(np.exp(rng.normal(np.log(19.0), 0.40)))
        radii = size * rng.uniform(0.7, 1.35, 3)
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        consolidated = rng.random() < 0.5
        return cls(
            centre=np.asarray(centre, dtype=np.float64),
            axes=turn / radii[:, None],
            size=size,
            coarse=SmoothField.draw(rng, 1.0 * size),
            fine=SmoothField.draw(rng, 0.30 * size + 1.5),
            mottle=SmoothField.draw(rng, 6.0),
            roughness=rng.uniform(0.25, 0.55),
            haze=rng.uniform(-690.0, -470.0),
            softness=rng.uniform(3.0, 7.0),
            reticular=rng.uniform(0.3, 1.0) if rng.random() < 0.35 else 0.0,
            core=rng.uniform(0.3, 0.85) if consolidated else 0.0,
            density=rng.uniform(-160.0, 40.0),
        )

    def level(self, x: Array, y: Array, z: float, depth: Array) -> Array:
        """Positive inside; 1 at the centre, falling by 1 per radius.

        Args:
            x: Positions to the patient's left, mm.
            y: Positions to the back, mm.
            z: Height of the slice, mm.
            depth: Distance of each point from the chest wall, mm.
        """
        offset = [x - self.centre[0], y - self.centre[1], z - self.centre[2]]
        norm = np.sqrt(sum((a[0] * offset[0] + a[1] * offset[1] + a[2] * offset[2]) ** 2 for a in self.axes))
        pleural = 0.45 * np.exp(-np.maximum(depth, 0.0) / 8.0) - 0.15
        border = self.roughness * self.coarse(x, y, z) + 0.16 * self.fine(x, y, z)
        return 1.0 - norm + border + pleural

    def ground_glass(self, level: Array) -> Array:
        """Opacity of the haze, 0 to 1, 1/2 on the border."""
        return np.clip(0.5 + level * self.size / (2.0 * self.softness), 0.0, 1.0)

    def haze_at(self, x: Array, y: Array, z: float) -> Array:
        """Radiodensity of the haze, HU."""
        mottle = self.mottle(x, y, z)
        lines = self.reticular * np.exp(-((mottle / 0.22) ** 2))
        return self.haze + 35.0 * self.fine(x, y, z) + 25.0 * mottle + 170.0 * lines

    def consolidation(self, x: Array, y: Array, z: float, level: Array) -> Array:
        """Opacity of the dense core, 0 to 1, with a sharper border than the haze."""
        if self.core == 0.0:
            return np.zeros_like(level)
        inner = level - (1.05 - self.core) + 0.25 * self.fine(x, y, z) + 0.12 * self.mottle(x, y, z)
        return np.clip(0.5 + inner * self.size / 5.0, 0.0, 1.0)


def place(rng: np.random.Generator, candidates: Array, depths: Array, number: int) -> list[Lesion]:
    """Lesions at some of the candidate points, rather near the pleura and in the back.

    Args:
        rng: Source of randomness.
        candidates: Points in the lungs, (n, 3), mm.
        depths: Their distance from the chest wall, (n,), mm.
        number: How many lesions.
    """
    weight = np.exp(-depths / 11.0) * np.exp(candidates[:, 1] / 55.0)
    chosen = rng.choice(len(candidates), size=number, replace=False, p=weight / weight.sum())
    return [Lesion.draw(rng, candidates[i]) for i in chosen]
