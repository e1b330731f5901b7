"""Reading label maps: as nnU-Net's readers do, headers alone, and what is refused."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from PIL import Image, PngImagePlugin

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.label_files import (
    COMMON_READERS,
    LabelFormat,
    label_format,
    read_grey_png,
    read_labels,
    readers_by_ending,
)
from nnunet_covid.evaluation.metrics import Units
from nnunet_covid.geometry import Geometry
from nnunet_covid.label_maps import distinct_values

ITK, PNG = LabelFormat(".nii.gz", "SimpleITKIO"), LabelFormat(".png", "NaturalImage2DIO")
VOLUME = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
PAGES = np.arange(210, dtype=np.uint8).reshape(5, 6, 7)


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
    assert labels.shape == VOLUME.shape
    assert geometry.spacing[::-1] == pytest.approx(properties["spacing"])
    assert geometry.origin == pytest.approx(properties["sitk_stuff"]["origin"])
    assert geometry.direction == pytest.approx(properties["sitk_stuff"]["direction"])


def test_png_files_are_read_as_nnunet_reads_them(tmp_path):
    path = tmp_path / "case.png"
    Image.fromarray(VOLUME[0]).save(path)
    labels, geometry = read_labels(path, PNG)
    np.testing.assert_array_equal(labels, nnunet_reader("NaturalImage2DIO").read_seg(str(path))[0][0, 0])
    assert geometry is None
    assert Units.of(geometry, 2) == Units("px", "px")


def test_2d_itk_files_measure_areas(tmp_path):
    path = tmp_path / "case.nii.gz"
    write_nifti(path, VOLUME[0], spacing=(0.8, 0.7))
    labels, geometry = read_labels(path, ITK)
    assert labels.shape == (3, 4)
    assert geometry.spacing == pytest.approx((0.7, 0.8))
    assert (Units.of(geometry, 2), Units.of(geometry, 3)) == (Units("mm", "mm2"), Units("mm", "ml"))


def test_other_formats_go_through_nnunets_reader(tmp_path):
    path = tmp_path / "case.tif"
    tifffile.imwrite(path, VOLUME)
    path.with_suffix(".json").write_text(json.dumps({"spacing": [5.0, 0.8, 0.7]}))
    labels, geometry = read_labels(path, LabelFormat(".tif", "Tiff3DIO"))
    np.testing.assert_array_equal(labels, VOLUME)
    assert geometry == Geometry((0.7, 0.8, 5.0))
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
def test_a_broken_file_is_named(tmp_path, fmt):
    path = tmp_path / f"case{fmt.ending}"
    path.write_bytes(b"not an image")
    with pytest.raises(UserError, match=r"case.*cannot be read"):
        read_labels(path, fmt)


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


@pytest.mark.parametrize("array", [PAGES, PAGES[0]], ids=["volume", "slice"])
def test_of_the_readers_of_tif_nnunets_own_choice_is_taken(tmp_path, array):
    """Of a volume the reader of pictures would take the first page alone."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_file_ending

    path = tmp_path / "case.tif"
    tifffile.imwrite(path, array)
    fmt = label_format({"file_ending": ".tif"}, tmp_path)
    assert fmt.reader == determine_reader_writer_from_file_ending(".tif", str(path)).__name__
    assert np.array_equal(read_labels(path, fmt)[0], array)


def test_a_picture_of_several_pages_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "case.tif", PAGES)
    with pytest.raises(UserError, match=r"case\.tif: holds 5 pages"):
        read_labels(tmp_path / "case.tif", LabelFormat(".tif", "NaturalImage2DIO"))


@pytest.mark.parametrize("reader", ["SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_readers_that_turn_a_volume_are_nnunets_own(tmp_path, reader):
    """What is compared with them, such as probability maps, is turned too."""
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

    path = tmp_path / "case.nii.gz"
    write_nifti(path, VOLUME)
    fmt = label_format({"file_ending": ".nii.gz", "overwrite_image_reader_writer": reader}, tmp_path)
    labels, _ = read_labels(path, fmt)
    assert np.array_equal(labels, recursive_find_reader_writer_by_name(reader)().read_seg(str(path))[0][0])
    assert not np.array_equal(labels, VOLUME)


def test_formats_without_a_reader_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no reader for files that end in '\.jpg'"):
        label_format({"file_ending": ".jpg"}, tmp_path)
    with pytest.raises(UserError, match="holds no label map"):
        label_format(None, tmp_path)


def values_in_file(path, fmt):
    return set(distinct_values(read_labels(path, fmt)[0]))


def test_values_are_the_same_in_every_format(tmp_path):
    labels = np.array([[0, 3], [3, 200]], dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png")
    Image.fromarray(labels > 0).save(tmp_path / "binary.png")
    write_nifti(tmp_path / "a.nii.gz", labels, spacing=(1.0, 1.0))
    assert values_in_file(tmp_path / "a.png", PNG) == values_in_file(tmp_path / "a.nii.gz", ITK) == {0, 3, 200}
    expected = nnunet_reader("NaturalImage2DIO").read_seg(str(tmp_path / "binary.png"))[0]
    assert values_in_file(tmp_path / "binary.png", PNG) == set(np.unique(expected).tolist())


GREYS = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"dpi": (72, 72)}])
@pytest.mark.parametrize("image", [GREYS, GREYS // 100, np.cumsum(GREYS // 250, axis=1).astype(np.uint8)])
def test_greys_are_those_that_pillow_reads(tmp_path, image, options):
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path, **options)
    np.testing.assert_array_equal(read_grey_png(path), image)


def test_a_stored_gamma_does_not_change_the_greys(tmp_path):
    path = tmp_path / "a.png"
    chunks = PngImagePlugin.PngInfo()
    chunks.add(b"gAMA", (22727).to_bytes(4, "big"))
    Image.fromarray(GREYS).save(path, pnginfo=chunks)
    assert b"gAMA" in path.read_bytes()
    np.testing.assert_array_equal(read_grey_png(path), GREYS)


@pytest.mark.parametrize("mode", ["1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_other_kinds_are_left_to_the_caller(tmp_path, mode):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).convert(mode).save(path)
    assert read_grey_png(path) is None


def test_a_grey_declared_transparent_is_no_second_channel(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).save(path, transparency=0)
    found = read_grey_png(path)
    assert found is None or np.array_equal(found, GREYS)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_files_without_a_header_are_left_to_the_caller(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert read_grey_png(path) is None


def test_a_truncated_file_is_left_to_the_caller(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(GREYS).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert read_grey_png(path) is None


def test_the_common_readers_are_nnunets_first_choice():
    by_ending = readers_by_ending()
    assert {ending: by_ending[ending] for ending in COMMON_READERS} == COMMON_READERS
