"""Linking: what is pre-processed and recorded, what stays untouched, and every way in which a link can be wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import linked
import numpy as np
import pytest
from linked import COVID, EFFUSION, link
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from skimage import io

from nnunet_covid.auxiliary_data import linking
from nnunet_covid.auxiliary_data.links import LinkedCases, find_link, link_again, read_links, record_file
from nnunet_covid.cli import main
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet import preprocess

pytestmark = pytest.mark.usefixtures("work")
LINKED = "nnUNetPlans_from_Dataset601_Covid"


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    link(*arguments, status=2)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def load(work: Path, identifier: str = f"{LINKED}_2d", name: str = "case0") -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data, seg, _, properties = nnUNetDatasetBlosc2(str(work / "preprocessed" / EFFUSION / identifier)).load_case(name)
    return data[:], seg[:], properties


def test_linked_cases_are_what_nnunet_makes_of_them_with_the_covid_plans(work: Path) -> None:
    link("-a", "602")
    data, seg, properties = load(work)
    plans = PlansManager(linked.covid_plans())
    configuration = plans.get_configuration("2d")
    raw = work / "raw" / EFFUSION
    expected_data, expected_seg, expected = configuration.preprocessor_class(verbose=False).run_case(
        [str(raw / "imagesTr/case0_0000.png")],
        str(raw / "labelsTr/case0.png"),
        plans,
        configuration,
        json.loads((raw / "dataset.json").read_text()),
    )
    np.testing.assert_array_equal(data, expected_data)
    np.testing.assert_array_equal(seg, expected_seg)
    np.testing.assert_array_equal(properties["class_locations"][1], expected["class_locations"][1])


def test_labels_are_reduced_to_lesion_and_no_lesion(work: Path) -> None:
    labels = {"background": 0, "lung": 1, "tumour": 2, "effusion": 3, "ignore": 4}
    linked.write_pictures(work / "raw", EFFUSION, labels=labels, values=(1, 2, 3))
    link("-a", "602", "--lesions", "tumour", "effusion")
    _, seg, properties = load(work)
    assert set(np.unique(seg)) == {0, 1}
    assert list(properties["class_locations"]) == [1]
    entry = read_links(record_file(work / "preprocessed" / COVID, "nnUNetPlans"))["nnUNetPlans_2d"].others[0]
    assert entry.lesions == (2, 3)
    assert entry.cases_with_lesion == 3
    first = int((seg == 1).sum())
    link("-a", "602", "--lesions", "lung", "tumour", "effusion")
    assert int((load(work)[1] == 1).sum()) > first
    link("-a", "602")  # all but organs
    assert int((load(work)[1] == 1).sum()) == first


def test_the_other_data_sets_own_plans_and_data_stay(work: Path) -> None:
    own = work / "preprocessed" / EFFUSION
    (own / "nnUNetPlans_2d").mkdir(parents=True)
    for file in ("nnUNetPlans.json", "dataset.json", "splits_final.json", "nnUNetPlans_2d/case0.b2nd"):
        (own / file).write_text("its own")
    link("-a", "602")
    link("--remove")
    assert sorted(p.relative_to(own).as_posix() for p in own.rglob("*") if p.is_file()) == [
        "dataset.json",
        "nnUNetPlans.json",
        "nnUNetPlans_2d/case0.b2nd",
        "splits_final.json",
    ]
    assert all(p.read_text() == "its own" for p in own.rglob("*") if p.is_file())


def test_linking_adds_shows_and_removes(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked.write_pictures(work / "raw", "Dataset603_Tumour", cases=2)
    images = work / "raw" / EFFUSION / "imagesTr"
    link("-a", "602")
    link("-a", "603", "--unlabelled", str(images), "--at-most", "2")
    capsys.readouterr()
    link("--show")
    shown = capsys.readouterr().out
    assert "3 cases of Dataset602_Effusion, 3 with lesion (label 1)" in shown
    assert "2 cases of Dataset603_Tumour" in shown
    assert "2 unlabelled images" in shown
    assert "nnUNetv2_train 601 2d 0 -p nnUNetPlans -tr CollaborativeTrainer" in shown
    assert "nnUNetv2_train 601 2d 0 -p nnUNetPlans -tr nnUNetTrainer_consistency" in shown
    link("--unlabelled", str(images), "--at-most", "1")
    shown = capsys.readouterr().out
    assert "one unlabelled image is too few" in shown
    assert "nnUNetTrainer_consistency" not in shown
    link("--remove", "-a", "602")
    assert not (work / "preprocessed" / EFFUSION).exists()
    found = find_link(work / "preprocessed", PlansManager(linked.covid_plans()), "2d")
    assert found is not None
    assert [other.name for other in found.others] == ["Dataset603_Tumour"]
    link("--remove")
    link("--show")
    assert "nothing is linked" in capsys.readouterr().out
    assert sorted(p.name for p in (work / "preprocessed" / COVID).iterdir()) == [
        "dataset.json",
        "nnUNetPlans.json",
        "nnUNetPlans_2d",
    ]


def test_the_command_that_links_again_can_be_pasted() -> None:
    images = LinkedCases("/data/my images", "unlabelled", ("a", "b"))
    words = shlex.split(link_again(PlansManager(linked.covid_plans()), "2d", images))
    assert words[:7] == ["nnunet-covid", "link", "-d", COVID, "--unlabelled", "/data/my images", "--at-most"]


def test_one_source_is_removed_and_the_others_stay(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = work / "raw" / EFFUSION / "imagesTr"
    data = work / "preprocessed" / COVID / "nnUNetPlans_2d_unlabelled"
    link("-a", "602", "--unlabelled", str(images))
    link("--remove", "--unlabelled", str(work))
    assert "nothing of these was linked" in capsys.readouterr().out
    assert data.is_dir()
    link("--remove", "--unlabelled", f"{images}/../imagesTr")
    assert not data.exists()
    found = find_link(work / "preprocessed", PlansManager(linked.covid_plans()), "2d")
    assert found is not None
    assert [other.name for other in found.others] == [EFFUSION]
    assert load(work)[0].size
    link("--unlabelled", str(images))
    link("--remove", "-a", "602")
    found = find_link(work / "preprocessed", PlansManager(linked.covid_plans()), "2d")
    assert found is not None
    assert found.unlabelled is not None
    assert not found.others


def test_an_interrupted_link_goes_on_where_it_stopped(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = preprocess.preprocess_case

    def dies_at_the_second(item: Any, **rest: Any) -> None:
        if len(done) == 1:
            raise KeyboardInterrupt
        real(item, **rest)
        done.append(item[1].name)

    monkeypatch.setattr(preprocess, "preprocess_case", dies_at_the_second)
    assert main(["link", "-d", "601", "-np", "1", "-a", "602"]) == 130
    assert not record_file(work / "preprocessed" / COVID, "nnUNetPlans").exists()
    monkeypatch.setattr(
        preprocess, "preprocess_case", lambda item, **rest: (done.append(item[1].name), real(item, **rest))
    )
    link("-a", "602")
    assert done == ["case0", "case1", "case2"]
    link("-a", "602")
    assert len(done) == 3
    assert not list((work / "preprocessed" / EFFUSION / f"{LINKED}_2d").glob(".*"))


def test_of_two_folders_of_unlabelled_images_none_is_linked_while_one_takes_the_others_place(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their images may have the same names: a training after an interruption would take some of either."""
    first, second = work / "first", work / "second"
    shutil.copytree(work / "raw" / EFFUSION / "imagesTr", first)
    shutil.copytree(first, second)
    link("--unlabelled", str(first))

    def dies(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(linking, "preprocess_cases", dies)
    assert main(["link", "-d", "601", "-np", "1", "--unlabelled", str(first)]) == 130
    plans = PlansManager(linked.covid_plans())
    assert find_link(work / "preprocessed", plans, "2d", require_unlabelled=True) is not None
    assert main(["link", "-d", "601", "-np", "1", "--unlabelled", str(second)]) == 130
    with pytest.raises(UserError, match="no folder of unlabelled images is linked"):
        find_link(work / "preprocessed", plans, "2d", require_unlabelled=True)


@pytest.mark.parametrize("shift", [10, -10_000_000])
def test_a_case_that_changed_is_processed_again(work: Path, shift: int) -> None:
    """Whatever the time of the new file says; a backup that is put back is older than what was made since."""
    link("-a", "602")
    path = work / "raw" / EFFUSION / "imagesTr" / "case0_0000.png"
    io.imsave(path, np.rot90(io.imread(path)), check_contrast=False)
    time = (work / "preprocessed" / EFFUSION / f"{LINKED}_2d" / "case0.pkl").stat().st_mtime + shift
    os.utime(path, (time, time))
    before = load(work)[0], load(work, name="case1")[0]
    link("-a", "602")
    np.testing.assert_array_equal(load(work)[0], np.rot90(before[0], axes=(2, 3)))
    np.testing.assert_array_equal(load(work, name="case1")[0], before[1])


def test_a_link_to_another_file_is_processed_again(work: Path) -> None:
    folder = work / "raw" / EFFUSION / "imagesTr"
    first, second = folder / "case0_0000.png", work / "other.png"
    shutil.copy2(folder / "case1_0000.png", second)
    link("-a", "602")
    first.unlink()
    first.symlink_to(second)
    link("-a", "602")
    np.testing.assert_array_equal(load(work)[0], load(work, name="case1")[0])


def test_other_plans_process_everything_again(work: Path) -> None:
    link("-a", "602")
    before = load(work)[0]
    linked.write_covid(work / "preprocessed", linked.covid_plans(spacing=[2.0, 2.0]))
    link("-a", "602")
    assert load(work)[0].shape[-1] == before.shape[-1] // 2


def test_a_configuration_that_inherits_the_data_shares_the_link(work: Path) -> None:
    plans = linked.covid_plans()
    plans["configurations"]["2d_light"] = {"inherits_from": "2d", "batch_size": 1, "patch_size": [8, 8]}
    linked.write_covid(work / "preprocessed", plans)
    link("-a", "602", "-c", "2d")
    assert find_link(work / "preprocessed", PlansManager(plans), "2d_light") is not None


def test_a_data_set_without_lesion_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked.write_pictures(work / "raw", EFFUSION, values=())
    assert "Dataset602_Effusion has no lesion: none of its 3 label maps holds the value 1" in refused(
        capsys, "-a", "602"
    )
    linked.write_pictures(work / "raw", EFFUSION, labels={"background": 0})
    assert "no label that could be a lesion" in refused(capsys, "-a", "602")
    assert not (work / "preprocessed" / EFFUSION).exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "nothing to link"),
        (("-a", "699"), "data set '699': there is none"),
        (("-a", "602", "-c", "3d_fullres"), "no configuration '3d_fullres'; it has 2d"),
        (("-a", "602", "-p", "otherPlans"), "otherPlans.json does not exist; run nnUNetv2_plan_and_preprocess -d 601"),
        (("-a", "602", "--lesions", "tumour"), "none of the labels tumour (it has: effusion)"),
        (("--unlabelled", "/no/folder"), "/no/folder is no folder"),
        (("-a", "602", "--at-most", "3"), "name their folder with --unlabelled"),
        (("--remove", "--unlabelled", "/", "--at-most", "3"), "--remove has no use for --at-most"),
        (("--show", "-a", "602"), "--show has no use for -a"),
        (("--show", "-c", "2d", "--unlabelled", "/"), "--show has no use for -c and --unlabelled"),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str], work: Path
) -> None:
    assert expected in refused(capsys, *arguments)
    assert not (work / "preprocessed" / EFFUSION).exists()


def test_folders_that_are_not_set_are_named(
    work: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed"):
        monkeypatch.delenv(name)
    assert "nnUNet_raw is not set: export nnUNet_raw=" in refused(capsys, "--show")


def test_another_number_of_channels_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    linked.write_pictures(work / "raw", EFFUSION, channels=2)
    assert "Dataset602_Effusion has 2 channels, Dataset601_Covid has 1" in refused(capsys, "-a", "602")
    images = str(work / "raw" / EFFUSION / "imagesTr")
    assert "case case0 has channels 0000, 0001, but 0000 is expected" in refused(capsys, "--unlabelled", images)


def test_volumes_beside_slices_and_slices_beside_volumes_are_refused(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    linked.write_volumes(work / "raw", "Dataset604_Volumes")
    assert "holds slices, so its plans are for those, but Dataset604_Volumes holds volumes" in refused(
        capsys, "-a", "604"
    )
    linked.write_covid(work / "preprocessed", linked.covid_plans(dims=3, slices=False))
    assert "but Dataset602_Effusion holds slices" in refused(capsys, "-a", "602")


# --- bad input, when a training begins
