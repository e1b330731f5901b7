"""The chest without vessels or disease: outlines of its organs at any height, drawn from a seeded generator.

Coordinates are millimetres. x runs to the patient's left (right in the picture), y to the back (down in the picture),
z to the feet; z = 0 is the apex of the lungs, the origin of x and y the middle of the chest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nnunet_covid.demo.fields import Array, SmoothField
from nnunet_covid.demo.geometry import ellipse, ellipsoid_section, intersection, union


@dataclass(frozen=True)
class Anatomy:
    """One person.

    Attributes:
        half_width, half_depth: Of the chest's inner wall where it is widest, mm.
        height: From the apex of the lungs to below the diaphragm, mm.
        wall: Thickness of muscles and ribs around the chest's inner wall, mm.
        fat: Thickness of the fat under the skin, mm.
        heart: Scale of the heart, about 1.
        rib_phase: Where the ribs are along z, in periods.
        bend_x, bend_y: Fields that bend the coordinates widely, so that no organ is a perfect ellipse.
        wave_x, wave_y: The same with small waves.
        bend, wave: How far each, mm.
    """

    half_width: float
    half_depth: float
    height: float
    wall: float
    fat: float
    heart: float
    rib_phase: float
    bend_x: SmoothField
    bend_y: SmoothField
    wave_x: SmoothField
    wave_y: SmoothField
    bend: float
    wave: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Anatomy:
        """A random person."""
        size = rng.normal(1.0, 0.05)
        return cls(
            half_width=132.0 * size * rng.uniform(0.95, 1.05),
            half_depth=88.0 * size * rng.uniform(0.9, 1.1),
            height=225.0 * size * rng.uniform(0.93, 1.07),
            wall=rng.uniform(16.0, 24.0),
            fat=rng.uniform(6.0, 22.0),
            heart=rng.uniform(0.88, 1.1),
            rib_phase=rng.uniform(0.0, 1.0),
            bend_x=SmoothField.draw(rng, 75.0, 20),
            bend_y=SmoothField.draw(rng, 75.0, 20),
            wave_x=SmoothField.draw(rng, 24.0, 24),
            wave_y=SmoothField.draw(rng, 24.0, 24),
            bend=rng.uniform(2.0, 3.5),
            wave=rng.uniform(0.8, 1.5),
        )

    def bent(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """The coordinates in which organs are ellipses."""
        return (
            x + self.bend * self.bend_x(x, y, z) + self.wave * self.wave_x(x, y, z),
            y + self.bend * self.bend_y(x, y, z) + self.wave * self.wave_y(x, y, z),
        )

    def inner_radii(self, z: float) -> tuple[float, float]:
        """Half width and half depth of the chest's inner wall, which is a dome at the top, mm."""
        level = np.clip(z / self.height, 0.0, 1.0)
        dome = np.sqrt(1.0 - (1.0 - min((level + 0.02) / 0.62, 1.0)) ** 2)
        return self.half_width * dome * (0.95 + 0.08 * level), self.half_depth * dome**0.8 * (0.95 + 0.07 * level)

    def inner_wall(self, x: Array, y: Array, z: float) -> Array:
        """Inner border of the ribs."""
        return ellipse(x, y, (0.0, 4.0), self.inner_radii(z), power=2.3)

    def body(self, x: Array, y: Array, z: float) -> Array:
        """The skin."""
        margin = self.wall + self.fat
        level = z / self.height
        shoulders = 18.0 * max(0.0, 1.0 - level / 0.45)
        radii = (self.half_width + margin + 10.0 + shoulders, self.half_depth + margin + 6.0)
        return ellipse(x, y, (0.0, 10.0), radii, power=2.5)

    def spine_y(self) -> float:
        """Centre of the vertebral bodies."""
        return self.half_depth * 0.80

    def vertebra(self, x: Array, y: Array) -> Array:
        """A vertebral body."""
        return ellipse(x, y, (0.0, self.spine_y()), (19.0, 16.0), power=2.4)

    def vessels_and_heart(self, x: Array, y: Array, z: float) -> dict[str, Array]:
        """The large vessels and the heart, by name."""
        h, level, s = self.height, z / self.height, self.heart
        back = self.spine_y() - 20.0
        parts = {
            "heart": ellipsoid_section(
                x, y, z, (24.0 * s, -20.0, 0.74 * h), (66.0 * s, 50.0 * s, 0.28 * h), angle=28.0
            ),
        }
        if level > 0.32:
            parts["descending aorta"] = ellipse(x, y, (25.0, back + 6.0), (12.5, 12.5))
        if 0.24 < level < 0.40:
            parts["aortic arch"] = ellipsoid_section(
                x, y, z, (12.0, 8.0, 0.32 * h), (36.0, 14.0, 0.075 * h), angle=62.0
            )
        if 0.34 < level < 0.58:
            parts["ascending aorta"] = ellipse(x, y, (-10.0, -22.0), (17.0, 16.0))
        if 0.38 < level < 0.56:
            parts["pulmonary trunk"] = ellipsoid_section(
                x, y, z, (14.0, -14.0, 0.47 * h), (34.0, 15.0, 0.1 * h), angle=-35.0
            )
        if 0.16 < level < 0.56:
            parts["superior vena cava"] = ellipse(x, y, (-27.0, -8.0), (9.0, 10.0))
        if level < 0.3:
            parts["left carotid"] = ellipse(x, y, (16.0, -2.0), (5.0, 5.0))
            parts["left subclavian"] = ellipse(x, y, (24.0, 12.0), (6.0, 6.0))
            parts["brachiocephalic"] = ellipse(x, y, (-6.0, -14.0), (14.0, 7.0), angle=-15.0)
        return parts

    def mediastinum(self, x: Array, y: Array, z: float) -> Array:
        """Everything between the lungs, its fat included."""
        h, level = self.height, z / self.height
        middle = 17.0 + 13.0 * max(0.0, 1.0 - level / 0.3)
        half = 3.5 + middle * np.exp(-(((y - 8.0) / 38.0) ** 2)) + 15.0 * max(0.0, 1.0 - level / 0.12)
        organs = [d - 3.0 for d in self.vessels_and_heart(x, y, z).values()]
        hila = [ellipsoid_section(x, y, z, (side * 36.0, 12.0, 0.50 * h), (17.0, 15.0, 0.09 * h)) for side in (-1, 1)]
        return union(np.abs(x - 4.0) - half, self.vertebra(x, y) - 4.0, *organs, *hila, blend=5.0)

    def diaphragm(self, x: Array, y: Array, z: float) -> dict[str, Array]:
        """The two domes, with liver and stomach under them."""
        h = self.height
        right = ellipsoid_section(x, y, z, (-0.5 * self.half_width, 0.0, 1.10 * h), (84.0, 86.0, 0.33 * h))
        left = ellipsoid_section(x, y, z, (0.52 * self.half_width, 4.0, 1.14 * h), (74.0, 80.0, 0.32 * h))
        return {"liver": right, "stomach": left}

    def lungs(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """Right and left lung."""
        below = union(*self.diaphragm(x, y, z).values(), blend=3.0)
        both = intersection(self.inner_wall(x, y, z), -self.mediastinum(x, y, z), -below, blend=3.0)
        return np.maximum(both, x), np.maximum(both, -x)

    def trachea(self, x: Array, y: Array, z: float) -> Array:
        """Lumen of the trachea and of the two main bronchi."""
        level = z / self.height
        if level < 0.42:
            return ellipse(x, y, (0.0, 16.0), (8.5, 9.0))
        apart = (level - 0.42) / 0.12
        if apart > 1.0:
            return np.full(np.broadcast_shapes(x.shape, y.shape), 99.0)
        sides = [
            ellipse(
                x, y, (side * (7.0 + 27.0 * apart), 16.0 + 4.0 * apart), (8.5 - 2.0 * apart, 6.5 - apart), 10.0 * side
            )
            for side in (-1, 1)
        ]
        return np.minimum(*sides)

    def ribs(self, x: Array, y: Array, z: float) -> Array:
        """All ribs: rings around the inner wall that fall by a hand's breadth from the spine to the front.

        A slice meets each rib where its height equals z, which leaves the oblique ellipses seen in axial pictures.
        """
        outward = self.inner_wall(x, y, z) - 5.5
        around = np.arctan2(np.abs(x), (y - 4.0) * self.half_width / self.half_depth)  # 0 at the spine, pi in front
        fall = 95.0 * np.sin(0.5 * around) ** 1.5
        period = 25.0
        phase = (z - fall) / period + self.rib_phase
        along = (phase - np.rint(phase)) * period
        return (np.hypot(outward / 3.6, along / 5.5) - 1.0) * 3.6

    def scapulae(self, x: Array, y: Array, z: float) -> Array:
        """The shoulder blades: thin curved plates behind the upper chest."""
        level = z / self.height
        reach = max(0.0, 1.0 - abs(level - 0.22) / 0.3)
        centre = (self.half_width * 0.86, self.half_depth * 0.85 + 8.0)
        return ellipse(np.abs(x), y, centre, (5.0 + 40.0 * reach, 1.0 + 3.0 * reach), angle=-52.0)
