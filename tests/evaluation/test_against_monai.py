"""HD95 and NSD equal MONAI's, on ordinary and on degenerate masks."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from nnunet_covid.evaluation.surface_distance import surface_distances

monai_metrics = pytest.importorskip("monai.metrics", reason="needs monai (extra 'test')")
torch = pytest.importorskip("torch")

TOLERANCE = 1e-6  # MONAI returns 32-bit floats


def monai_figures(prediction, reference, spacing, tolerance):
    """HD95 and NSD by MONAI."""
    batch = [torch.from_numpy(m[None, None].astype(np.float32)) for m in (prediction, reference)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about empty masks
        hd95 = monai_metrics.compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=spacing)
        nsd = monai_metrics.compute_surface_dice(*batch, [tolerance], include_background=True, spacing=spacing)
    return float(hd95), float(nsd)


def ordinary(shape, seed):
    """Two overlapping random blobs."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    other = field + 0.5 * ndimage.gaussian_filter(rng.normal(size=shape), 1.5)
    return other > field.std(), field > field.std()


def degenerate(shape):
    """Pairs of masks by name: full, single voxels, touching the border, far apart, noise."""
    ndim = len(shape)
    full, pixel, corner, slab, noise = (np.zeros(shape, dtype=bool) for _ in range(5))
    full[:] = True
    pixel[tuple(n // 2 for n in shape)] = True
    corner[(-1,) * ndim] = True
    slab[:2] = True
    noise[:] = np.random.default_rng(5).random(shape) < 0.5
    return {
        "full and full": (full, full),
        "full and pixel": (full, pixel),
        "pixel and corner": (pixel, corner),
        "corner and corner": (corner, corner),
        "slab and full": (slab, full),
        "slab and pixel": (slab, pixel),
        "noise and slab": (noise, slab),
        "noise and its inverse": (noise, ~noise),
    }


GEOMETRIES = [
    ((17, 23), (1.0, 1.0)),
    ((17, 23), (0.7, 2.5)),
    ((9, 12, 15), (1.0, 1.0, 1.0)),
    ((9, 12, 15), (5.0, 0.8, 0.7)),
]


@pytest.mark.parametrize(("shape", "spacing"), GEOMETRIES)
@pytest.mark.parametrize("seed", range(4))
def test_equal_on_random_masks(shape, spacing, seed):
    prediction, reference = ordinary(shape, seed)
    assert prediction.any()
    assert reference.any()
    distances = surface_distances(prediction, reference, spacing)
    expected = monai_figures(prediction, reference, spacing, 1.7)
    assert (distances.hd95(), distances.nsd(1.7)) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize(("shape", "spacing"), GEOMETRIES)
@pytest.mark.parametrize("name", degenerate((2, 2)))
def test_equal_on_degenerate_masks(shape, spacing, name):
    prediction, reference = degenerate(shape)[name]
    distances = surface_distances(prediction, reference, spacing)
    expected = monai_figures(prediction, reference, spacing, 1.7)
    assert (distances.hd95(), distances.nsd(1.7)) == pytest.approx(expected, rel=TOLERANCE, abs=TOLERANCE)


def test_empty_masks_differ_only_where_our_policy_says_so():
    nothing, something = np.zeros((6, 6), dtype=bool), np.eye(6, dtype=bool)
    # One empty: MONAI knows no distance; both give an NSD of 0.
    hd95, nsd = monai_figures(nothing, something, (1.0, 1.0), 1.0)
    assert not np.isfinite(hd95)
    assert nsd == surface_distances(nothing, something, (1.0, 1.0)).nsd(1.0) == 0.0
    # Both empty: MONAI has no figure at all, the policy calls it perfect.
    assert not np.isfinite(monai_figures(nothing, nothing, (1.0, 1.0), 1.0)).any()
    assert surface_distances(nothing, nothing, (1.0, 1.0)).nsd(1.0) == 1.0
