import json

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter
from tiny_covid_semiseg import write_tiny_covid_semiseg

from nnunet_covid.dataset_conversion import recipe_named
from nnunet_covid.demo.covid_semiseg import COLOURS, write_covid_semiseg, write_nifti
from nnunet_covid.demo.synthetic import synthetic_volume
from nnunet_covid.raw_dataset import convert_dataset

TRAINING = "TrainingSet/LungInfection-Train"
TEST = "TestingSet/LungInfection-Test"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_covid_semiseg(tmp_path_factory.mktemp("tiny"))


def read(path):
    return np.asarray(Image.open(path))


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_folders_and_names_are_those_of_the_download(tiny):
    assert names(tiny / TRAINING / "Doctor-label" / "Imgs") == [f"{i}.jpg" for i in range(1, 9)]
    for folder in ("GT", "Edge"):
        assert names(tiny / TRAINING / "Doctor-label" / folder) == [f"{i}.png" for i in range(1, 9)]
    assert names(tiny / TRAINING / "Pseudo-label" / "Imgs") == [
        "Data-1_synthetic_001_30.jpg",
        "Data-1_synthetic_001_45.jpg",
    ]
    assert names(tiny / TEST / "Imgs") == ["10.jpg", "9.jpg"]
    assert names(tiny / TEST / "GT") == ["10.png", "9.png"]
    for part, count in (("TrainingSet/MultiClassInfection-Train", 8), ("TestingSet/MultiClassInfection-Test", 2)):
        assert {f: len(names(tiny / part / f)) for f in ("Imgs", "GT", "Prior")} == dict.fromkeys(
            ("Imgs", "GT", "Prior"), count
        )


def test_a_notice_says_that_nothing_here_is_a_patient(tiny):
    assert "synthetic" in (tiny / "README.txt").read_text()


def test_slices_are_grey_and_8_bit_with_binary_masks_of_their_size(tiny):
    for i in range(1, 9):
        folder = tiny / TRAINING / "Doctor-label"
        image, mask = read(folder / "Imgs" / f"{i}.jpg"), read(folder / "GT" / f"{i}.png")
        assert image.shape == mask.shape == (96, 96)
        assert image.dtype == mask.dtype == np.uint8
        assert np.unique(mask).tolist() == [0, 255]


def test_every_way_of_writing_the_reference_says_the_same(tiny):
    for i in range(1, 9):
        binary = read(tiny / TRAINING / "Doctor-label" / "GT" / f"{i}.png")
        edge = read(tiny / TRAINING / "Doctor-label" / "Edge" / f"{i}.png")
        colours = read(tiny / "TrainingSet/MultiClassInfection-Train/GT" / f"{i}.png")
        assert np.array_equal(colours.sum(axis=-1) > 0, binary > 0)
        assert np.array_equal(edge, maximum_filter(binary, size=3) - minimum_filter(binary, size=3))


def test_same_seed_writes_the_same_files_and_another_seed_other_ones(tmp_path):
    one, two, other = (
        write_tiny_covid_semiseg(tmp_path / name, training=1, test=1, unlabelled=0, seed=seed)
        for name, seed in (("one", 5), ("two", 5), ("other", 6))
    )
    picture = f"{TRAINING}/Doctor-label/Imgs/1.jpg"
    assert (one / picture).read_bytes() == (two / picture).read_bytes()
    assert (one / picture).read_bytes() != (other / picture).read_bytes()


def test_demo_slices_vary_in_size(tmp_path):
    write_covid_semiseg(tmp_path, training=4, test=1, unlabelled=0, pixel=2.6)
    sizes = {read(p).shape for p in (tmp_path / TRAINING / "Doctor-label" / "Imgs").iterdir()}
    assert len(sizes) > 1


def test_colours_are_those_of_the_published_references():
    assert COLOURS.tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]


def test_volume_survives_the_way_through_nifti(tmp_path):
    volume = synthetic_volume(1, size=48, thickness=20.0, pixel=8.0)
    ct, seg, lungs = write_nifti(tmp_path / "volumes", "case_001", volume)
    assert [p.name for p in (ct, seg, lungs)] == [f"case_001_{s}.nii.gz" for s in ("ct", "seg", "lungs")]
    image = sitk.ReadImage(str(ct))
    assert image.GetSpacing() == (8.0, 8.0, 20.0)
    np.testing.assert_allclose(sitk.GetArrayFromImage(image)[::-1], volume.hounsfield, atol=0.5)
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(seg)))[::-1], volume.labels)
    assert sitk.ReadImage(str(lungs)).GetSize() == image.GetSize()


@pytest.mark.parametrize(("name", "labels"), [("covid-semiseg", 2), ("502", 3)])
def test_converter_takes_the_synthetic_download(tiny, tmp_path, name, labels):
    folder = convert_dataset(recipe_named(name), tiny, output=tmp_path, tell=lambda _: None)
    description = json.loads((folder / "dataset.json").read_text())
    assert description["numTraining"] == 8
    assert len(description["labels"]) == labels
    assert len(list((folder / "labelsTs").iterdir())) == 2
