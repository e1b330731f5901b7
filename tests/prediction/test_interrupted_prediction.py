"""SIGKILL at any moment: the same command does the rest, no image is done twice and no file is ever half written."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from image_files import checksums, write_picture
from killable_prediction import start
from kinds_of_models import KINDS, write_kind

from nnunet_covid.errors import UserError
from nnunet_covid.files import UNFINISHED
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.folder import Options, alone_in, predict_folder

IMAGES, KILLS = 60, 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kind(KINDS["slices"], tmp_path_factory.mktemp("model"))[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(IMAGES):
        write_picture(folder / f"c{index:02d}_0000.png", noise(24 + index % 5, index))
    return folder


def noise(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 256, (size, size), dtype=np.uint8)


def label_maps(folder: Path) -> dict[str, tuple[int, int]]:
    """Name to what changes when a file is written anew."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("c*.png")}


def test_killed_again_and_again(model: Path, images: Path, tmp_path: Path) -> None:
    predict_folder(TrainedModel(model), images, tmp_path / "undisturbed")
    expected = checksums(tmp_path / "undisturbed")
    output, log = tmp_path / "out", tmp_path / "log"
    output.mkdir()
    command = ["predict", "-i", str(images), "-o", str(output), "-m", str(model), "-device", "cpu"]
    chance, done = random.Random(3), {}
    for _ in range(KILLS):
        process = start(command, log)
        _wait_for(len(done) + chance.randint(0, 3), output, process)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()  # nothing, where it has done everything by now
        process.join()
        assert process.exitcode == -signal.SIGKILL or len(label_maps(output)) == IMAGES, log.read_text()
        now = label_maps(output)
        assert {name: now.get(name) for name in done} == done, "what was done stays as it is"
        for name in now:
            assert checksums(output)[name] == expected[name], "a file with its name is complete"
        done = now
    process = start(command, log)
    process.join(120)
    assert process.exitcode == 0, log.read_text()
    assert f"{len(done)} of {IMAGES} images are done already" in log.read_text() or not done
    finished = label_maps(output)
    assert {name: finished.get(name) for name in done} == done
    assert {name: digest for name, digest in checksums(output).items() if name.startswith("c")} == {
        name: digest for name, digest in expected.items() if name.startswith("c")
    }
    assert not list(output.glob(".partial*"))


def _wait_for(count: int, output: Path, process: object) -> None:
    """Until that many label maps are there, or the process has ended."""
    until = time.monotonic() + 60
    while len(label_maps(output)) < min(count, IMAGES) and time.monotonic() < until and process.is_alive():  # type: ignore[attr-defined]
        time.sleep(0.002)


def test_only_what_is_of_this_model_and_these_images_counts_as_done(model: Path, images: Path, tmp_path: Path) -> None:
    output, said = tmp_path / "out", []
    predict_folder(TrainedModel(model), images, output, tell=said.append)
    before = label_maps(output)
    again = predict_folder(TrainedModel(model), images, output, tell=said.append)
    assert (again.written, again.kept) == (0, IMAGES)
    assert label_maps(output) == before

    (output / "c00.png").unlink()
    (output / "c01.png").write_bytes(b"somebody else's")
    changed = tmp_path / "images"
    changed.mkdir()
    for path in images.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    write_picture(changed / "c02_0000.png", noise(50, 99))
    third = predict_folder(TrainedModel(model), changed, output, tell=said.append)
    assert (third.written, third.kept) == (3, IMAGES - 3)
    assert {name for name, stamp in label_maps(output).items() if stamp != before[name]} == {
        "c00.png",
        "c01.png",
        "c02.png",
    }

    other = predict_folder(TrainedModel(model, mirroring=False), changed, output, Options(), tell=said.append)
    assert (other.written, other.kept) == (IMAGES, 0), "another setting gives other label maps"
    kept = predict_folder(TrainedModel(model), changed, output, Options(keep_existing=True), tell=said.append)
    assert (kept.written, kept.kept) == (0, IMAGES)
    forced = predict_folder(TrainedModel(model, mirroring=False), changed, output, Options(overwrite=True))
    assert (forced.written, forced.kept) == (IMAGES, 0)


def test_parts_make_the_whole_and_share_the_record(model: Path, images: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    opened = TrainedModel(model)
    parts = [predict_folder(opened, images, output, Options(part=(number, 7))) for number in range(1, 8)]
    assert sum(part.written for part in parts) == IMAGES == len(label_maps(output))
    assert max(part.written for part in parts) - min(part.written for part in parts) <= 1
    whole = predict_folder(opened, images, output)
    assert (whole.written, whole.kept) == (0, IMAGES)


@pytest.mark.parametrize(
    ("running", "asked", "refused"),
    [((1, 2), (1, 1), True), ((1, 1), (1, 2), True), ((1, 2), (2, 3), True), ((1, 2), (2, 2), False)],
)
def test_runs_that_share_images_are_not_at_work_at_once(
    model: Path, images: Path, tmp_path: Path, running: tuple[int, int], asked: tuple[int, int], refused: bool
) -> None:
    """What the other run has begun to write stays."""
    opened, half = TrainedModel(model), tmp_path / f"out/{UNFINISHED}1.c00.png"
    told = f"another process is at work on .*, part {running[0]} of {running[1]}; wait for it"
    with alone_in(tmp_path / "out", running):
        half.write_bytes(b"half")
        with pytest.raises(UserError, match=told) if refused else nullcontext():
            predict_folder(opened, images, tmp_path / "out", Options(part=asked))
        assert half.is_file()
    predict_folder(opened, images, tmp_path / "out")
    assert not half.exists()


@pytest.mark.parametrize("kind", ["slices", "slices of thin volumes"])
def test_a_full_disk_is_told_and_nothing_half_written_stays(kind: str, tmp_path: Path) -> None:
    """PNG writers raise; ITK writes what fits and says nothing."""
    model, images, _ = write_kind(KINDS[kind], tmp_path)
    ending = KINDS[kind].ending
    (images / f"a_0000{ending}").write_bytes((images / f"case_0_0000{ending}").read_bytes())
    predict_folder(TrainedModel(model), images, tmp_path / "expected")
    sizes = [path.stat().st_size for path in (tmp_path / "expected").glob(f"*{ending}")]
    limit = max(sizes) - 1
    output, log = tmp_path / "out", tmp_path / "log"
    output.mkdir()
    for name in ("dataset.json", "plans.json"):  # larger than the label maps of such small images
        (output / name).write_bytes((tmp_path / "expected" / name).read_bytes())
    command = ["predict", "-i", str(images), "-o", str(output), "-m", str(model), "-device", "cpu"]
    process = start(command, log, limit)
    process.join(120)
    assert process.exitcode == 2, log.read_text()
    assert "cannot be written into any more" in log.read_text()
    assert "make room and run the same command again" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not list(output.glob(".partial*"))
    process = start(command, log)
    process.join(120)
    assert process.exitcode == 0, log.read_text()
    maps = {name: digest for name, digest in checksums(tmp_path / "expected").items() if name.endswith(ending)}
    assert {name: checksums(output)[name] for name in maps} == maps


def test_an_image_of_the_same_size_is_predicted_again(model: Path, images: Path, tmp_path: Path) -> None:
    own = tmp_path / "images"
    own.mkdir()
    for name in ("c00_0000.bmp", "c01_0000.bmp"):  # the size of such a picture says nothing of what it shows
        write_picture(own / name, noise(40, len(list(own.iterdir()))))
    described = json.loads((model / "dataset.json").read_text(encoding="utf-8"))
    bmp = shutil.copytree(model, tmp_path / "model")
    (bmp / "dataset.json").write_text(json.dumps({**described, "file_ending": ".bmp"}), encoding="utf-8")
    output, said = tmp_path / "out", []
    predict_folder(TrainedModel(bmp), own, output, tell=said.append)

    write_picture(own / "c01_0000.bmp", noise(40, 99))
    (own / "c00_0000.bmp").touch()
    again = predict_folder(TrainedModel(bmp), own, output, tell=said.append)
    assert (again.written, again.kept) == (1, 1)


def test_what_is_of_no_image_of_the_folder_is_named(model: Path, images: Path, tmp_path: Path) -> None:
    output, said = tmp_path / "out", []
    output.mkdir()
    write_picture(output / "former.png", noise(40, 1))
    predict_folder(TrainedModel(model), images, output, Options(part=(1, 2)), tell=said.append)
    predict_folder(TrainedModel(model), images, output, Options(part=(2, 2)), tell=said.append)
    assert [line for line in said if "note" in line and not line.endswith("as they are: former.png")] == []
    assert sum("note" in line for line in said) == 2


def test_a_folder_in_the_place_of_a_label_map_is_named(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "out/c00.png").mkdir(parents=True)
    with pytest.raises(UserError, match=r"out.c00\.png is a folder in the place of a file; take it away"):
        predict_folder(TrainedModel(model), images, tmp_path / "out")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_image_that_cannot_be_read_is_refused_alone(
    number: int, model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checksum is the first that is asked for."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("c00", "c01", "c02"):
        shutil.copy(images / f"{name}_0000.png", few)

    def sha256_of(path: Path) -> str:
        if path.name.startswith("c01"):
            raise OSError(number, os.strerror(number), str(path))
        return "0" * 64

    monkeypatch.setattr("nnunet_covid.prediction.finished.sha256_of", sha256_of)
    done = predict_folder(TrainedModel(model), few, tmp_path / "out", tell=lambda _: None)
    assert done.written == 2
    assert done.refused == {"c01": f"{few / 'c01_0000.png'}: cannot be read ({os.strerror(number)})"}
