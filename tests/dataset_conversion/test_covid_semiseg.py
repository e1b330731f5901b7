"""Data sets 501 and 502 on miniatures of the authors' download, every pixel compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import blob, grey, read_array, write_picture
from nnunetv2.utilities.crossval_split import generate_crossval_split
from PIL import Image

from nnunet_covid.dataset_conversion import Dataset501_COVIDSemiSeg, Dataset502_COVIDSemiSegMultiClass
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset import Options, convert_dataset

TRAIN = "TrainingSet/LungInfection-Train"
MULTI = "TrainingSet/MultiClassInfection-Train"
STEMS = ("0", "2", "10", "43", "67", "5")


def sizes(seed: int) -> tuple[int, int]:
    return (30 + 3 * seed, 41 - 2 * seed)


def binary_source(root: Path) -> dict[str, np.ndarray]:
    """Write the binary part; returns the pixels expected below the converted data set."""
    expected = {}
    for seed, stem in enumerate(STEMS):
        name = f"covidsemiseg_{int(stem):03d}"
        image = write_picture(root / TRAIN / f"Doctor-label/Imgs/{stem}.jpg", grey(sizes(seed), seed))
        write_picture(root / TRAIN / f"Doctor-label/GT/{stem}.png", blob(sizes(seed), seed, 255))
        write_picture(root / TRAIN / f"Doctor-label/Edge/{stem}.png", blob(sizes(seed), seed + 50, 255))
        expected[f"imagesTr/{name}_0000.png"] = image
        expected[f"labelsTr/{name}.png"] = blob(sizes(seed), seed, 1)
    for seed, stem in enumerate(("18", "99")):
        image = write_picture(root / f"TestingSet/LungInfection-Test/Imgs/{stem}.jpg", grey((25, 31), seed))
        expected[f"imagesTs/covidsemiseg_0{stem}_0000.png"] = image
    unlabelled = {
        "Data-1_coronacases_org_001_57": "coronacases_org_001_057",
        "Data-1_radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm_8": (
            "radiopaedia_org_covid-19-pneumonia-7_85703_0-dcm_008"
        ),
    }
    for seed, (stem, name) in enumerate(unlabelled.items()):
        image = write_picture(root / TRAIN / f"Pseudo-label/Imgs/{stem}.jpg", grey((20, 33), seed))
        expected[f"imagesUn/{name}_0000.png"] = image
    return expected


def pixels_below(folder: Path) -> dict[str, np.ndarray]:
    return {path.relative_to(folder).as_posix(): read_array(path) for path in sorted(folder.rglob("*.png"))}


def assert_same_pixels(folder: Path, expected: dict[str, np.ndarray]) -> None:
    found = pixels_below(folder)
    assert set(found) == set(expected)
    for name, pixels in expected.items():
        np.testing.assert_array_equal(found[name], pixels, err_msg=name)


def test_every_pixel_of_501_arrives(tmp_path: Path) -> None:
    expected = binary_source(tmp_path / "source")
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert folder.name == "Dataset501_COVIDSemiSeg"
    assert_same_pixels(folder, expected)


def test_501_describes_itself_to_nnunet(tmp_path: Path) -> None:
    binary_source(tmp_path / "source")
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    description = json.loads((folder / "dataset.json").read_text())
    assert description["channel_names"] == {"0": "grey_ct"}
    assert description["labels"] == {"background": 0, "infection": 1}
    assert description["numTraining"] == len(STEMS)
    assert description["file_ending"] == ".png"


def test_501_is_split_as_nnunet_would_split_it(tmp_path: Path) -> None:
    binary_source(tmp_path / "source")
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    names = sorted(path.stem for path in (folder / "labelsTr").iterdir())
    assert json.loads((folder / "splits_final.json").read_text()) == [
        {side: [str(name) for name in fold[side]] for side in ("train", "val")}
        for fold in generate_crossval_split(names, seed=12345, n_splits=5)
    ]


def test_manifest_names_source_and_patient(tmp_path: Path) -> None:
    binary_source(tmp_path / "source")
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    records = {record["case"]: record for record in json.loads((folder / "conversion.json").read_text())["cases"]}
    assert records["covidsemiseg_043"]["sources"]["mask"]["file"] == f"{TRAIN}/Doctor-label/GT/43.png"
    assert records["coronacases_org_001_057"]["patient"] == "coronacases_org_001"


def test_unlabelled_slices_can_be_left_out(tmp_path: Path) -> None:
    expected = binary_source(tmp_path / "source")
    folder = convert_dataset(
        Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw", options=Options(unlabelled=False)
    )
    assert_same_pixels(folder, {name: p for name, p in expected.items() if "imagesUn" not in name})


def test_test_references_are_used_where_they_exist(tmp_path: Path) -> None:
    expected = binary_source(tmp_path / "source")
    for seed, stem in enumerate(("18", "99")):
        write_picture(tmp_path / f"source/TestingSet/LungInfection-Test/GT/{stem}.png", blob((25, 31), seed + 9, 255))
        expected[f"labelsTs/covidsemiseg_0{stem}.png"] = blob((25, 31), seed + 9, 1)
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert_same_pixels(folder, expected)


def test_grey_pictures_stored_as_rgb_are_grey(tmp_path: Path) -> None:
    expected = binary_source(tmp_path / "source")
    path = tmp_path / "source" / TRAIN / "Doctor-label/Imgs/2.jpg"
    pixels = expected["imagesTr/covidsemiseg_002_0000.png"]
    path.unlink()
    write_picture(
        path.with_suffix(".png"), np.repeat(pixels[..., None], 4, axis=-1) | np.array([0, 0, 0, 255], np.uint8)
    )
    folder = convert_dataset(Dataset501_COVIDSemiSeg.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert_same_pixels(folder, expected)


def colour_source(root: Path, *, noise: int = 0) -> dict[str, np.ndarray]:
    """Write the multi-class part with masks as palette or RGB pictures; returns the expected label maps."""
    expected = {}
    generator = np.random.default_rng(0)
    for seed, stem in enumerate(STEMS):
        shape = sizes(seed)
        image = write_picture(root / MULTI / f"Imgs/{stem}.jpg", grey(shape, seed))
        label = np.maximum(blob(shape, seed, 1), blob(shape, seed + 20, 2))
        path = root / MULTI / f"GT/{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        palette = np.array([[0, 0, 0], [128, 0, 0], [0, 128, 0]], dtype=np.uint8)
        if noise:
            colours = palette[label].astype(int) + generator.integers(-noise, noise + 1, (*shape, 3))
            Image.fromarray(colours.clip(0, 255).astype(np.uint8)).save(path)
        else:
            picture = Image.fromarray(label, mode="P")
            picture.putpalette(palette.ravel().tolist())
            picture.save(path)
        expected[f"imagesTr/covidsemiseg_{int(stem):03d}_0000.png"] = image
        expected[f"labelsTr/covidsemiseg_{int(stem):03d}.png"] = label
    image = write_picture(root / "TestingSet/LungInfection-Test/Imgs/18.jpg", grey((22, 27), 77))
    write_picture(root / "TestingSet/LungInfection-Test/GT/18.png", blob((22, 27), 7, 255))
    expected["imagesTs/covidsemiseg_018_0000.png"] = image
    return expected


@pytest.mark.parametrize("noise", [0, 12])
def test_colours_become_classes(tmp_path: Path, noise: int) -> None:
    expected = colour_source(tmp_path / "source", noise=noise)
    folder = convert_dataset(Dataset502_COVIDSemiSegMultiClass.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert_same_pixels(folder, expected)
    snapped = json.loads((folder / "conversion.json").read_text())["cases"][0]["notes"]["snapped_pixels"]
    assert (snapped > 0) == (noise > 0)


def test_a_colour_between_the_classes_is_refused(tmp_path: Path) -> None:
    colour_source(tmp_path / "source")
    path = tmp_path / "source" / MULTI / "GT/43.png"
    pixels = np.array(Image.open(path).convert("RGB"))
    pixels[3, 4] = (64, 64, 0)
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=r"43\.png: 1 pixels match no colour .*\(64, 64, 0\)"):
        convert_dataset(Dataset502_COVIDSemiSegMultiClass.RECIPE, tmp_path / "source", output=tmp_path / "raw")
    assert not any((tmp_path / "raw").iterdir())


def test_classes_can_be_merged_or_nested(tmp_path: Path) -> None:
    expected = colour_source(tmp_path / "source")
    merged = convert_dataset(
        Dataset502_COVIDSemiSegMultiClass.RECIPE,
        tmp_path / "source",
        output=tmp_path / "merged",
        options=Options(classes="infection"),
    )
    assert_same_pixels(merged, {n: np.minimum(p, 1) if "labels" in n else p for n, p in expected.items()})
    nested = convert_dataset(
        Dataset502_COVIDSemiSegMultiClass.RECIPE,
        tmp_path / "source",
        output=tmp_path / "nested",
        options=Options(classes="regions"),
    )
    assert_same_pixels(nested, expected)
    description = json.loads((nested / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "infection": [1, 2], "consolidation": 2}
    assert description["regions_class_order"] == [1, 2]


@pytest.mark.real_data
def test_real_slices_arrive_unchanged(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "covid_semiseg"
    for module, part in (
        (Dataset501_COVIDSemiSeg, f"{TRAIN}/Doctor-label"),
        (Dataset502_COVIDSemiSegMultiClass, MULTI),
    ):
        folder = convert_dataset(module.RECIPE, source, output=tmp_path / "raw", options=Options(unlabelled=False))
        assert len(list((folder / "imagesTs").iterdir())) == 48
        for image in sorted((source / part / "Imgs").iterdir()):
            name = f"covidsemiseg_{int(image.stem):03d}"
            np.testing.assert_array_equal(read_array(folder / f"imagesTr/{name}_0000.png"), read_array(image))
            mask = read_array(source / part / "GT" / f"{image.stem}.png")  # a palette's indices are the classes
            expected = mask // 255 if mask.max() == 255 else mask
            np.testing.assert_array_equal(read_array(folder / f"labelsTr/{name}.png"), expected)
