import numpy as np
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, label
from tiny_covid_semiseg import square_slice

from nnunet_covid.demo.chest import BONES, CONSOLIDATION, GROUND_GLASS, LEFT_LUNG, RIGHT_LUNG, Chest, Noise
from nnunet_covid.demo.synthetic import (
    LEVELS,
    MINIMUM_INFECTION,
    grid,
    infected_level,
    synthetic_slice,
    synthetic_volume,
)

SEEDS = range(12)


@pytest.fixture(scope="module")
def slices():
    return [synthetic_slice(seed, pixel=1.6) for seed in SEEDS]


@pytest.fixture(scope="module")
def whole():
    """The middle of a chest without disease, the table's air around it."""
    chest = Chest(4)
    chest.lesions = []
    x, y = grid(250, 1.6), grid(190, 1.6, 8.0)
    return chest, x, y, chest.slice(x, y, 0.5 * chest.height)


def test_same_seed_gives_the_same_slice():
    first, second = (synthetic_slice(7, pixel=2.0) for _ in range(2))
    assert np.array_equal(first.hounsfield, second.hounsfield)
    assert np.array_equal(first.labels, second.labels)


def test_different_seeds_give_different_people(slices):
    assert len({s.hounsfield.shape for s in slices}) > len(slices) // 2
    areas = [int((s.lungs > 0).sum()) for s in slices]
    assert len(set(areas)) == len(areas)


def test_lesions_lie_in_the_lungs(slices):
    for s in slices:
        assert not (s.labels[s.lungs == 0] > 0).any()


def test_every_slice_shows_an_infection_and_leaves_healthy_lung(slices):
    parts = [s.infection.sum() / (s.lungs > 0).sum() for s in slices]
    assert min(parts) > 0.5 * MINIMUM_INFECTION
    assert max(parts) < 0.95
    assert np.median(parts) < 0.4


def test_both_classes_and_both_lungs_occur(slices):
    present = set().union(*(np.unique(s.labels).tolist() for s in slices))
    assert present == {0, GROUND_GLASS, CONSOLIDATION}
    assert all({RIGHT_LUNG, LEFT_LUNG} <= set(np.unique(s.lungs).tolist()) for s in slices)


def test_lungs_are_large_pieces_on_their_sides(slices):
    for s in slices:
        for side in (RIGHT_LUNG, LEFT_LUNG):
            sizes = np.sort(np.bincount(label(s.lungs == side)[0].ravel())[1:])
            assert sizes[-2:].sum() > 0.95 * sizes.sum()  # the heart or the diaphragm may cut a lung in two
            assert sizes[-1] > 0.5 * sizes.sum()
        columns = np.arange(s.lungs.shape[1])
        middle = [np.average(columns, weights=(s.lungs == side).sum(axis=0)) for side in (RIGHT_LUNG, LEFT_LUNG)]
        assert middle[0] < middle[1]  # the patient's right is on the left of the picture


def test_healthy_lung_ground_glass_and_consolidation_differ_in_density(slices):
    def pooled(choose):
        return np.concatenate([s.hounsfield[binary_erosion(choose(s), iterations=2)] for s in slices])

    healthy = np.median(pooled(lambda s: (s.lungs > 0) & (s.labels == 0)))
    haze = np.median(pooled(lambda s: s.labels == GROUND_GLASS))
    dense = np.median(pooled(lambda s: s.labels == CONSOLIDATION))
    assert -900.0 < healthy < -800.0
    assert -750.0 < haze < -420.0
    assert -250.0 < dense < 60.0


def test_every_large_lesion_is_denser_than_the_lung_around_it(slices):
    for s in slices:
        pieces, number = label(s.labels > 0)
        for i in range(1, number + 1):
            lesion = pieces == i
            if lesion.sum() < 150:
                continue
            around = binary_dilation(lesion, iterations=6) & (s.lungs > 0) & (s.labels == 0)
            assert np.median(s.hounsfield[lesion]) > np.median(s.hounsfield[around]) + 60.0


def test_density_alone_does_not_find_the_infection(slices):
    """Vessels, bronchial walls and dependent haze are as dense: a threshold must not solve the task."""
    best = 0.0
    for threshold in range(-800, -200, 50):
        dice = []
        for s in slices:
            found = (s.hounsfield > threshold) & (s.lungs > 0)
            dice.append(2.0 * (found & (s.labels > 0)).sum() / max(found.sum() + (s.labels > 0).sum(), 1))
        best = max(best, float(np.mean(dice)))
    assert best < 0.9


def test_tissues_have_their_densities(whole):
    chest, x, y, scan = whole
    values, shapes = scan.hounsfield, chest.shapes(x[None, :], y[:, None], 0.5 * chest.height)
    fat = (shapes["skin"] < -4.0) & (shapes["wall"] > chest.wall + 4.0) & (np.abs(x) > 60.0)
    for bone in BONES:
        fat &= shapes[bone] > 4.0
    assert np.mean(values[shapes["descending aorta"] < -4.0]) == pytest.approx(42.0, abs=15.0)
    assert np.median(values[fat]) == pytest.approx(-100.0, abs=15.0)
    assert np.median(values[shapes["skin"] > 6.0]) == pytest.approx(-1000.0, abs=25.0)
    assert np.median(values[shapes["airway"] < -3.0]) == pytest.approx(-1000.0, abs=25.0)
    assert np.percentile(values[shapes["vertebra"] < 0.0], 90) > 250.0


def test_organs_lie_where_they_should(whole):
    chest, x, y, _ = whole
    shapes = chest.shapes(x[None, :], y[:, None], 0.5 * chest.height)
    for name in ("heart", "descending aorta", "vertebra", "right lung", "left lung", "airway"):
        assert (shapes[name] < 0.0).any()
        assert (shapes["wall"][shapes[name] < 0.0] < 25.0).all(), "within the ribs, or the spine that bulges from them"
    lungs = np.minimum(shapes["right lung"], shapes["left lung"]) < -1.0
    for name in ("heart", "descending aorta", "vertebra"):
        assert not (lungs & (shapes[name] < 0.0)).any()


def test_lungs_hold_vessels_and_a_gradient_to_the_back(whole):
    _, _, y, scan = whole
    core = binary_erosion(scan.lungs > 0, iterations=4)
    assert 0.005 < (scan.hounsfield[core] > -500.0).mean() < 0.2
    front, back = core & (y[:, None] < -20.0), core & (y[:, None] > 30.0)
    assert np.median(scan.hounsfield[back]) > np.median(scan.hounsfield[front]) + 10.0


def test_vessels_are_thicker_and_denser_towards_the_hila(whole):
    _, x, y, scan = whole
    core = binary_erosion(scan.lungs > 0, iterations=4)
    way = np.hypot(np.abs(x[None, :]) - 38.0, y[:, None] - 14.0)
    near, far = (core & (way > low) & (way < low + 25.0) for low in (15.0, 65.0))
    assert (scan.hounsfield[near] > -500.0).mean() > 1.5 * (scan.hounsfield[far] > -500.0).mean() > 0.0


def test_a_chest_without_lesions_has_no_labels(whole):
    assert whole[3].labels.max() == 0


def test_shape_of_the_lungs_changes_with_height():
    chest = Chest(2)
    x, y = grid(90, 4.0), grid(70, 4.0, 8.0)
    areas = [int((chest.slice(x, y, u * chest.height).lungs > 0).sum()) for u in (0.03, 0.2, 0.5, 0.95)]
    assert areas[0] < areas[1] < areas[2]
    assert areas[3] < areas[2]


def test_neighbouring_slices_belong_together():
    chest = Chest(5)
    z = infected_level(chest)
    x, y = grid(100, 3.0), grid(80, 3.0, 8.0)
    here, near, far = (chest.slice(x, y, z + dz).labels > 0 for dz in (0.0, 1.0, 60.0))

    def dice(a, b):
        return 2.0 * (a & b).sum() / (a.sum() + b.sum())

    assert dice(here, near) > 0.85
    assert dice(here, near) > dice(here, far) + 0.2


def test_single_slices_come_from_the_heights_they_should():
    for seed in SEEDS:
        chest = Chest(seed)
        assert LEVELS[0] <= infected_level(chest) / chest.height <= LEVELS[1]


def test_square_slice_has_the_size_asked_for():
    assert square_slice(0, size=96).hounsfield.shape == (96, 96)


def test_volume_has_the_whole_lungs_in_plausible_volume():
    volume = synthetic_volume(3, size=80, thickness=10.0, pixel=4.8)
    assert volume.hounsfield.shape == volume.labels.shape == volume.lungs.shape
    assert volume.hounsfield.shape[1:] == (80, 80)
    litres = (volume.lungs > 0).sum() * 10.0 * 4.8 * 4.8 / 1e6
    assert 1.5 < litres < 6.5
    for side in (volume.lungs[:, :, 0], volume.lungs[:, :, -1], volume.lungs[:, 0], volume.lungs[:, -1]):
        assert not side.any()
    assert set(np.unique(volume.labels)) <= {0, 1, 2}
    assert (volume.labels > 0).any()


def test_noise_has_mean_0_and_variance_1_and_features_of_its_scale():
    noise, x = Noise(np.random.default_rng(2)), np.arange(0.0, 3000.0, 4.0)
    values = noise(0, 30.0, x[None, :], x[:, None], 0.0)
    assert abs(values.mean()) < 0.1
    assert values.var() == pytest.approx(1.0, abs=0.15)
    here, near, far = (noise(0, 30.0, x[None, :] + shift, np.zeros((1, 1)), 0.0).ravel() for shift in (0.0, 3.0, 300.0))
    assert np.corrcoef(here, near)[0, 1] > 0.95
    assert abs(np.corrcoef(here, far)[0, 1]) < 0.5
    assert abs(np.corrcoef(values.ravel(), noise(1, 30.0, x[None, :], x[:, None], 0.0).ravel())[0, 1]) < 0.1


def air_noise(chest):
    """What the scanner adds, in the air above the chest, and how alike neighbours are there."""
    scan = chest.slice(grid(60, 1.3, -250.0), grid(60, 1.3, -300.0), 0.5 * chest.height).hounsfield
    return scan.std(), np.corrcoef(scan[:, :-1].ravel(), scan[:, 1:].ravel())[0, 1]


def test_noise_of_the_scanner_is_smeared_by_a_soft_kernel_and_edgy_with_a_sharp_one():
    """Neighbours in real slices correlate by about -0.15 to 0.77."""
    chest = Chest(0)
    chest.scanner_noise, found = 7.0, []
    for chest.sharpness in (0.0, 0.5, 1.0):
        deviation, alike = air_noise(chest)
        assert deviation == pytest.approx(7.0, rel=0.05)
        found.append(alike)
    assert 0.5 < found[0] < 0.8
    assert 0.2 < found[1] < 0.5
    assert -0.2 < found[2] < 0.0
