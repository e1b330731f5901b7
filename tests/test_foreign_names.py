"""Names in documents and archives of whatever origin never become ways to other folders."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from linked import COVID

from nnunet_covid.auxiliary_data.links import read_links
from nnunet_covid.dataset_json import read_dataset_json
from nnunet_covid.errors import UserError
from nnunet_covid.files import stays_below, unfinished_folder
from nnunet_covid.nnunet.dataset import open_raw_dataset
from nnunet_covid.raw_dataset.destination import Staging

LEADING_OUT = ["../x", "a/../../x", "/x", "C:\\x", "c:x", "..\\x", "a\0b", "", ".", "..", "a//b", "./a", None, 3]


@pytest.mark.parametrize("name", LEADING_OUT)
def test_what_leads_out_of_a_folder(name: object) -> None:
    assert not stays_below(name)
    assert not stays_below(name, one_name=True)


def test_what_stays_in_it() -> None:
    assert stays_below("imagesTr/case_0000.nii.gz")
    assert not stays_below("imagesTr/case_0000.nii.gz", one_name=True)
    assert stays_below("case 1..a.nii.gz", one_name=True)


@pytest.mark.parametrize("ending", ["/../x.png", "../../x", 3, None, ""])
def test_file_ending_of_a_data_set(ending: object, tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0}, "file_ending": ending}))
    with pytest.raises(UserError, match=r"dataset\.json: 'file_ending' is .*; it must be the ending of the images"):
        read_dataset_json(path)


def test_cases_that_a_data_set_lists(tmp_path: Path) -> None:
    listed = {"../../x": {"images": ["a.png"], "label": "b.png"}}
    content = {"labels": {"background": 0}, "file_ending": ".png", "channel_names": {"0": "a"}, "dataset": listed}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"a case named '\.\./\.\./x', which leads to another folder"):
        open_raw_dataset(str(tmp_path))


def test_record_of_links_whose_folders_may_be_deleted(tmp_path: Path) -> None:
    cases = {"name": COVID, "folder": "../../home", "cases": ["a"], "cases_with_lesion": 1, "lesions": [1]}
    link = {"configuration": "2d", "dimensions": 2, "digest": "", "others": [cases], "unlabelled": None}
    (tmp_path / "link.json").write_text(json.dumps({"links": {"2d": link}}))
    with pytest.raises(UserError, match=r"link\.json is no record of links"):
        read_links(tmp_path / "link.json")


def test_journal_of_a_conversion_whose_files_may_be_deleted(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    folder = unfinished_folder(tmp_path / "Dataset501_A")
    folder.mkdir()
    digest = "0b0f7e4b"
    record = {"case": "a", "patient": "a", "part": "imagesTr", "sources": {}, "notes": {}}
    lines = [json.dumps({}), json.dumps({**record, "outputs": {"a": {"../mine.txt": digest}}}), "[]", '{"case": 3}']
    (folder / "journal.jsonl").write_text("\n".join(lines))
    assert Staging(tmp_path / "Dataset501_A", {}).records == {}
    assert mine.read_text() == "mine"


def test_an_archive_of_a_model_is_unpacked_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's command unpacks it; this project unpacks no archive."""
    from nnunetv2.model_sharing import model_import

    (tmp_path / "results").mkdir()
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("../outside.txt", "a")
        archive.writestr("/absolute.txt", "a")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setattr(model_import, "nnUNet_results", str(tmp_path / "results"), raising=False)
    model_import.install_model_from_zip_file(str(tmp_path / "model.zip"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.zip", "results"]
    assert sorted(p.name for p in (tmp_path / "results").iterdir()) == ["absolute.txt", "outside.txt"]
