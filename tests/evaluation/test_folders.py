"""Folders of label maps: scores, processes, and every kind of bad input before anything is written."""

import ctypes
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from folders_on_disk import write_labels
from PIL import Image

from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.evaluation import evaluate_folders, folders, summarise


def evaluate(source, **options):
    return evaluate_folders(source.predictions, source.references, **options)


def by_case(evaluation, key):
    return {(s.case, s.class_name): s.values[key] for s in evaluation.scores}


def test_2d_cases_are_scored_in_pixels(png_folders):
    evaluation = evaluate(png_folders)
    assert by_case(evaluation, "dice") == pytest.approx(
        {("a", "infection"): 10 / 12, ("b", "infection"): 1, ("c", "infection"): 0}
    )
    assert by_case(evaluation, "hd95")["a", "infection"] == pytest.approx(2.0)
    assert by_case(evaluation, "hd95")["c", "infection"] == pytest.approx(np.hypot(20, 30))
    assert evaluation.units.length == "px"


def test_3d_cases_are_scored_in_millimetres(nifti_folders):
    evaluation = evaluate(nifti_folders)
    assert [(s.case, s.class_name) for s in evaluation.scores] == [
        ("case_1", "ggo"),
        ("case_1", "consolidation"),
        ("case_2", "ggo"),
        ("case_2", "consolidation"),
    ]
    assert by_case(evaluation, "reference_volume")["case_1", "consolidation"] == pytest.approx(
        24 * 5 * 0.8 * 0.7 / 1000
    )
    assert by_case(evaluation, "hd95")["case_2", "ggo"] == pytest.approx(0.8)
    assert summarise(evaluation).classes["consolidation"].empty_both == 1


def test_several_processes_give_the_same_scores_in_the_same_order(nifti_folders):
    assert evaluate(nifti_folders, processes=2).scores == evaluate(nifti_folders).scores


def test_distances_can_be_left_out(nifti_folders):
    with_distances, without = evaluate(nifti_folders), evaluate(nifti_folders, distances=False)
    expected = [{k: v for k, v in s.values.items() if k not in ("hd95", "nsd")} for s in with_distances.scores]
    assert [s.values for s in without.scores] == expected


def test_grey_maps_are_scored(png_folders):
    maps = png_folders.root / "maps"
    maps.mkdir()
    for case in "abc":
        labels = np.asarray(Image.open(png_folders.predictions / f"{case}.png"))
        Image.fromarray(labels * 204).save(maps / f"{case}.png")
    evaluation = evaluate(png_folders, maps=maps)
    assert by_case(evaluation, "map_mae")["b", "infection"] == pytest.approx(0.2 * 120 / 600)
    assert by_case(evaluation, "toolbox_mae")["b", "infection"] == 0  # stretched to 255 first
    assert "map_mae" not in evaluate(png_folders, maps=maps, use_maps=False).scores[0].values


def test_saved_probabilities_beside_the_predictions_are_scored(png_folders):
    for case in "abc":
        foreground = np.asarray(Image.open(png_folders.predictions / f"{case}.png"))[None].astype(np.float32)
        np.savez(png_folders.predictions / f"{case}.npz", probabilities=np.stack([1 - foreground, foreground]))
    evaluation = evaluate(png_folders)
    assert by_case(evaluation, "map_mae") == pytest.approx(by_case(evaluation, "label_mae"))
    assert by_case(evaluation, "s_measure")["b", "infection"] == pytest.approx(1)


@pytest.mark.parametrize("labels", [{"background": 0, "infection": 1}, {"background": 0, "a": [1, 2], "b": 2}])
def test_probabilities_of_another_prediction_are_left_out_with_a_note(png_folders, labels, capsys):
    """A rounding that turns a voxel is none."""
    png_folders.describe(labels)
    regions = "a" in labels
    for case in "abc":
        foreground = np.asarray(Image.open(png_folders.predictions / f"{case}.png"))[None] * 0.6 + 0.2
        probabilities = np.stack([foreground if regions else 1 - foreground, foreground * (0.5 if regions else 1)])
        probabilities[:, :, 5:15, 5:6] = 0.5
        np.savez(png_folders.predictions / f"{case}.npz", probabilities=probabilities)
    assert evaluate(png_folders).note == ""
    assert "map_mae" in evaluate(png_folders).scores[0].values
    np.savez(png_folders.predictions / "b.npz", probabilities=probabilities[..., ::-1, :])
    found = evaluate(png_folders)
    assert "b.npz does not belong to the label map beside it" in found.note
    assert [s.values for s in found.scores] == [s.values for s in evaluate(png_folders, use_maps=False).scores]
    assert main(["evaluate", str(png_folders.predictions), str(png_folders.references)]) == 0
    assert "note: no probability map is scored: " in capsys.readouterr().err


def test_labels_can_be_given_without_a_dataset_json(png_folders):
    (png_folders.root / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"no dataset\.json"):
        evaluate(png_folders)
    evaluation = evaluate(png_folders, labels={"background": 0, "lesion": 1})
    assert summarise(evaluation).classes["lesion"].metrics["dice"].mean == pytest.approx((10 / 12 + 1 + 0) / 3)


def break_names(source):
    (source.predictions / "a.png").rename(source.predictions / "z.png")
    return r"a missing in .*predictions; z missing in .*references"


def break_shape(source):
    write_labels(source.predictions / "c.png", np.zeros((20, 31)))
    return r"c: shape \(20, 31\) of the prediction differs from the reference's \(20, 30\)"


def break_labels(source):
    write_labels(source.predictions / "c.png", np.full((20, 30), 7))
    return r"predictions/c\.png: holds the value\(s\) 7, which the labels do not name \(known: 0, 1\)"


def break_reference_labels(source):
    write_labels(source.references / "b.png", np.full((20, 30), 255))
    return r"references/b\.png: holds the value\(s\) 255"


def break_channels(source):
    for case in "abc":
        channels = 3 if case == "c" else 2
        np.savez(source.predictions / f"{case}.npz", probabilities=np.zeros((channels, 1, 20, 30), dtype=np.float32))
    return r"c\.npz: holds 3 channels, but the labels call for 2"


def break_map_shape(source):
    for case in "abc":
        np.savez(source.predictions / f"{case}.npz", probabilities=np.zeros((2, 1, 30, 20), dtype=np.float32))
    return r"a\.npz: shape \(1, 30, 20\) differs from the label map's \(20, 30\)"


def break_maps(source):
    maps = source.root / "maps"
    maps.mkdir()
    for case in "abc":
        write_labels(maps / f"{case}.png", np.asarray(Image.open(source.predictions / f"{case}.png")))
    return r"maps: no grey map exceeds 1, so these are masks.*; multiply them by 255, or leave the maps out"


def break_file(source):
    (source.references / "c.png").write_bytes(b"")
    return r"references/c\.png: cannot be read"


def break_ending(source):
    source.describe({"background": 0, "infection": 1})
    for folder in (source.predictions, source.references):
        for path in folder.iterdir():
            path.rename(path.with_suffix(".bmp"))
    return r"holds a file that ends in '\.png'"


BREAKAGES = [
    break_names,
    break_shape,
    break_labels,
    break_reference_labels,
    break_channels,
    break_map_shape,
    break_maps,
    break_file,
    break_ending,
]


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_bad_input_is_one_clear_error_before_anything_is_written(png_folders, breakage, tmp_path, capsys):
    complaint = breakage(png_folders)
    maps, output = png_folders.root / "maps", tmp_path / "out"
    arguments = [png_folders.predictions, png_folders.references, "-o", output]
    arguments += ["--maps", maps] if maps.is_dir() else []
    assert main(["evaluate", *map(str, arguments)]) == 2
    told = capsys.readouterr()
    assert re.search(complaint, told.err)
    assert (told.err.count("\n"), told.out, list(output.iterdir())) == (1, "", [])


def test_different_spacings_are_refused(nifti_folders):
    reference = np.zeros((6, 12, 14))
    write_labels(nifti_folders.predictions / "case_2.nii.gz", reference, spacing=(5.0, 0.8, 0.8))
    with pytest.raises(
        UserError, match=r"case_2: spacing \(5.0, 0.8, 0.8\).*differs from the reference's \(5.0, 0.8, 0.7\)"
    ):
        evaluate(nifti_folders)


ROTATED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
MIRRORED = (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def write_case_2(source, **geometry):
    """Predict nothing in case 2, on a grid of another place."""
    write_labels(source.predictions / "case_2.nii.gz", np.zeros((6, 12, 14)), **geometry)


@pytest.mark.parametrize(
    ("geometry", "complaint"),
    [
        (
            {"origin": (0.0, 0.0, 0.6)},
            r"origin \(0\.0, 0\.0, 0\.6\) of the prediction .* \(0\.0, 0\.0, 0\.0\); resample",
        ),
        ({"origin": (0.1, 0.0, 0.0)}, "origin"),
        ({"direction": MIRRORED}, r"direction \(-1\.0, .*; resample the prediction .* or copy the reference's header"),
        ({"direction": ROTATED}, "direction"),
    ],
)
def test_label_maps_of_different_places_are_refused(nifti_folders, geometry, complaint):
    write_case_2(nifti_folders, **geometry)
    with pytest.raises(UserError, match=f"case_2: {complaint}") as error:
        evaluate(nifti_folders)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "geometry",
    [
        {"origin": (0.01, -0.01, 0.0)},
        {"origin": (0.0, 0.0, 0.4)},  # less than a tenth of the 5 mm between slices
        {"direction": (1.0, 5e-4, 0.0, -5e-4, 1.0, 0.0, 0.0, 0.0, 1.0)},
    ],
)
def test_places_agree_up_to_rounding(nifti_folders, geometry):
    write_case_2(nifti_folders, **geometry)
    assert len(evaluate(nifti_folders).scores) == 4


def test_the_shift_of_origins_is_measured_along_the_axes(tmp_path, nifti_folders):
    sideways = (0.0, 0.0, 1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 0.0)  # slices follow each other along x
    labels = np.zeros((6, 12, 14))
    write_labels(nifti_folders.references / "case_2.nii.gz", labels, origin=(0, 0, 0), direction=sideways)
    write_case_2(nifti_folders, origin=(0.4, 0.0, 0.0), direction=sideways)
    assert len(evaluate(nifti_folders).scores) == 4
    write_case_2(nifti_folders, origin=(0.0, 0.0, 0.4), direction=sideways)
    with pytest.raises(UserError, match="case_2: origin"):
        evaluate(nifti_folders)


def test_a_label_map_that_is_cut_short_is_refused(nifti_folders):
    noise = np.random.default_rng(0).integers(0, 3, (6, 12, 14))
    nifti_folders.add("case_2", noise, noise)
    path = nifti_folders.predictions / "case_2.nii.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"predictions/case_2\.nii\.gz: is cut short or damaged; copy it again"):
        evaluate(nifti_folders)


def test_2d_and_3d_do_not_mix(nifti_folders):
    nifti_folders.add("case_3", np.zeros((5, 5)), np.zeros((5, 5)), spacing=(0.8, 0.7))
    with pytest.raises(UserError, match="case_3: 2D and 3D"):
        evaluate(nifti_folders)


def test_bad_input_is_told_from_other_processes_too(png_folders):
    complaint = break_labels(png_folders)
    with pytest.raises(UserError, match=complaint):
        evaluate(png_folders, processes=2)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"tolerance": -1}, "finite and not negative"),
        ({"tolerance": float("nan")}, "finite and not negative"),
        ({"processes": 0}, "at least one process"),
        ({"empty_policy": "hope"}, "known are score, nan-both, nan-reference"),
        ({"maps": "nowhere"}, "nowhere: no such folder"),
    ],
)
def test_bad_options_are_refused(png_folders, option, complaint):
    with pytest.raises(UserError, match=complaint):
        evaluate(png_folders, **option)


def test_missing_folders_are_named(tmp_path, png_folders):
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluate_folders(tmp_path / "nowhere", png_folders.references)
    with pytest.raises(UserError, match="nowhere: no such folder"):
        evaluate_folders(png_folders.predictions, tmp_path / "nowhere")


def test_many_missing_names_are_counted_not_listed(png_folders):
    for i in range(9):
        write_labels(png_folders.references / f"more{i}.png", np.zeros((20, 30)))
    with pytest.raises(UserError, match=r"more0, more1, more2, more3, more4 and 4 more missing in"):
        evaluate(png_folders)


def test_evaluation_needs_no_torch(png_folders):
    code = (
        "import sys; from nnunet_covid.evaluation import evaluate_folders as e; "
        f"e({str(png_folders.predictions)!r}, {str(png_folders.references)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_regions_and_ignore_label_of_dataset_json(nifti_folders):
    nifti_folders.describe({"background": 0, "lesion": [1, 2], "core": 2, "ignore": 3}, regions_class_order=[1, 2])
    reference = np.zeros((6, 12, 14), dtype=np.uint8)
    reference[1:5, 2:8, 2:10], reference[2:4, 4:7, 4:8], reference[:, :, 12:] = 1, 2, 3
    nifti_folders.add("case_3", np.where(reference == 3, 1, reference), reference)
    evaluation = evaluate(nifti_folders)
    assert by_case(evaluation, "dice")["case_3", "lesion"] == 1
    assert by_case(evaluation, "dice")["case_3", "core"] == 1
    assert json.loads((nifti_folders.root / "dataset.json").read_text())["labels"]["ignore"] == 3


def test_every_label_map_is_decoded_once(png_folders, monkeypatch):
    read = []

    def counted(path, fmt):
        read.append(path)
        return read_labels(path, fmt)

    read_labels = folders.read_labels
    monkeypatch.setattr(folders, "read_labels", counted)
    evaluate_folders(png_folders.predictions, png_folders.references)
    assert sorted(read) == sorted([*png_folders.predictions.iterdir(), *png_folders.references.iterdir()])


def test_names_whose_accents_are_stored_in_two_ways_are_told(png_folders):
    write_labels(png_folders.predictions / "J\u00fcrgen.png", np.zeros((20, 30)))
    write_labels(png_folders.references / "Ju\u0308rgen.png", np.zeros((20, 30)))
    with pytest.raises(UserError, match="the accents of J\u00fcrgen are stored in two ways"):
        evaluate(png_folders)


def test_companion_files_of_macos_are_no_cases(png_folders):
    (png_folders.predictions / "._a.png").write_bytes(b"no image")
    assert evaluate(png_folders).input.cases == ("a", "b", "c")


COUNT_FAULTS = """
import resource, sys
import numpy as np
from nnunet_covid.evaluation.folders import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
np.full(1 << 22, 1, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.full(1 << 22, 1, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc"
)
def test_freed_memory_is_used_again() -> None:
    returned, kept = (_page_faults(how) for how in ("returned", "kept"))
    assert returned >= 100  # at least one per array, even with huge pages
    assert kept < returned / 20


def _page_faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], check=True, capture_output=True, text=True)
    return int(done.stdout)
