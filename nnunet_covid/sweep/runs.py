"""One run of a sweep: what it is, which command does it, where nnU-Net writes it, and whether it is finished.

A run is a process of its own: nnU-Net's training, pseudo-label rounds, a pre-training, or the planning and
pre-processing that others wait for. What is finished is read from the files that these commands write, never from a
record of the sweep, so that runs made without a sweep count too. What else made a result than its folder's name tells
stands beside it, so that no sweep takes another's result for its own.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from nnunet_covid.dataset_json import fold_of, splits_of
from nnunet_covid.errors import UserError
from nnunet_covid.files import digest_of, read_json, sha256_of, write_json
from nnunet_covid.sweep.preparation import Preparation, resolved

Kind = Literal["prepare", "pretrain", "train", "pseudo-label"]
FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"
SUMMARY = "validation/summary.json"
MADE = "sweep.json"
"""In a run's folder: what :meth:`Run.made_of` was when a sweep began it."""


@dataclass(frozen=True)
class Run:
    """One process.

    Attributes:
        kind: What it does.
        dataset: Full name.
        configuration: One of the plans; empty for a preparation, which has several.
        trainer: With its length and seed; empty for a preparation.
        fold: As behind ``nnUNetv2_train``; empty for a preparation and a pre-training.
        plans: Name of the plans.
        device: As nnU-Net's commands call it.
        probabilities: Keep the probability maps of the validation, for the map-based metrics of the table.
        images: Unlabelled images, for rounds and pre-trainings.
        name: Of the result of rounds or a pre-training.
        start: Name of the pre-training, or a checkpoint (``.pth``), that a training starts from.
        pretraining: Images and options of the pre-training of this name.
        options: Further words of the command; of a preparation the JSON text that says what to prepare.
        needs: Keys of runs that must be finished before.
    """

    kind: Kind
    dataset: str
    configuration: str = ""
    trainer: str = ""
    fold: str = ""
    plans: str = "nnUNetPlans"
    device: str = "cuda"
    probabilities: bool = True
    images: str = ""
    name: str = ""
    start: str = ""
    options: tuple[str, ...] = ()
    pretraining: tuple[str, ...] = field(default=(), compare=False)
    needs: tuple[str, ...] = field(default=(), compare=False)

    @property
    def results(self) -> str:
        """Below ``nnUNet_results``, where ``Dataset…`` of this run lies; nnU-Net's names do not tell a start apart."""
        return f"pretrained_{Path(self.start).stem}" if self.start else ""

    @property
    def starts_from_file(self) -> bool:
        """Not from a pre-training of the sweep."""
        return self.start.endswith(".pth")

    @property
    def seen_fold(self) -> str:
        """Whose training cases it sees; of a pre-training as behind ``-f``, empty without."""
        return self.fold or next((fold for word, fold in pairwise(self.options) if word == "-f"), "")

    @property
    def label(self) -> str:
        """The name of the model: what stands in tables."""
        return f"{self.trainer}_pseudo{self.name}" if self.kind == "pseudo-label" else self.trainer

    @property
    def key(self) -> str:
        """The folder of the result below ``nnUNet_results``, which no two different runs share."""
        if self.kind == "prepare":
            return f"{self.dataset}/prepare__{self.plans}"
        model = f"{self.label}__{self.plans}__{self.configuration}"
        if self.kind == "pretrain":
            return f"{self.dataset}/pretraining/{model}/{self.name}"
        return "/".join(part for part in (self.results, self.dataset, model, f"fold_{self.fold}") if part)

    def checkpoint(self, results: Path) -> Path:
        """What a pre-training ends with."""
        return results / self.key / FINAL

    def finished(self, results: Path, preprocessed: Path) -> bool:
        """Whether nothing is left to do.

        Raises:
            UserError: If what is there was made otherwise.
        """
        if line := self.made_otherwise(results, preprocessed):
            raise UserError(line)
        folder = results / self.key
        if self.kind == "prepare":
            return self.preparation.finished(preprocessed)
        if self.kind == "pretrain":
            return is_whole_checkpoint(self.checkpoint(results))
        return is_whole_checkpoint(folder / FINAL) and read_json(folder / SUMMARY) is not None

    @property
    def preparation(self) -> Preparation:
        """Of a preparation: what there is to prepare."""
        return Preparation(**json.loads(self.options[0]))

    def made_of(self, preprocessed: Path) -> dict[str, Any]:
        """What decides the result and is not in its folder's name; ``weights`` says what the start holds."""
        weights = _contents(Path(self.start)) if self.starts_from_file else list(self.pretraining)
        file = preprocessed / self.dataset / f"{self.plans}.json"
        plans = _plans_digest(file, self.configuration, _contents(file))
        splits = preprocessed / self.dataset / "splits_final.json"
        fold = _fold_digest(splits, self.seen_fold, _contents(splits))
        given = {"images": self.images, "options": list(self.options), "pretrained": self.start}
        return {**given, "weights": weights, "plans_digest": plans, "fold_digest": fold}

    def made_otherwise(self, results: Path, preprocessed: Path) -> str:
        """A line about what is there, finished or half-way, if this run would make it otherwise; else empty.

        What no sweep has recorded counts as this run's, unless it had to start from a file of weights; so do plans and
        folds that are gone, or were not recorded.
        """
        if self.kind == "prepare":
            return self.preparation.described_otherwise(preprocessed)
        folder = results / self.key
        found = read_json(folder / MADE)
        if not _is_begun(folder) or (found is None and not self.starts_from_file):
            return ""
        own = self.made_of(preprocessed)
        if found is None:
            said = f"if from these, write {json.dumps(own)} into {MADE} there"
            return f"{folder} does not say which weights it started from: move it away, or, {said}"
        if self.starts_from_file:  # which may have moved, or be gone
            own.pop("pretrained" if own["weights"] else "weights")
        for name in ("plans_digest", "fold_digest"):
            if not (own[name] and found.get(name)):
                del own[name]
        for key, value in own.items():
            if (before := found.get(key)) != value:
                return (
                    f"{folder} was made with {key} = {before!r}, not {value!r}: move it away, take another name or "
                    f"nnUNet_results, or correct {MADE} there if it comes to the same"
                )
        return ""

    def note_what_makes_it(self, results: Path, preprocessed: Path) -> None:
        """Beside the result to come."""
        folder = results / self.key
        if self.kind != "prepare" and not _is_begun(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MADE, self.made_of(preprocessed))

    def command(self, results: Path, start: Path | None = None) -> tuple[str, ...]:
        """The console command and its arguments, from where an earlier process of it stopped.

        Args:
            results: ``nnUNet_results``.
            start: The checkpoint behind :attr:`start`.
        """
        where = (self.dataset, self.configuration)
        common = ("-tr", self.trainer, "-p", self.plans, "-device", self.device)
        if self.kind == "prepare":
            return ("python", "-m", "nnunet_covid.sweep.preparation", *self.options)
        if self.kind == "pretrain":
            return ("nnunet-covid", "pretrain", *where, "-i", self.images, "--name", self.name, *common, *self.options)
        if self.kind == "pseudo-label":
            given = ("-i", self.images, "--name", self.name, *common, *self.options)
            return ("nnunet-covid", "pseudo-label", *where, self.fold, *given)
        folder = results / self.key
        words = ["nnUNetv2_train", *where, self.fold, *common, *(["--npz"] if self.probabilities else [])]
        if is_whole_checkpoint(folder / FINAL):
            words.append("--val")
        elif _is_begun(folder):
            words.append("--c")
        elif start is not None:
            words += ["-pretrained_weights", str(start)]
        return (*words, *self.options)


def _contents(file: Path) -> str:
    """SHA-256 of a file; empty if it is not there."""
    try:
        about = file.stat()
    except OSError:
        return ""
    return _sha256(file, about.st_mtime_ns, about.st_size)


@lru_cache
def _sha256(file: Path, *_: int) -> str:
    """Once for as long as time and size of a file are the same."""
    return sha256_of(file)


@lru_cache
def _plans_digest(file: Path, configuration: str, _: str) -> str:
    """Eight digits that change with what the plans say of a configuration; empty where they say nothing of it."""
    plans = read_json(file) or {}
    known = plans.get("configurations", {})
    if configuration not in known:
        return ""
    names = ("foreground_intensity_properties_per_channel", "transpose_forward", "image_reader_writer")
    return digest_of([resolved(known, configuration), *(plans.get(name) for name in names)], 8)


@lru_cache
def _fold_digest(file: Path, fold: str, _: str) -> str:
    """Eight digits that change with the training and validation cases of a fold; empty where none are listed."""
    try:
        listed = fold_of(splits_of(file.read_text(encoding="utf-8")), fold)
    except (OSError, ValueError):  # nnU-Net makes the folds, or says what is wrong with them
        return ""
    return digest_of({side: sorted(names) for side, names in listed.items()}, 8) if listed else ""


def _is_begun(folder: Path) -> bool:
    """Whether there is a checkpoint: something to continue, or a result."""
    return any((folder / name).is_file() for name in (FINAL, LATEST, BEST))


def is_whole_checkpoint(path: Path) -> bool:
    """Whether torch wrote it to its end, which is where the table of its contents stands; not what it holds."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def put_damaged_aside(folder: Path) -> list[Path]:
    """Rename checkpoints that a killed process left half-written, so that nnU-Net goes on from another; the new names.

    Stock nnU-Net writes over the old one.
    """
    moved = []
    for name in (FINAL, LATEST, BEST):
        path = folder / name
        if path.is_file() and not is_whole_checkpoint(path):
            moved.append(path.rename(path.with_suffix(".damaged")))
    return moved
