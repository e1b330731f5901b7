"""Reading label maps: as nnU-Net's readers do, headers alone, and what is refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.label_files import (
    LabelFormat,
    label_format,
    present_values,
    read_geometry,
    read_labels,
)

ITK, PNG = LabelFormat(".nii.gz", "SimpleITKIO"), LabelFormat(".png", "NaturalImage2DIO")
VOLUME = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def nnunet_reader(name):
    """An instance of one of nnU-Net's readers."""
    from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES

    return next(c for c in LIST_OF_IO_CLASSES if c.__name__ == name)()


def write_nifti(path, array, spacing=(5.0, 0.8, 0.7)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin(range(-10, -10 + array.ndim))
    sitk.WriteImage(image, str(path))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_itk_files_are_read_as_nnunet_reads_them(tmp_path, ending):
    path = tmp_path / f"case{ending}"
    write_nifti(path, VOLUME)
    labels, geometry = read_labels(path, LabelFormat(ending, "SimpleITKIO"))
    expected, properties = nnunet_reader("SimpleITKIO").read_seg(str(path))
    np.testing.assert_array_equal(labels, expected[0])
    assert labels.dtype == np.uint8
    assert geometry.shape == VOLUME.shape
    assert geometry.spacing == pytest.approx(properties["spacing"])
    assert (geometry.units.length, geometry.units.size) == ("mm", "ml")
    assert geometry.origin == pytest.approx(properties["sitk_stuff"]["origin"])
    assert geometry.direction == pytest.approx(properties["sitk_stuff"]["direction"])
    assert read_geometry(path, LabelFormat(ending, "SimpleITKIO")) == geometry


def test_png_files_are_read_as_nnunet_reads_them(tmp_path):
    path = tmp_path / "case.png"
    Image.fromarray(VOLUME[0]).save(path)
    labels, geometry = read_labels(path, PNG)
    np.testing.assert_array_equal(labels, nnunet_reader("NaturalImage2DIO").read_seg(str(path))[0][0, 0])
    assert (geometry.shape, geometry.spacing) == ((3, 4), (1.0, 1.0))
    assert (geometry.units.length, geometry.units.size) == ("px", "px")
    assert (geometry.origin, geometry.direction) == ((), ())
    assert read_geometry(path, PNG) == geometry


def test_2d_itk_files_measure_areas(tmp_path):
    path = tmp_path / "case.nii.gz"
    write_nifti(path, VOLUME[0], spacing=(0.8, 0.7))
    geometry = read_geometry(path, ITK)
    assert geometry.shape == (3, 4)
    assert geometry.spacing == pytest.approx((0.8, 0.7))
    assert geometry.units.size == "mm2"


def test_other_formats_go_through_nnunets_reader(tmp_path):
    path = tmp_path / "case.tif"
    tifffile.imwrite(path, VOLUME)
    path.with_suffix(".json").write_text(json.dumps({"spacing": [5.0, 0.8, 0.7]}))
    labels, geometry = read_labels(path, LabelFormat(".tif", "Tiff3DIO"))
    np.testing.assert_array_equal(labels, VOLUME)
    assert geometry.spacing == (5.0, 0.8, 0.7)
    nifti = tmp_path / "case.nii.gz"
    write_nifti(nifti, VOLUME)
    through_nibabel, _ = read_labels(nifti, LabelFormat(".nii.gz", "NibabelIO"))
    np.testing.assert_array_equal(through_nibabel, VOLUME)


def test_whole_numbers_stored_as_floats_are_labels_and_fractions_are_not(tmp_path):
    path = tmp_path / "case.nii.gz"
    write_nifti(path, VOLUME.astype(np.float32))
    labels, _ = read_labels(path, ITK)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, VOLUME)
    write_nifti(path, VOLUME / 7)
    with pytest.raises(UserError, match="whole numbers"):
        read_labels(path, ITK)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_coloured_png_label_maps_are_refused(tmp_path, mode):
    path = tmp_path / "case.png"
    Image.fromarray(VOLUME[0]).convert(mode).save(path)
    with pytest.raises(UserError, match=r"one channel"):
        read_labels(path, PNG)


@pytest.mark.parametrize("fmt", [ITK, PNG])
@pytest.mark.parametrize("read", [read_labels, read_geometry])
def test_a_broken_file_is_named(tmp_path, fmt, read):
    path = tmp_path / f"case{fmt.ending}"
    path.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"case.*cannot be read"):
        read(path, fmt)


def test_a_file_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "case.nii.gz"
    write_nifti(path, np.random.default_rng(0).integers(0, 3, (8, 32, 32), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"case\.nii\.gz: is cut short or damaged; copy it again"):
        read_labels(path, ITK)


def test_the_format_comes_from_dataset_json_or_the_commonest_ending(tmp_path):
    assert label_format({"file_ending": ".nrrd"}, tmp_path).reader == "SimpleITKIO"
    forced = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    assert label_format(forced, tmp_path) == LabelFormat(".nii.gz", "NibabelIO")
    for name in ("a.png", "b.png", "c.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert label_format(None, tmp_path) == PNG


def test_formats_without_a_reader_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no reader for files that end in '\.jpg'"):
        label_format({"file_ending": ".jpg"}, tmp_path)
    with pytest.raises(UserError, match="holds no label map"):
        label_format(None, tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_present_values(dtype):
    labels = np.array([[0, 3], [3, 255]], dtype=dtype)
    assert present_values(labels) == {0, 3, 255}
    assert present_values(labels // 100) == {0, 2}


def values_in_file(path, fmt):
    return present_values(read_labels(path, fmt)[0])


def test_values_are_the_same_in_every_format(tmp_path):
    labels = np.array([[0, 3], [3, 200]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png")
    Image.fromarray(labels > 0).save(tmp_path / "binary.png")
    write_nifti(tmp_path / "a.nii.gz", labels, spacing=(1.0, 1.0))
    assert values_in_file(tmp_path / "a.png", PNG) == values_in_file(tmp_path / "a.nii.gz", ITK) == {0, 3, 200}
    expected = nnunet_reader("NaturalImage2DIO").read_seg(str(tmp_path / "binary.png"))[0]
    assert values_in_file(tmp_path / "binary.png", PNG) == set(np.unique(expected).tolist())
