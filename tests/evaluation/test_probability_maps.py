"""Maps on disk: nnU-Net's files, grey images, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation.labels import scheme_of_labels
from nnunet_covid.evaluation.probability_maps import check_greys, find_maps, maps_beside, read_maps

TWO = scheme_of_labels({"background": 0, "ggo": 1, "consolidation": 2})
ONE = scheme_of_labels({"background": 0, "infection": 1})


def write_npz(path, probabilities, key="probabilities"):
    np.savez_compressed(path, **{key: np.asarray(probabilities, dtype=np.float32)})


def write_grey(path, shape=(4, 5), value=51, mode="L"):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.full(shape, value, dtype=np.uint8)).convert(mode).save(path)


def test_channels_of_nnunets_files_go_to_their_classes(tmp_path):
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), size=(2, 3, 4)).transpose(3, 0, 1, 2)
    write_npz(tmp_path / "a.npz", probabilities)
    source = find_maps(tmp_path, ["a"], TWO)
    maps = read_maps(source, "a", TWO, (2, 3, 4))
    np.testing.assert_allclose(maps["ggo"], probabilities[1], rtol=1e-6)
    np.testing.assert_allclose(maps["consolidation"], probabilities[2], rtol=1e-6)


def test_the_leading_axis_of_2d_files_is_dropped(tmp_path):
    write_npz(tmp_path / "a.npz", np.full((2, 1, 3, 4), 0.5))
    source = find_maps(tmp_path, ["a"], ONE)
    assert read_maps(source, "a", ONE, (3, 4))["infection"].shape == (3, 4)


def test_maps_beside_predictions_are_found_but_none_are_needed(tmp_path):
    assert maps_beside(tmp_path, ["a", "b"], ONE) is None
    write_npz(tmp_path / "a.npz", np.zeros((2, 3, 4)))
    with pytest.raises(UserError, match=r"b\.npz missing"):
        maps_beside(tmp_path, ["a", "b"], ONE)


def test_grey_maps_of_several_classes_lie_in_folders_of_their_names(tmp_path):
    write_grey(tmp_path / "ggo" / "a.png", value=51)
    with pytest.raises(UserError, match=r"a\.png missing; need CASE\.npz or CLASS/CASE\.png"):
        find_maps(tmp_path, ["a"], TWO)
    write_grey(tmp_path / "consolidation" / "a.png", value=102)
    source = find_maps(tmp_path, ["a"], TWO)
    maps = read_maps(source, "a", TWO, (4, 5))
    assert (maps["ggo"] == 51).all()
    assert (maps["consolidation"] == 102).all()


def test_grey_maps_of_another_size_are_resized_only_if_asked(tmp_path):
    write_grey(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"4×5 differs from the label map's 8×10; have it resized") as e:
        read_maps(find_maps(tmp_path, ["a"], ONE), "a", ONE, (8, 10))
    assert e.value.about == "resize_maps"
    source = find_maps(tmp_path, ["a"], ONE, resize=True)
    assert read_maps(source, "a", ONE, (8, 10))["infection"].shape == (8, 10)


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [((3, 2, 3, 4), "holds 3 channels, but the labels call for 2"), ((2, 2, 3, 5), r"shape \(2, 3, 5\) differs")],
)
def test_channels_and_shapes_that_do_not_match_are_refused(tmp_path, shape, complaint):
    write_npz(tmp_path / "a.npz", np.zeros(shape))
    with pytest.raises(UserError, match=complaint):
        read_maps(find_maps(tmp_path, ["a"], ONE), "a", ONE, (2, 3, 4))


def test_files_that_hold_something_else_are_refused(tmp_path):
    source_folder = tmp_path / "npz"
    source_folder.mkdir()
    path = source_folder / "a.npz"
    write_npz(path, np.zeros((2, 3, 4)), key="softmax")
    with pytest.raises(UserError, match="has no array 'probabilities'"):
        read_maps(find_maps(source_folder, ["a"], ONE), "a", ONE, (3, 4))
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        read_maps(find_maps(source_folder, ["a"], ONE), "a", ONE, (3, 4))
    write_npz(path, np.full((2, 3, 4), 7.0))
    with pytest.raises(UserError, match="no probabilities"):
        read_maps(find_maps(source_folder, ["a"], ONE), "a", ONE, (3, 4))
    write_grey(tmp_path / "colour" / "a.png", mode="RGB")
    with pytest.raises(UserError, match="one channel, this one has mode RGB"):
        read_maps(find_maps(tmp_path / "colour", ["a"], ONE), "a", ONE, (4, 5))


def test_masks_of_0_and_1_are_no_maps(tmp_path):
    for case, value in {"a": 0, "b": 1, "c": 1}.items():
        write_grey(tmp_path / f"{case}.png", value=value)
    with pytest.raises(UserError, match=r"no grey map exceeds 1.*multiply them by 255, or leave the maps out"):
        check_greys(find_maps(tmp_path, ["a", "b", "c"], ONE), ["a", "b", "c"], ONE)
    write_grey(tmp_path / "c.png", value=2)
    check_greys(find_maps(tmp_path, ["a", "b", "c"], ONE), ["a", "b", "c"], ONE)


def test_a_class_that_is_never_predicted_does_not_make_its_maps_masks(tmp_path):
    write_grey(tmp_path / "ggo" / "a.png", value=1)
    write_grey(tmp_path / "consolidation" / "a.png", value=200)
    check_greys(find_maps(tmp_path, ["a"], TWO), ["a"], TWO)


def test_black_maps_are_maps(tmp_path):
    write_grey(tmp_path / "a.png", value=0)
    check_greys(find_maps(tmp_path, ["a"], ONE), ["a"], ONE)


def test_certain_probabilities_of_nnunet_are_no_masks(tmp_path):
    write_npz(tmp_path / "a.npz", np.ones((2, 3, 4)))
    check_greys(find_maps(tmp_path, ["a"], ONE), ["a"], ONE)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_maps(tmp_path / "nowhere", ["a"], ONE)
