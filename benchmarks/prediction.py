"""``nnunet-covid predict`` against ``nnUNetv2_predict``: time, processor time and memory, label maps compared.

  python benchmarks/prediction.py slices MODEL_FOLDER IMAGES -o results.csv --repeats 3
  python benchmarks/prediction.py volume MODEL_FOLDER --shape 200 512 512 -o results.csv

Both predict the same images on the same device, by turns, because other work on the machine changes by the minute.
``slices`` takes the images of a folder, repeated to ``--count``; ``volume`` makes one of noise and blobs, and gives
a model of slices the reader of volumes. nnU-Net runs as it is and, as ``nnU-Net, sleeping``, with the one setting of
OpenMP that ``predict`` makes; ``nnunet-covid, spinning`` is ``predict`` with the opposite one, ``ACTIVE``. Memory is
the proportional set size of all processes, summed, the largest of the run.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_covid.startup import console_command

WAYS = ("nnunet-covid", "nnU-Net", "nnU-Net, sleeping", "nnunet-covid, spinning")


def main() -> None:
    """Run the turns and append a row for each."""
    args = _arguments()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if args.what == "slices":
            model, images = args.model, _repeated(args.images, args.count, folder / "images")
        else:
            model, images = _for_volumes(args.model, folder / args.model.name), _volume(args.shape, folder / "images")
        for turn in range(args.repeats):
            for way in args.ways:
                output = folder / f"out_{turn}_{WAYS.index(way)}"
                row = {"what": args.name or args.what, "images": len(list(images.iterdir())), "way": way}
                row |= _measured(way, model, images, output, args.device, args.fold)
                row["same_as_first"] = _same(folder / f"out_0_{WAYS.index(args.ways[0])}", output)
                print(row, flush=True)
                _append(args.output, row)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("slices", "volume"))
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="?")
    parser.add_argument("--count", type=int, help="images, the folder's repeated (default: as many as there are)")
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512), help="of the volume, z y x")
    parser.add_argument("--name", help="of the comparison, in the table")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS[:3])
    parser.add_argument("--fold", default="0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def _repeated(images: Path, count: int | None, target: Path) -> Path:
    target.mkdir()
    files = sorted(images.iterdir())
    for index in range(count or len(files)):
        source = files[index % len(files)]
        shutil.copyfile(source, target / f"r{index // len(files):03d}_{source.name}")
    return target


def _for_volumes(model: Path, target: Path) -> Path:
    """The same weights for volumes in NIfTI."""
    shutil.copytree(model, target, ignore=shutil.ignore_patterns("validation", "*.png", "checkpoint_best.pth"))
    for name, change in (
        ("dataset.json", {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "SimpleITKIO"}),
        ("plans.json", {"image_reader_writer": "SimpleITKIO"}),
    ):
        content = json.loads((target / name).read_text()) | change
        (target / name).write_text(json.dumps(content))
    return target


def _volume(shape: tuple[int, int, int], target: Path) -> Path:
    """Blobs of four voxels and noise, 8-bit values, in one file."""
    target.mkdir()
    rng = np.random.default_rng(0)
    coarse = rng.normal(100, 40, [-(-n // 16) for n in shape])
    fine = np.kron(coarse, np.ones((16, 16, 16)))[tuple(slice(n) for n in shape)]
    image = sitk.GetImageFromArray(np.clip(fine + rng.normal(0, 10, shape), 0, 255).astype(np.int16))
    image.SetSpacing((1.0, 1.0, 5.0))
    sitk.WriteImage(image, str(target / "volume_0000.nii.gz"))
    return target


def _measured(way: str, model: Path, images: Path, output: Path, device: str, fold: str) -> dict[str, float]:
    environment = {**os.environ, "nnUNet_raw": "/", "nnUNet_preprocessed": "/", "nnUNet_results": "/"}
    environment.pop("OMP_WAIT_POLICY", None)
    shared = ("-i", images, "-o", output, "-m", model, "-f", fold, "-device", device)
    if way.startswith("nnunet-covid"):
        command = console_command("nnunet-covid", "predict", *shared, "--disable_progress_bar")
    else:
        command = console_command("nnUNetv2_predict_from_modelfolder", *shared, "--disable_progress_bar")
    if "," in way:
        environment["OMP_WAIT_POLICY"] = "PASSIVE" if way.endswith("sleeping") else "ACTIVE"
    before, start = os.times(), time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        largest, ended = [0], threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, largest, ended))
        watch.start()
        _, error = process.communicate()
        ended.set()
        watch.join()
    seconds, after = time.monotonic() - start, os.times()
    if process.returncode:
        sys.exit(f"{way} failed:\n{error}")
    processor = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "memory_mib": round(largest[0] / 1024),
        "load": round(os.getloadavg()[0], 1),
    }


def _watch(pid: int, largest: list[int], ended: threading.Event) -> None:
    """The largest sum of KiB of a process and all below it."""
    while not ended.wait(0.25):
        largest[0] = max(largest[0], sum(map(_memory_of, _tree(pid))))


def _tree(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return []
    return [pid, *(below for child in children for below in _tree(child))]


def _memory_of(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _same(first: Path, output: Path) -> str:
    """Voxels that differ, over all label maps."""
    endings = {".png", ".gz"}
    differing = 0
    for path in sorted(first.iterdir()):
        if path.suffix in endings:
            one, other = (sitk.GetArrayFromImage(sitk.ReadImage(str(folder / path.name))) for folder in (first, output))
            differing += int((one != other).sum())
    return f"{differing} voxels differ" if differing else "yes"


def _append(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
