"""The same patient stored in any order of the axes: the same lungs, crops and slices, once turned back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from chest_phantom import chest_volume
from image_files import checksums, read_array, write_volume
from numpy.typing import NDArray

from nnunet_covid.cli import main
from nnunet_covid.lung_mask import pretrained

ORDERS = ("LPS", "RAS", "ASL", "IPR")
SPACING = (3.0, 3.5, 12.0)
THRESHOLD = ("--lung-method", "threshold")


def chest() -> tuple[sitk.Image, sitk.Image]:
    """A chest that no turn or mirror image leaves as it is, and a lesion in it, both in LPS."""
    image, lungs = chest_volume(12, 96)
    image[3:9, 10:40, 60:66] = 200
    image[:, :, :8] = -1000
    lesion = np.zeros(lungs.shape, np.uint8)
    lesion[4:7, 40:50, 26:34] = 1
    made = [sitk.GetImageFromArray(array) for array in (image[:, :-8].astype(np.int16), lesion[:, :-8])]
    for one in made:
        one.SetSpacing(SPACING)
        one.SetOrigin((-20.0, 30.0, -40.0))
    return made[0], made[1]


def stored(folder: Path, order: str) -> Path:
    """``images`` and ``masks`` of one case in an order of the axes."""
    for name, image in zip(("images", "masks"), chest(), strict=True):
        (folder / order / name).mkdir(parents=True)
        sitk.WriteImage(sitk.DICOMOrient(image, order), str(folder / order / name / "c1.nii.gz"))
    return folder / order


def in_lps(path: Path) -> sitk.Image:
    return sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")


def same(path: Path, other: Path) -> None:
    first, second = in_lps(path), in_lps(other)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    np.testing.assert_allclose(first.GetOrigin(), second.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(first.GetSpacing(), second.GetSpacing(), rtol=1e-5)


def converted(folder: Path, order: str, *options: str) -> Path:
    source = stored(folder, order)
    arguments = ["convert", "folder", str(source), "-o", str(source / "raw"), "--workers", "1", *options]
    assert main(arguments) == 0
    return source / "raw/Dataset599_Folder"


def test_crops_and_lung_mask_channels(tmp_path: Path) -> None:
    folders = [converted(tmp_path, order, "--crop", "60", "70", "--lung-mask-channel", *THRESHOLD) for order in ORDERS]
    assert in_lps(folders[0] / "imagesTr/c001_0000.nii.gz").GetSize() == (70, 60, 12)
    assert read_array(folders[0] / "imagesTr/c001_0001.nii.gz").any()
    for folder in folders[1:]:
        for file in ("imagesTr/c001_0000.nii.gz", "imagesTr/c001_0001.nii.gz", "labelsTr/c001.nii.gz"):
            same(folder / file, folders[0] / file)


def test_slices_are_the_same_files(tmp_path: Path) -> None:
    folders = [converted(tmp_path, order, "--slices", "lesion") for order in ORDERS]
    files = [{name: digest for name, digest in checksums(folder).items() if "T" in name} for folder in folders]
    assert sorted(files[0]) == [
        f"{part}Tr/c001_{i:03d}{end}"
        for part, end in (("images", "_0000.nii.gz"), ("labels", ".nii.gz"))
        for i in (4, 5, 6)
    ]
    assert all(found == files[0] for found in files[1:])


def test_lung_masks(tmp_path: Path) -> None:
    for order in ORDERS:
        source = stored(tmp_path, order) / "images/c1.nii.gz"
        output, overlay = tmp_path / f"{order}.nii.gz", tmp_path / f"{order}_overlay"
        assert main(["lung-mask", str(source), str(output), "--method", "threshold", "--overlay", str(overlay)]) == 0
        same(output, tmp_path / "LPS.nii.gz")
        picture, first = (read_array(next((tmp_path / f"{o}_overlay").iterdir())) for o in (order, "LPS"))
        np.testing.assert_array_equal(picture, first)
    assert read_array(tmp_path / "LPS.nii.gz").any()


def test_lungmasks_network_sees_the_same_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[NDArray[Any]] = []

    def network(image: NDArray[Any], **_: Any) -> NDArray[np.bool_]:
        seen.append(image)
        mask = np.zeros(image.shape, bool)
        mask[2:5, 10:20, 30:50] = True
        return mask

    monkeypatch.setattr(pretrained, "lungs_by_network", network)
    for order in ORDERS:
        source = stored(tmp_path, order) / "images/c1.nii.gz"
        assert main(["lung-mask", str(source), str(tmp_path / f"{order}.nii.gz"), "--method", "lungmask"]) == 0
        np.testing.assert_array_equal(seen[-1], seen[0])
        same(tmp_path / f"{order}.nii.gz", tmp_path / "LPS.nii.gz")


def test_check_finds_the_same(tmp_path: Path) -> None:
    found = []
    for order in ("LPS", "ASL"):
        folder, output = converted(tmp_path, order), tmp_path / order / "found"
        assert main(["check", str(folder), "-o", str(output)]) == 1
        found.append([(output / "findings.json").read_text(), read_array(next(output.glob("*.png"))).tobytes()])
    assert found[1] == found[0]


@pytest.mark.parametrize(("axis", "order"), [(0, "LPS"), (1, "LIP"), (2, "SPL")])
def test_a_flat_volume_is_axial_by_its_direction(tmp_path: Path, axis: int, order: str) -> None:
    axial = chest()[0][:, :, 6:7]
    write = sitk.DICOMOrient(axial, order)
    assert write.GetSize()[2 - axis] == 1
    for name, image in (("LPS", axial), (order, write)):
        sitk.WriteImage(image, str(tmp_path / f"{name}.nii.gz"))
        arguments = [str(tmp_path / f"{name}.nii.gz"), str(tmp_path / f"{name}_lungs.nii.gz"), "--method", "threshold"]
        assert main(["lung-mask", *arguments]) == 0
    same(tmp_path / f"{order}_lungs.nii.gz", tmp_path / "LPS_lungs.nii.gz")
    assert read_array(tmp_path / "LPS_lungs.nii.gz").any()


def test_a_conversion_by_an_older_order_of_slices_is_not_taken_for_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = converted(tmp_path, "RAS", "--slices", "all")
    document = json.loads((folder / "conversion.json").read_text())
    del document["options"]["axial_slices"]
    (folder / "conversion.json").write_text(json.dumps(document))
    source = str(folder.parents[1])
    assert main(["convert", "folder", source, "-o", str(folder.parent), "--workers", "1", "--slices", "all"]) == 2
    assert "was converted with other options" in capsys.readouterr().err


def test_a_trailing_axis_of_length_one_is_a_volume(tmp_path: Path) -> None:
    image = chest()[0]
    array = sitk.GetArrayFromImage(image)
    four = sitk.JoinSeries([image])
    assert four.GetDimension() == 4
    (tmp_path / "in").mkdir()
    sitk.WriteImage(four, str(tmp_path / "in/a.mha"))
    write_volume(tmp_path / "masks/a.nrrd", np.zeros(array.shape, np.uint8), spacing=SPACING, origin=image.GetOrigin())
    arguments = ["--images", "in", "--masks", "masks", "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main(["convert", "folder", str(tmp_path), *arguments]) == 0
    np.testing.assert_array_equal(read_array(tmp_path / "raw/Dataset599_Folder/imagesTr/a_0000.nii.gz"), array)
