"""A synthetic person with a lung infection, and the CT slice at any height of the chest.

Coordinates are millimetres: x runs to the patient's left (right in the picture), y to the back (down in the picture),
z to the feet; z = 0 is the apex of the lungs, the origin of x and y the middle of the chest. Organs are ellipsoids
bent by smooth noise, vessels are the curves on which two smooth noises are zero at once. Shapes are signed distances
in mm, negative inside, exact on the border and of the right order near it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.special import expit

Array = NDArray[np.float64]
Place = tuple[Array, Array, Array | float]
"""Columns (1, columns), rows (rows, 1) and height of a slice, mm."""
GROUND_GLASS, CONSOLIDATION = 1, 2
RIGHT_LUNG, LEFT_LUNG = 1, 2

AIR, LUNG, FAT, BLOOD, MUSCLE, LIVER = -1000.0, -865.0, -100.0, 42.0, 55.0, 62.0
SPONGY_BONE, HARD_BONE = 190.0, 650.0
"""Radiodensities, HU."""

HALF_WIDTH, HALF_DEPTH = 132.0, 88.0
"""Of the mean person's chest within the ribs, mm."""

Ellipsoid = tuple[tuple[float, float, float], tuple[float, float, float], float]
"""Centre, half axes, and the angle in degrees by which the first axis is turned from x towards y. The mean person's
mm; heights are parts of the chest's height."""
ORGANS: dict[str, Ellipsoid] = {
    "right hilum": ((-36, 12, 0.50), (17, 15, 0.09), 0),
    "left hilum": ((36, 12, 0.50), (17, 15, 0.09), 0),
    "heart": ((24, -20, 0.74), (66, 50, 0.28), 28),
    "descending aorta": ((25, 56, 0.80), (12.5, 12.5, 0.50), 0),
    "aortic arch": ((12, 8, 0.32), (36, 14, 0.075), 62),
    "ascending aorta": ((-10, -22, 0.46), (17, 16, 0.15), 0),
    "pulmonary trunk": ((14, -14, 0.47), (34, 15, 0.10), -35),
    "superior vena cava": ((-27, -8, 0.36), (9, 10, 0.22), 0),
    "left carotid artery": ((16, -2, 0.1), (5, 5, 0.22), 0),
    "left subclavian artery": ((24, 12, 0.1), (6, 6, 0.22), 0),
    "brachiocephalic vessels": ((-6, -14, 0.1), (14, 7, 0.22), -15),
}
UNDER_THE_DIAPHRAGM: dict[str, Ellipsoid] = {
    "liver": ((-66, 0, 1.10), (84, 86, 0.33), 0),
    "stomach": ((68, 4, 1.14), (74, 80, 0.32), 0),
}
BONES: dict[str, Ellipsoid] = {
    "vertebral arch": ((0, 94, 0.5), (15, 13, 9), 0),
    "right transverse process": ((-24, 92, 0.5), (17, 5, 9), -20),
    "left transverse process": ((24, 92, 0.5), (17, 5, 9), 20),
    "spinous process": ((0, 112, 0.5), (3.5, 14, 9), 0),
    "vertebra": ((0, 70, 0.5), (19, 16, 9), 0),
    "breast bone": ((0, -89, 0.5), (19, 5.5, 9), 0),
    "right shoulder blade": ((-116, 82, 0.22), (45, 4, 0.3), 52),
    "left shoulder blade": ((116, 82, 0.22), (45, 4, 0.3), -52),
}
SPINAL_CANAL: Ellipsoid = ((0, 93, 0.5), (9.5, 8.5, 9), 0)
VESSELS = ((0.3, 0.62, 3.0, 0.65), (0.45, 0.75, 0.8, 0.42))
"""Of larger and smaller vessels: how the noise's features widen with the way r from the hilum, r^(1 - first), and their
width at r = 1; what tapers off of the radius, and what stays, mm."""


@dataclass(frozen=True)
class SyntheticCT:
    """An axial slice, or a volume of such slices from the apex down.

    Attributes:
        hounsfield: (rows, columns) or (slices, rows, columns), HU.
        labels: 0 background, 1 ground glass, 2 consolidation; same shape.
        lungs: 0 outside, 1 right lung, 2 left lung, lesions included; same shape.
        spacing: Of the array's axes, mm.
    """

    hounsfield: NDArray[np.float32]
    labels: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    spacing: tuple[float, ...]

    @property
    def infection(self) -> NDArray[np.uint8]:
        """Both kinds of lesion as one class, 0 or 1."""
        return (self.labels > 0).astype(np.uint8)


class Lesion:
    """A random lesion around ``centre``, (3,), mm: hazy ground glass with, in some, a dense core."""

    def __init__(self, rng: np.random.Generator, centre: Array) -> None:
        self.centre = centre
        self.size = float(np.exp(rng.normal(np.log(19.0), 0.40)))  # mean half axis, mm
        self.axes = np.linalg.qr(rng.normal(size=(3, 3)))[0] / (self.size * rng.uniform(0.7, 1.35, (3, 1)))  # 1/mm
        self.roughness = rng.uniform(0.25, 0.55)
        self.haze = rng.uniform(-690.0, -470.0)  # HU
        self.softness = rng.uniform(3.0, 7.0)  # width of the border, mm
        self.reticular = rng.uniform(0.3, 1.0) * (rng.random() < 0.35)  # a net of fine lines ("crazy paving")
        self.core = rng.uniform(0.3, 0.85) * (rng.random() < 0.5)  # how much of it is consolidated
        self.density = rng.uniform(-160.0, 40.0)  # of the core, HU

    def shrink(self, factor: float) -> None:
        """The same lesion with ``factor`` of its diameter."""
        self.size *= factor
        self.axes /= factor


class Noise:
    """Smooth random values in space, mean 0 and variance 1, the same at a point whichever slice asks for it."""

    def __init__(self, rng: np.random.Generator) -> None:
        grid = gaussian_filter(rng.normal(size=(64, 64, 64)), 2.0, mode="wrap")
        self._grid = (grid - grid.mean()) / grid.std()
        self._shifts = rng.uniform(0.0, 64.0, (99, 3, 1, 1))
        self._turns = np.linalg.qr(rng.normal(size=(99, 3, 3)))[0]

    def __call__(self, field: int, scale: float, x: Array, y: Array, z: Array | float) -> Array:
        """Values of field number ``field``, one of 99, whose features are about ``scale`` mm wide."""
        points = np.stack(np.broadcast_arrays(x, y, z)) * (3.2 / scale)
        turned = np.einsum("ij,j...->i...", self._turns[field % 99], points)
        return map_coordinates(self._grid, turned + self._shifts[field % 99], order=1, mode="grid-wrap")


class Chest:
    """One synthetic person with 3 to 12 lesions, the same for the same seed, a whole number that is not negative."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0xC7])
        self.seed = seed
        self.noise = Noise(rng)
        size = rng.normal(1.0, 0.05)
        self.wide, self.deep = size * rng.uniform((0.95, 0.9), (1.05, 1.1))
        self.height = 225.0 * size * rng.uniform(0.93, 1.07)
        self.wall, self.fat = rng.uniform((16.0, 6.0), (24.0, 22.0))
        self.rib_phase = rng.uniform()
        self.bend, self.wave = rng.uniform((2.0, 0.8), (3.5, 1.5))
        self.dependent = rng.uniform(20.0, 150.0)  # haze that comes from lying, not from disease
        self.scanner_noise, self.sharpness = rng.uniform((14.0, 0.0), (60.0, 1.0))
        self.lesions = self._place_lesions(rng, int(rng.integers(3, 13)))

    def slice(self, x: Array, y: Array, z: float) -> SyntheticCT:
        """The CT slice at height z.

        Args:
            x: Positions of the columns, evenly spaced, mm.
            y: Positions of the rows, as far apart as the columns, mm.
            z: Height, mm.
        """
        pixel = float(x[1] - x[0])
        x, y = x[None, :], y[:, None]
        shapes = self.shapes(x, y, z)
        airway = shapes["airway"]
        canvas = np.full((y.size, x.size), AIR)
        self._paint_body(canvas, shapes, self.noise(5, 9.0, x, y, z), pixel)
        tissue, haze, core = self._lung_tissue(x, y, z, shapes, pixel)
        _paint(canvas, _share(np.minimum(shapes["right lung"], shapes["left lung"]), pixel), tissue)
        _paint(canvas, _share(airway - 1.4, pixel), MUSCLE)
        _paint(canvas, _share(airway, pixel), AIR)
        canvas = gaussian_filter(canvas, (0.62 - 0.25 * self.sharpness) * max(1.0, 1.0 / pixel))
        canvas += self._scanner_noise(canvas.shape, z)

        inside = [(shapes[name] < 0.0) & (airway >= 1.4) for name in ("right lung", "left lung")]
        lungs = np.select(inside, [RIGHT_LUNG, LEFT_LUNG], 0).astype(np.uint8)
        labels = np.select([lungs == 0, core > 0.5, haze > 0.5], [0, CONSOLIDATION, GROUND_GLASS], 0).astype(np.uint8)
        return SyntheticCT(np.maximum(canvas, -1024.0).astype(np.float32), labels, lungs, (pixel, pixel))

    def shapes(self, x: Array, y: Array, z: Array | float) -> dict[str, Array]:
        """Signed distance of every point from every organ, by name, mm."""
        bx, by, u = x / self.wide, y / self.deep, z / self.height
        bx = bx + self.bend * self.noise(0, 75.0, x, y, z) + self.wave * self.noise(1, 24.0, x, y, z)
        by = by + self.bend * self.noise(2, 75.0, x, y, z) + self.wave * self.noise(3, 24.0, x, y, z)
        tables = {**ORGANS, **UNDER_THE_DIAPHRAGM, **BONES, "spinal canal": SPINAL_CANAL}
        found = {name: _section(bx, by, u, ellipsoid) for name, ellipsoid in tables.items()}

        dome = np.sqrt(1.0 - np.clip(0.97 - u / 0.62, 0.0, 0.9999) ** 2)
        radii = (HALF_WIDTH * dome * (0.95 + 0.08 * u), HALF_DEPTH * dome**0.8 * (0.95 + 0.07 * u))
        wall = _ellipse(bx, by - 4.0, radii, 2.3)
        margin = self.wall + self.fat
        shoulders = 10.0 + 18.0 * np.maximum(0.0, 1.0 - u / 0.45)
        skin = _ellipse(bx, by - 10.0, (HALF_WIDTH + margin + shoulders, HALF_DEPTH + margin + 6.0), 2.5)

        middle = 17.0 + 13.0 * np.maximum(0.0, 1.0 - u / 0.3)
        half = 3.5 + middle * np.exp(-(((by - 8.0) / 38.0) ** 2)) + 15.0 * np.maximum(0.0, 1.0 - u / 0.12)
        organs = [found[name] - 3.0 for name in ORGANS]
        mediastinum = _union(np.abs(bx - 4.0) - half, found["vertebra"] - 4.0, *organs, blend=5.0)
        below = _union(*(found[name] for name in UNDER_THE_DIAPHRAGM), blend=3.0)
        lungs = -_union(-wall, mediastinum, below, blend=3.0)
        fork = (u - 0.42) / 0.12  # 0 where the wind pipe divides, 1 in the hila
        apart = np.clip(fork, 0.0, 1.0)
        radii = (8.5 - 2.0 * apart, np.where(fork < 0.0, 9.0, 6.5 - apart))
        airway = _ellipse(np.abs(bx) - np.where(fork < 0.0, 0.0, 7.0 + 27.0 * apart), by - 16.0 - 4.0 * apart, radii)
        return {
            **found,
            "skin": skin,
            "wall": wall,
            "right lung": np.maximum(lungs, bx),
            "left lung": np.maximum(lungs, -bx),
            "airway": airway + np.where(fork > 1.0, 99.0, 0.0),
            "ribs": self._ribs(bx, by, z, wall),
        }

    def _ribs(self, x: Array, y: Array, z: Array | float, wall: Array) -> Array:
        """All ribs: rings around the wall that fall by a hand's breadth from the spine to the front.

        A slice meets each rib where its height equals z, which leaves the oblique ellipses seen in axial pictures.
        """
        around = np.arctan2(np.abs(x), (y - 4.0) * HALF_WIDTH / HALF_DEPTH)  # 0 at the spine, pi in front
        turns = (z - 95.0 * np.sin(0.5 * around) ** 1.5) / 25.0 + self.rib_phase
        return (np.hypot((wall - 5.5) / 3.6, 25.0 * (turns - np.rint(turns)) / 5.5) - 1.0) * 3.6

    def _paint_body(self, canvas: Array, shapes: dict[str, Array], grain: Array, pixel: float) -> None:
        """Everything but the lungs, from the skin inwards."""
        skin, wall = shapes["skin"], shapes["wall"]
        streaks = _share(1.3 - grain, 0.5)  # of fat in the muscles
        _paint(canvas, _share(skin, pixel), MUSCLE)
        _paint(canvas, _share(skin + 1.8, pixel), FAT + 6.0 * grain)
        ring = np.maximum(wall - self.wall, skin + self.fat)
        _paint(canvas, _share(ring, pixel), MUSCLE + 8.0 * grain + streaks * (FAT - MUSCLE + 30.0))
        inside = _share(wall + 1.0, pixel)
        _paint(canvas, inside, FAT + 50.0 + 10.0 * grain)
        for name in ORGANS:
            if "hilum" not in name:
                _paint(canvas, _share(shapes[name], 2.0 * pixel), BLOOD + 3.0 * grain)
        for name in UNDER_THE_DIAPHRAGM:
            _paint(canvas, inside * _share(shapes[name], 2.0 * pixel), LIVER if name == "liver" else MUSCLE - 5.0)
        for name in ("ribs", *BONES):
            _paint(canvas, _share(shapes[name], pixel), HARD_BONE)
            _paint(canvas, _share(shapes[name] + 1.8, pixel), SPONGY_BONE + 60.0 * grain)
        _paint(canvas, _share(shapes["spinal canal"], pixel), 30.0)

    def _lung_tissue(self, x: Array, y: Array, z: float, shapes: dict[str, Array], pixel: float) -> list[Array]:
        """Radiodensity of the lungs, and how much of each pixel is haze and core of a lesion."""
        depth = np.maximum(-np.minimum(shapes["right lung"], shapes["left lung"]), 0.0)
        tissue = LUNG + 18.0 * self.noise(6, 7.0, x, y, z) + 28.0 * np.clip(y / HALF_DEPTH, -1.0, 1.0)
        tissue += self.dependent * np.exp(-depth / 7.0) * np.clip((y - 40.0) / 25.0, 0.0, 1.0)
        fissure = y + 9.0 * self.noise(4, 60.0, x, y, z) - HALF_DEPTH * (1.3 - 1.75 * z / self.height)
        tissue += 90.0 * np.exp(-((fissure / 1.1) ** 2))
        layers = [tissue, np.zeros_like(tissue), np.zeros_like(tissue)]
        for number, lesion in enumerate(self.lesions):
            if abs(z - lesion.centre[2]) > 2.6 * lesion.size:
                continue
            own = _share(shapes["left lung" if lesion.centre[0] > 0.0 else "right lung"], pixel)
            self._add_lesion(number, (x, y, z), -shapes["wall"], own, layers)
        for side in (-1.0, 1.0):
            self._add_vessels(tissue, x, y, z, side, pixel)
        return layers

    def _add_lesion(self, number: int, place: Place, depth: Array, own: Array, layers: list[Array]) -> None:
        """Lay a lesion over (tissue, haze, core), in place: a rough ellipsoid that spreads along the chest wall."""
        lesion, (tissue, haze, core) = self.lesions[number], layers
        field = 20 + 3 * number
        offset = np.stack(np.broadcast_arrays(*place)) - lesion.centre[:, None, None]
        norm = np.sqrt((np.einsum("ij,j...->i...", lesion.axes, offset) ** 2).sum(axis=0))
        fine = self.noise(field + 1, 0.3 * lesion.size + 1.5, *place)
        mottle = self.noise(field + 2, 6.0, *place)
        pleural = 0.45 * np.exp(-np.maximum(depth, 0.0) / 8.0) - 0.15
        level = 1.0 - norm + lesion.roughness * self.noise(field, lesion.size, *place) + 0.16 * fine + pleural
        opacity = own * np.clip(0.5 + level * lesion.size / (2.0 * lesion.softness), 0.0, 1.0)
        lines = 170.0 * lesion.reticular * np.exp(-((mottle / 0.22) ** 2))
        _paint(tissue, opacity, np.maximum(tissue, lesion.haze + 35.0 * fine + 25.0 * mottle + lines))
        np.maximum(haze, opacity, out=haze)
        if lesion.core:
            inner = level - (1.05 - lesion.core) + 0.25 * fine + 0.12 * mottle
            dense = own * np.clip(0.5 + inner * lesion.size / 5.0, 0.0, 1.0)
            _paint(tissue, dense, lesion.density)
            np.maximum(core, dense, out=core)

    def _add_vessels(self, tissue: Array, x: Array, y: Array, z: float, side: float, pixel: float) -> None:
        """Vessels of one lung, which run outwards from its hilum and taper."""
        offset = np.stack(np.broadcast_arrays(x - 38.0 * side, y - 14.0, z - 0.5 * self.height))
        way = np.sqrt((offset**2).sum(axis=0)) + 1.0
        mine = side * x > 0.0
        for field, (stretch, scale, thick, thin) in enumerate(VESSELS):
            squeezed = offset * way ** (stretch - 1.0)
            first, second = (self.noise(8 + 2 * field + k, scale, *squeezed) for k in (0, 1))
            width = scale / 1.6 * way ** (1.0 - stretch)  # mm over which the noise changes by its deviation
            radius = thin + thick * np.exp(-way / 24.0)
            drawn = np.maximum(radius, 0.45 * pixel)  # a thread thinner than a pixel fills only part of it
            share = mine * radius / drawn * _share(np.hypot(first, second) * width - drawn, 0.5 * pixel)
            _paint(tissue, share, np.maximum(tissue, BLOOD))

    def _scanner_noise(self, shape: tuple[int, ...], z: float) -> Array:
        """Noise of a reconstructed slice: blotches whose low frequencies the reconstruction's ramp filter takes out."""
        rng = np.random.default_rng([self.seed, 0x5C, round((z + 1e4) * 100.0)])
        white, fine = rng.normal(size=shape), 0.85 - 0.45 * self.sharpness
        noise = gaussian_filter(white, fine) - (0.35 + 0.4 * self.sharpness) * gaussian_filter(white, 2.4 * fine)
        return noise * (self.scanner_noise / noise.std())

    def _place_lesions(self, rng: np.random.Generator, number: int) -> list[Lesion]:
        """Lesions at random points of the lungs, rather near the pleura and in the back."""
        reach = np.array([1.1 * HALF_WIDTH, 1.1 * HALF_DEPTH, 0.47 * self.height])
        points = rng.uniform(-reach, reach, (12_000, 3)) + np.array([0.0, 0.0, 0.5 * self.height])
        shapes = {name: d[0] for name, d in self.shapes(*points.T[:, None]).items()}
        inside = np.minimum(shapes["right lung"], shapes["left lung"]) < -1.5
        weight = inside * np.exp(np.minimum(shapes["wall"], 0.0) / 11.0 + points[:, 1] / 55.0)
        chosen = rng.choice(len(points), size=number, replace=False, p=weight / weight.sum())
        return [Lesion(rng, points[i]) for i in chosen]


def _ellipse(x: Array, y: Array, radii: tuple[Array | float, Array | float], power: float = 2.0) -> Array:
    """Distance from a superellipse around the origin."""
    norm = (np.abs(x) / radii[0]) ** power + (np.abs(y) / radii[1]) ** power
    return (norm ** (1.0 / power) - 1.0) * np.minimum(*radii)


def _section(x: Array, y: Array, u: Array | float, ellipsoid: Ellipsoid) -> Array:
    """Distance from the cut of an ellipsoid at height u; positive everywhere where the plane misses it."""
    (cx, cy, cz), (a, b, c), degrees = ellipsoid
    height = (u - cz) / c
    size = np.sqrt(np.maximum(1.0 - height**2, 0.0025))
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    dx, dy = x - cx, y - cy
    cut = _ellipse(cos * dx + sin * dy, cos * dy - sin * dx, (a * size, b * size), 2.2)
    return np.where(np.abs(height) < 1.0, cut, np.hypot(dx, dy) + 1.0)


def _union(*distances: Array, blend: float) -> Array:
    """Smooth union: corners are rounded off over ``blend`` mm."""
    lowest = np.minimum.reduce(np.broadcast_arrays(*distances))
    return lowest - blend * np.log(sum(np.exp((lowest - d) / blend) for d in distances))


def _share(distance: Array, softness: float) -> Array:
    """Part of the shape in a pixel: 1 inside, 1/2 on the border, 0 outside, over about ``softness`` mm."""
    return expit(-distance / (0.5 * softness))


def _paint(canvas: Array, share: Array, hounsfield: Array | float) -> None:
    """Lay a tissue over the canvas, in place; ``share`` is its part in every pixel."""
    canvas += share * (hounsfield - canvas)
