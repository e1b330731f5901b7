"""Which names belong together, which are those of masks, and what they become as cases."""

from __future__ import annotations

import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_files import blob, grey, write_picture

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.names import case_stems, fault_of, masks_among, padded, pairing
from nnunet_covid.raw_dataset.source import UnusableFile, natural_key


@pytest.mark.parametrize(
    ("stem", "case"),
    [
        ("Case 7 (axial)", "Case_007_axial"),
        ("Müller", "Muller"),
        (unicodedata.normalize("NFD", "Müller"), "Muller"),
        ("１２", "012"),
        ("КТ 7", "_007-z0d2c"),
        ("a__b..", "a_b"),
        ("..hidden", "hidden"),
        ("-_-", "-_-"),
        ("💥", ""),
    ],
)
def test_case_names(stem: str, case: str) -> None:
    assert padded(stem) == case


@given(st.text(st.characters(categories=("Lo",), min_codepoint=0x370), min_size=1, max_size=12).filter(str.isalpha))
def test_names_of_other_scripts_are_ascii_and_tell_the_letters(letters: str) -> None:
    name = padded(letters)
    assert name.isascii()
    assert fault_of(name) is None
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFKD", letters))
    if not plain.isascii():
        assert name.encode().decode("punycode") == plain


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("c1", "c1.seg"),
        ("c1", "c1-label"),
        ("c1", "c1Mask"),
        ("c1", "c1mask"),
        ("c1", "c1_ROI"),
        ("c1", "mask_c1"),
        ("c1", "c1 ground truth"),
        ("c1_ct", "c1_ct_seg"),
        ("c1_0000", "c1_label"),
        ("volume-1", "segmentation-1"),
        ("img12", "mask12"),
        ("IMG_0012", "Label_0012"),
        ("slice_0000", "slice_0000_mask"),
        ("Case 1", "case_1_mask"),
        ("1", "001_mask"),
        ("image", "mask"),
        (unicodedata.normalize("NFD", "Mü"), "MÜ_mask"),
        ("患者甲", "患者甲_mask"),
    ],
)
def test_a_mask_beside_its_image(image: str, mask: str) -> None:
    others = {"z5", "z6"}
    assert masks_among({image, mask, *others}) == {mask}
    assert pairing({image, *others}, {mask}).image_of == {mask: image}


def test_images_that_only_sound_like_masks() -> None:
    images = {"unmask", "Segovia1", "labelled_3", "lesion_1", "lesion_2", "infection4", "p1_roi", "lung"}
    assert masks_among(images) == set()


def test_the_literal_name_comes_first_and_what_is_ambiguous_is_left() -> None:
    assert pairing(["a1", "A1"], ["A1_mask", "a1_mask"]).image_of == {"A1_mask": "A1", "a1_mask": "a1"}
    assert pairing(["ct_1", "scan_1"], ["1_mask"]).image_of == {}


def test_marks_of_images_leave_the_name_unless_they_are_part_of_it() -> None:
    slices = ["slice_0000", "slice_0001"]
    assert case_stems(slices, [pairing(slices, ["slice_0000_mask", "slice_0001_mask"])]) == {s: s for s in slices}
    assert case_stems(slices, [pairing(slices, ["slice_0001_mask"])]) == {s: s for s in slices}
    channels = ["a_0000", "b_0000"]
    assert case_stems(channels, [pairing(channels, ["a"])]) == {"a_0000": "a", "b_0000": "b"}
    assert case_stems(channels, []) == {"a_0000": "a", "b_0000": "b"}
    assert case_stems([*channels, "c"], []) == {name: name for name in [*channels, "c"]}


def test_the_two_forms_of_an_accent_are_one_name_in_files_and_in_tables(tmp_path: Path) -> None:
    for form, folder, value in (("NFC", "images", None), ("NFD", "masks", 255)):
        for name in ("Müller", "Möller"):
            array = grey((20, 30), 0) if value is None else blob((20, 30), 0, value)
            write_picture(tmp_path / "source" / folder / f"{unicodedata.normalize(form, name)}.png", array)
    table = "file,case\n" + "".join(f"{unicodedata.normalize('NFD', name)}.png,p\n" for name in ("Müller", "Möller"))
    (tmp_path / "patients.csv").write_text(table, encoding="utf-8")
    command = ["convert", "folder", str(tmp_path / "source"), "-o", str(tmp_path / "raw"), "--workers", "1"]
    assert main([*command, "--patients", str(tmp_path / "patients.csv")]) == 0
    made = sorted(path.name for path in (tmp_path / "raw").glob("*/labelsTr/*"))
    assert made == ["Moller.png", "Muller.png"]


@given(st.lists(st.text(max_size=8), max_size=5))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    assert len(sorted([*names, "1²1", "12", "1"], key=natural_key)) == len(names) + 3


def test_an_unusable_file_is_a_users_error_that_travels_between_processes() -> None:
    error = UnusableFile(Path("a/b.nii"), "is empty; copy it again")
    assert isinstance(error, UserError)
    found = pickle.loads(pickle.dumps(error))
    assert (str(found), found.path, found.reason) == (str(error), error.path, error.reason)
    assert str(error) == f"{Path('a/b.nii')}: is empty; copy it again"
