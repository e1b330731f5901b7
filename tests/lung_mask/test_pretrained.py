"""The optional lungmask package: what we hand over, what we take back, and what is said without it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import numpy as np
import pytest

from nnunet_covid.errors import UserError
from nnunet_covid.lung_mask import pretrained, segment_lungs
from nnunet_covid.raw_dataset import Scan, UnusableFile
from nnunet_covid.raw_dataset.images import with_lungs


class StandIn:
    """Has the interface of ``lungmask.mask.LMInferer`` and remembers how it was used."""

    received: np.ndarray
    arguments: dict[str, object]
    error: Exception | None = None

    def __init__(self, **arguments: object) -> None:
        StandIn.arguments = arguments
        if StandIn.error is not None:
            raise StandIn.error

    def apply(self, volume: np.ndarray) -> np.ndarray:
        StandIn.received = volume
        result = np.zeros(volume.shape, dtype=np.uint8)
        result[:, :, : volume.shape[2] // 2] = 1
        result[:, 0] = 2
        return result


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    package, module = ModuleType("lungmask"), ModuleType("lungmask.mask")
    module.LMInferer = StandIn  # type: ignore[attr-defined]
    module.MODEL_URLS = {"R231": ("https://example.org/r231.pth", 3)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lungmask", package)
    monkeypatch.setitem(sys.modules, "lungmask.mask", module)
    monkeypatch.setattr(StandIn, "error", None)
    pretrained._inferer.cache_clear()
    return StandIn


def test_pictures_are_handed_over_in_the_packages_scale(installed: type[StandIn]) -> None:
    image = np.array([[0, 255], [51, 0]], dtype=np.uint8)
    mask = pretrained.lungs_by_network(image, is_hu=False)
    np.testing.assert_allclose(installed.received, [[[-1024, 600], [-699.2, -1024]]], atol=1e-3)
    np.testing.assert_array_equal(mask, [[True, True], [True, False]])


def test_volumes_are_handed_over_as_they_are(installed: type[StandIn], tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-1024, 1000, (3, 4, 6))
    (tmp_path / "w.pth").touch()
    found = segment_lungs(volume, is_hu=True, weights=tmp_path / "w.pth")
    np.testing.assert_array_equal(installed.received, volume)
    assert found.method == "lungmask w.pth"
    assert installed.arguments["modelpath"] == str(tmp_path / "w.pth")
    assert found.mask.shape == volume.shape


def test_auto_does_not_download(installed: type[StandIn], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    image = np.random.default_rng(0).integers(0, 256, (30, 30), dtype=np.uint8)
    assert segment_lungs(image, is_hu=False).method == "threshold (grey values)"
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints/r231.pth").touch()
    assert segment_lungs(image, is_hu=False).method == "lungmask R231"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (URLError("no route"), r"cannot download lungmask's weights .* fetch https://example.org/r231.pth elsewhere"),
        (RuntimeError("size mismatch"), "does not hold weights of lungmask's R231"),
    ],
)
def test_unusable_weights(
    installed: type[StandIn], monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    monkeypatch.setattr(StandIn, "error", error)
    with pytest.raises(UserError, match=message):
        segment_lungs(np.zeros((4, 4)), is_hu=False, method="lungmask")


def test_missing_weights(installed: type[StandIn], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"w\.pth does not exist"):
        segment_lungs(np.zeros((4, 4)), is_hu=False, weights=tmp_path / "w.pth")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lungmask", None)
    monkeypatch.setitem(sys.modules, "lungmask.mask", None)
    pretrained._inferer.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'nnunet_covid\[lungmask\]'"):
        segment_lungs(np.zeros((4, 4)), is_hu=False, method="lungmask")
    assert segment_lungs(np.zeros((4, 4)), is_hu=False).method == "threshold (grey values)"


def test_grey_values_beyond_8_bits_are_not_handed_over(installed: type[StandIn], tmp_path: Path) -> None:
    slices = np.random.default_rng(0).integers(0, 4096, (3, 40, 50))
    (tmp_path / "w.pth").touch()
    assert segment_lungs(slices, is_hu=False, weights=tmp_path / "w.pth").method == "threshold (grey values)"
    assert segment_lungs(slices // 16, is_hu=False, weights=tmp_path / "w.pth").method == "lungmask w.pth"
    with pytest.raises(UserError, match=r"has grey values up to 4\d{3}, lungmask takes .* choose the method threshold"):
        segment_lungs(slices, is_hu=False, method="lungmask")
    with pytest.raises(UnusableFile, match=r"a\.nii\.gz: has grey values up to"):
        with_lungs(Scan(image=slices), tmp_path / "a.nii.gz", method="lungmask", model="R231", weights=None)
