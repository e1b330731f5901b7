"""Pictures: what they are drawn from, and that they can be drawn in every corner case."""

import numpy as np
import pytest
import SimpleITK as sitk
from folders_on_disk import Folders, write_labels
from matplotlib.colors import to_rgb
from PIL import Image

from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import evaluate_folders, plots, write_report
from nnunet_covid.evaluation.comparison import compare_evaluations, write_forest
from nnunet_covid.evaluation.plots import find_image, most_wrong_slice, read_grey_slice, worst
from nnunet_covid.figures import style
from nnunet_covid.figures.scores import limits_of_agreement
from nnunet_covid.figures.sheets import FALSE_ALARM, FOUND, MISSED, Errors

LABEL_PLOTS = {"distribution_label_maps.png", "bland_altman.png"}


@pytest.fixture(autouse=True)
def _coarse_pictures(monkeypatch):
    monkeypatch.setattr(style, "DOTS_PER_INCH", 60)


def assert_picture(path):
    """The file is a picture with something drawn on it."""
    with Image.open(path) as image:
        assert min(image.size) > 100
        assert np.asarray(image.convert("L")).std() > 5


def plots_of(source, target, **options):
    written = write_report(evaluate_folders(source.predictions, source.references, **options), target)
    pictures = [p for p in written if p.suffix == ".png"]
    for path in pictures:
        assert_picture(path)
    assert sorted(p.name for p in target.iterdir()) == sorted(p.name for p in written)  # no temporary file is left
    return {p.name for p in pictures}


def test_report_of_2d_cases(png_folders, tmp_path):
    assert plots_of(png_folders, tmp_path / "out") == LABEL_PLOTS | {"worst_cases_infection.png"}


def test_report_of_volumes_with_two_classes(nifti_folders, tmp_path):
    expected = LABEL_PLOTS | {"worst_cases_ggo.png", "worst_cases_consolidation.png"}
    assert plots_of(nifti_folders, tmp_path / "out") == expected


def test_classes_whose_names_differ_in_punctuation_have_pictures_of_their_own(nifti_folders, tmp_path):
    nifti_folders.describe({"background": 0, "ggo+": 1, "GGO -": 2})
    evaluation = evaluate_folders(nifti_folders.predictions, nifti_folders.references)
    names = [path.name for path in plots.write_plots(evaluation, tmp_path) if path.name.startswith("worst")]
    assert len({name.casefold() for name in names}) == 2
    assert names[0] == "worst_cases_ggo_.png"


def test_report_with_maps(png_folders, tmp_path):
    for case in "abc":
        foreground = np.asarray(Image.open(png_folders.predictions / f"{case}.png"))[None].astype(np.float32)
        np.savez(png_folders.predictions / f"{case}.npz", probabilities=np.stack([1 - foreground, foreground]))
    names = plots_of(png_folders, tmp_path / "out")
    assert names >= {"distribution_probability_maps.png", "distribution_toolbox.png"}


def test_report_of_one_case_without_any_foreground(png_folders, tmp_path):
    for path in [*png_folders.predictions.glob("[bc].png"), *png_folders.references.glob("[bc].png")]:
        path.unlink()
    png_folders.add("a", np.zeros((20, 30)), np.zeros((20, 30)))
    assert plots_of(png_folders, tmp_path / "out", empty_policy="nan-both") >= LABEL_PLOTS


def test_limits_of_agreement_of_an_example():
    low, mean, high = limits_of_agreement(np.array([1.0, 2, 3]))
    assert (low, mean, high) == pytest.approx((2 - 1.96, 2, 2 + 1.96))
    assert np.isnan(limits_of_agreement(np.array([1.0]))[0])


def test_the_worst_are_those_with_the_lowest_dice(png_folders):
    evaluation = evaluate_folders(png_folders.predictions, png_folders.references)
    assert [s.case for s in worst(list(evaluation.scores))[:2]] == ["c", "a"]


def test_volumes_are_shown_where_most_is_wrong():
    prediction, reference = np.zeros((2, 4, 5, 5), dtype=bool)
    prediction[1, :2], reference[2, :3], reference[3] = True, True, True
    prediction[3, :4] = True
    assert most_wrong_slice(prediction, reference) == 2
    assert most_wrong_slice(prediction[0], reference[0]) == 0


def test_the_overlay_tells_found_from_missed_and_false():
    prediction, reference = np.array([[True, False, True, False]]), np.array([[True, True, False, False]])
    picture = Errors(prediction, reference, None, 1.0, "").picture()
    for column, colour in enumerate((FOUND, MISSED, FALSE_ALARM)):
        np.testing.assert_allclose(picture[0, column], to_rgb(colour))
    on_image = Errors(prediction, reference, np.array([[1.0, 1, 1, 0.25]]), 1.0, "").picture()
    np.testing.assert_allclose(on_image[0, 0], 0.4 + 0.6 * np.array(to_rgb(FOUND)))
    np.testing.assert_allclose(on_image[0, 3], 0.25)


def test_images_are_found_by_nnunets_name_first(tmp_path):
    assert find_image(tmp_path, "a") is None
    (tmp_path / "a.jpg").touch()
    assert find_image(tmp_path, "a") == tmp_path / "a.jpg"
    (tmp_path / "a_0000.png").touch()
    assert find_image(tmp_path, "a") == tmp_path / "a_0000.png"


def test_images_are_stretched_and_must_have_the_right_shape(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.linspace(50, 150, 600).reshape(20, 30).astype(np.uint8)).save(path)
    grey = read_grey_slice(path, 0, (20, 30))
    assert (grey.min(), grey.max()) == (0, 1)
    with pytest.raises(UserError, match=r"shape \(20, 30\) differs"):
        read_grey_slice(path, 0, (20, 31))


def test_an_image_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    noise = np.random.default_rng(0).integers(0, 200, (8, 32, 32), dtype=np.uint8)
    write_labels(path, noise)
    assert read_grey_slice(path, 3, noise.shape).shape == (32, 32)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"a\.nii\.gz: is cut short or damaged; copy it again"):
        read_grey_slice(path, 3, noise.shape)


def test_the_overlays_use_the_images(png_folders, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    for case in "abc":
        Image.fromarray(noise).save(images / f"{case}_0000.png")
    evaluation = evaluate_folders(png_folders.predictions, png_folders.references)
    write_report(evaluation, tmp_path / "with", images=images)
    write_report(evaluation, tmp_path / "without")
    spread = [
        np.asarray(Image.open(tmp_path / name / "worst_cases_infection.png").convert("L")).std()
        for name in ("with", "without")
    ]
    assert spread[0] != pytest.approx(spread[1], rel=0.01)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("order", ["LPS", "ASL"])
def test_image_and_masks_lie_alike_whatever_reader_and_storage_order(tmp_path, monkeypatch, reader, order):
    folders = Folders(tmp_path / "set", {"background": 0, "infection": 1}, ".nii.gz")
    folders.describe({"background": 0, "infection": 1}, channel_names={"0": "CT"}, overwrite_image_reader_writer=reader)
    lesion = np.zeros((4, 12, 16), dtype=np.uint8)
    lesion[1, 2:5, 3:9] = 1
    smaller = lesion.copy()
    smaller[1, 2] = 0
    images = tmp_path / "images"
    images.mkdir()
    for path, array in ((folders.predictions / "a.nii.gz", smaller), (folders.references / "a.nii.gz", lesion),
                        (images / "a_0000.nii.gz", 200 * lesion)):  # fmt: skip
        stored = sitk.GetImageFromArray(array)
        sitk.WriteImage(sitk.DICOMOrient(stored, order), str(path))
    drawn = []
    monkeypatch.setattr(plots, "write_errors", lambda path, errors, title: drawn.extend(errors))
    plots.write_plots(evaluate_folders(folders.predictions, folders.references), tmp_path, images)
    (shown,) = drawn
    assert shown.reference.any()
    np.testing.assert_array_equal(shown.grey > 0.5, shown.reference)


def test_forest_plot(nifti_folders, tmp_path):
    evaluation = evaluate_folders(nifti_folders.predictions, nifti_folders.references)
    for name in ("first", "second", "third"):
        write_report(evaluation, tmp_path / name, plots=False)
    compared = compare_evaluations([tmp_path / n for n in ("first", "second", "third")])
    (path,) = write_forest(compared, tmp_path)
    assert_picture(path)
