"""A synthetic person with a lung infection, and the CT slice at any height of the chest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nnunet_covid.demo import hounsfield as hu
from nnunet_covid.demo.anatomy import Anatomy
from nnunet_covid.demo.branching import Tubes, grow, join
from nnunet_covid.demo.fields import Array, SmoothField, scanner_noise
from nnunet_covid.demo.geometry import coverage, ellipse, paint
from nnunet_covid.demo.lesions import Lesion, place

BACKGROUND, GROUND_GLASS, CONSOLIDATION = 0, 1, 2
RIGHT_LUNG, LEFT_LUNG = 1, 2
AIRWAY_POINTS = 140


@dataclass(frozen=True)
class CTSlice:
    """One axial slice.

    Attributes:
        hounsfield: (rows, columns), HU.
        labels: 0 background, 1 ground glass, 2 consolidation; same shape.
        lungs: 0 outside, 1 right lung, 2 left lung, lesions included; same shape.
    """

    hounsfield: NDArray[np.float32]
    labels: NDArray[np.uint8]
    lungs: NDArray[np.uint8]

    @property
    def infection(self) -> NDArray[np.uint8]:
        """Both kinds of lesion as one class, 0 or 1."""
        return (self.labels > 0).astype(np.uint8)


@dataclass(frozen=True)
class Chest:
    """One synthetic person.

    Attributes:
        anatomy: Organs.
        arteries, airways: Branching tubes of both lungs; ``arteries`` holds the veins as well.
        lesions: The infection.
        texture, marbling, fissure: Fields of the lung tissue, the muscles and the lobes' border.
        dependent: Densest haze at the back of the lungs that comes from lying, not from disease, HU.
        noise: Standard deviation of the scanner's noise, HU.
        sharpness: Of the reconstruction kernel, 0 to 1.
        seed: Of the noise.
    """

    anatomy: Anatomy
    arteries: Tubes
    airways: Tubes
    lesions: tuple[Lesion, ...]
    texture: SmoothField
    marbling: SmoothField
    fissure: SmoothField
    dependent: float
    noise: float
    sharpness: float
    seed: int

    @classmethod
    def draw(cls, seed: int, *, lesions: int | None = None, branches: int = 1100) -> Chest:
        """A random person, the same for the same arguments.

        Args:
            seed: Any whole number that is not negative.
            lesions: How many lesions; a random number from 3 to 12 if not given.
            branches: Ends of each of the four trees of vessels; fewer are drawn faster and do for coarse pixels.
        """
        rng = np.random.default_rng([seed, 0xC7])
        anatomy = Anatomy.draw(rng)
        points, depths, left = _points_in_lungs(rng, anatomy)
        number = int(rng.integers(3, 13)) if lesions is None else lesions
        vessels, airways = [], []
        for side in (False, True):
            own = points[left == side]
            root = np.array([38.0 if side else -38.0, 14.0, 0.50 * anatomy.height])
            half = rng.permutation(len(own))[: 2 * branches]
            vessels.append(grow(root, own[half[::2]], 0.46))
            vessels.append(grow(root + np.array([0.0, -9.0, 8.0]), own[half[1::2]], 0.42))
            airways.append(grow(root + np.array([-2.0 if side else 2.0, 5.0, 4.0]), own[half[:AIRWAY_POINTS]], 0.6))
        return cls(
            anatomy=anatomy,
            arteries=join(*vessels),
            airways=join(*airways).thicker_than(1.15),
            lesions=tuple(place(rng, points, depths, number)),
            texture=SmoothField.draw(rng, 7.0),
            marbling=SmoothField.draw(rng, 9.0),
            fissure=SmoothField.draw(rng, 60.0, 16),
            dependent=rng.uniform(20.0, 150.0),
            noise=rng.uniform(14.0, 60.0),
            sharpness=rng.uniform(0.0, 1.0),
            seed=seed,
        )

    def slice(self, x: Array, y: Array, z: float) -> CTSlice:
        """The CT slice at height z.

        Args:
            x: Positions of the columns, evenly spaced, mm.
            y: Positions of the rows, as far apart as the columns, mm.
            z: Height, mm; see :mod:`nnunet_covid.demo.anatomy` for the axes.
        """
        pixel = float(x[1] - x[0])
        bx, by = self.anatomy.bent(x[None, :], y[:, None], z)
        canvas = np.full((len(y), len(x)), hu.AIR)
        grain = self.marbling(x[None, :], y[:, None], z)
        self._paint_chest_wall(canvas, bx, by, z, pixel, grain)
        self._paint_mediastinum(canvas, bx, by, z, pixel, grain)
        labels, lungs = self._paint_lungs(canvas, x, y, bx, by, z, pixel)
        wind_pipe = self.anatomy.trachea(bx, by, z)
        paint(canvas, coverage(wind_pipe - 1.4, pixel), hu.MUSCLE)
        paint(canvas, coverage(wind_pipe, pixel), hu.AIR)
        labels[wind_pipe < 1.4] = BACKGROUND
        lungs[wind_pipe < 1.4] = 0
        labels[lungs == 0] = BACKGROUND
        canvas = gaussian_filter(canvas, (0.62 - 0.25 * self.sharpness) * max(1.0, 1.0 / pixel))
        rng = np.random.default_rng([self.seed, 0x5C, round((z + 1e4) * 100.0)])
        canvas += scanner_noise(rng, canvas.shape, self.noise, self.sharpness)
        return CTSlice(np.maximum(canvas, -1024.0).astype(np.float32), labels, lungs)

    def _paint_chest_wall(self, canvas: Array, x: Array, y: Array, z: float, pixel: float, grain: Array) -> None:
        anatomy = self.anatomy
        skin = anatomy.body(x, y, z)
        wall = anatomy.inner_wall(x, y, z)
        paint(canvas, coverage(skin, pixel), hu.MUSCLE)
        paint(canvas, coverage(skin + 1.8, pixel), hu.FAT + 6.0 * grain)
        ring = np.maximum(wall - anatomy.wall, skin + anatomy.fat)
        fatty = coverage(1.3 - grain, 0.5)
        muscle = hu.MUSCLE + 8.0 * grain + fatty * (hu.FAT - hu.MUSCLE + 30.0)
        paint(canvas, coverage(ring, pixel), muscle)
        paint(canvas, coverage(np.abs(wall - 1.0) - 0.8, pixel) * 0.5, hu.FAT)
        back = anatomy.spine_y()
        gristle = coverage(y + 0.72 * anatomy.half_depth, 12.0)  # the ribs end as cartilage in front
        for bone, ossified in ((anatomy.scapulae(x, y, z), 1.0), (anatomy.ribs(x, y, z), 1.0 - gristle)):
            shell = hu.CARTILAGE + ossified * (hu.CORTICAL_BONE - hu.CARTILAGE)
            marrow = hu.CARTILAGE + ossified * (hu.TRABECULAR_BONE - hu.CARTILAGE) + 60.0 * grain * ossified
            paint(canvas, coverage(bone, pixel), shell)
            paint(canvas, coverage(bone + 1.6, pixel), marrow)
        breast_bone = ellipse(x, y, (0.0, -anatomy.half_depth - 1.0), (19.0, 5.5), power=2.6)
        paint(canvas, coverage(breast_bone, pixel), 450.0)
        paint(canvas, coverage(breast_bone + 1.8, pixel), hu.TRABECULAR_BONE - 40.0 + 60.0 * grain)
        # behind the vertebral body: arch with canal, transverse and spinous processes
        for centre, radii, angle in (
            ((0.0, back + 24.0), (15.0, 13.0), 0.0),
            ((-24.0, back + 22.0), (17.0, 5.0), -20.0),
            ((24.0, back + 22.0), (17.0, 5.0), 20.0),
            ((0.0, back + 42.0), (3.5, 14.0), 0.0),
        ):
            process = ellipse(x, y, centre, radii, angle)
            paint(canvas, coverage(process, pixel), hu.CORTICAL_BONE - 150.0)
            paint(canvas, coverage(process + 2.5, pixel), hu.TRABECULAR_BONE + 110.0 * grain)
        paint(canvas, coverage(ellipse(x, y, (0.0, back + 23.0), (9.5, 8.5)), pixel), 30.0)

    def _paint_mediastinum(self, canvas: Array, x: Array, y: Array, z: float, pixel: float, grain: Array) -> None:
        anatomy = self.anatomy
        inside = coverage(anatomy.inner_wall(x, y, z) + 1.0, pixel)
        paint(canvas, inside, hu.FAT + 50.0 + 10.0 * grain)
        for organ in anatomy.vessels_and_heart(x, y, z).values():
            paint(canvas, coverage(organ, 2.0 * pixel), hu.BLOOD + 3.0 * grain)
        paint(canvas, coverage(ellipse(x, y, (6.0, anatomy.spine_y() - 26.0), (8.0, 6.0)), pixel), hu.MUSCLE - 15.0)
        for name, organ in anatomy.diaphragm(x, y, z).items():
            density = hu.LIVER if name == "liver" else hu.MUSCLE - 5.0
            paint(canvas, inside * coverage(organ, 2.0 * pixel), density)
        vertebra = anatomy.vertebra(x, y)
        trabeculae = hu.TRABECULAR_BONE + 70.0 * grain
        paint(canvas, coverage(vertebra, pixel), hu.CORTICAL_BONE - 100.0)
        paint(canvas, coverage(vertebra + 1.8, pixel), trabeculae)

    def _paint_lungs(
        self, canvas: Array, x: Array, y: Array, bx: Array, by: Array, z: float, pixel: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        anatomy = self.anatomy
        right, left = anatomy.lungs(bx, by, z)
        surface = np.minimum(right, left)
        inside = coverage(surface, pixel)
        depth = np.maximum(-surface, 0.0)
        wall = -anatomy.inner_wall(bx, by, z)
        gx, gy = x[None, :], y[:, None]

        back = np.clip(gy / anatomy.half_depth, -1.0, 1.0)
        tissue = hu.LUNG + 18.0 * self.texture(gx, gy, z) + 28.0 * back
        lying = np.exp(-depth / 7.0) * np.clip((gy - 0.45 * anatomy.half_depth) / 25.0, 0.0, 1.0)
        tissue = tissue + self.dependent * lying
        bend = 9.0 * self.fissure(gx, gy, z)
        fissure = gy + bend - anatomy.half_depth * (0.95 - 1.75 * (z / anatomy.height - 0.2))
        tissue = tissue + 90.0 * np.exp(-((fissure / 1.1) ** 2))

        haze, core = np.zeros_like(canvas), np.zeros_like(canvas)
        for lesion in self.lesions:
            if abs(z - lesion.centre[2]) > 2.6 * lesion.size:
                continue
            own = coverage(left if lesion.centre[0] > 0.0 else right, pixel)  # no lesion crosses the mediastinum
            level = lesion.level(gx, gy, z, wall)
            opacity = own * lesion.ground_glass(level)
            paint(tissue, opacity, np.maximum(tissue, lesion.haze_at(gx, gy, z)))
            dense = own * lesion.consolidation(gx, gy, z, level)
            paint(tissue, dense, lesion.density)
            haze, core = np.maximum(haze, opacity), np.maximum(core, dense)

        tubes = self.arteries.share(x, y, z)
        paint(tissue, tubes, np.maximum(tissue, hu.BLOOD))
        paint(tissue, self.airways.share(x, y, z, 1.0, 0.9), np.maximum(tissue, -120.0))
        paint(tissue, self.airways.share(x, y, z, 1.0, 0.0), hu.AIR + 30.0)
        paint(canvas, inside, tissue)

        lungs = np.select([right < 0.0, left < 0.0], [RIGHT_LUNG, LEFT_LUNG], 0).astype(np.uint8)
        labels = np.select([core > 0.5, haze > 0.5], [CONSOLIDATION, GROUND_GLASS], BACKGROUND)
        return np.where(lungs > 0, labels, BACKGROUND).astype(np.uint8), lungs


def _points_in_lungs(
    rng: np.random.Generator, anatomy: Anatomy, levels: int = 45, per_level: int = 340
) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Random points in the lungs, their distance from the chest wall, and whether they lie in the left one."""
    points, depths = [], []
    for z in np.linspace(0.03, 0.97, levels) * anatomy.height:
        x = rng.uniform(-anatomy.half_width, anatomy.half_width, per_level)
        y = rng.uniform(-anatomy.half_depth, anatomy.half_depth, per_level) + 4.0
        bent = anatomy.bent(x, y, z)
        keep = np.minimum(*anatomy.lungs(*bent, z)) < -1.5
        heights = rng.uniform(z - 2.4, z + 2.4, int(keep.sum()))
        points.append(np.column_stack([x[keep], y[keep], heights]))
        depths.append(-anatomy.inner_wall(*bent, z)[keep])
    found = np.concatenate(points)
    return found, np.concatenate(depths), found[:, 0] > 0.0
