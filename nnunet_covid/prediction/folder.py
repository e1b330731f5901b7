"""Prediction of a folder: the label maps of ``nnUNetv2_predict``, in one process, resumed where it was stopped."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_covid.disturbances import alone
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.files import (
    digest_of,
    files_in,
    remove_abandoned,
    replacing,
    sha256_of,
    some_of,
    writable_folder,
    write_json,
)
from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.predictor import PreparedCase, TrainedModel
from nnunet_covid.nnunet.written_images import fill_labels
from nnunet_covid.prediction.conveyor import Limits, Result, Steps, convey
from nnunet_covid.prediction.finished import WITH_PROBABILITIES, Files, Finished, described
from nnunet_covid.prediction.memory import bytes_of
from nnunet_covid.prediction.progress import Progress

_LOCK = ".predicting_{}_of_{}.lock"


@dataclass(frozen=True)
class Options:
    """What a run over a folder may be told.

    Attributes:
        previous_stage_labels: Folder of label maps, where the model is the second stage of a cascade.
        save_probabilities: Write ``CASE.npz`` and ``CASE.pkl`` as nnU-Net does.
        overwrite: Predict again what is done.
        keep_existing: Leave every label map that is there, whoever made it, as nnU-Net's ``--continue_prediction``.
        part: Number of this part of the images, from 1, and how many parts there are.
        limits: Memory and threads.
    """

    previous_stage_labels: Path | None = None
    save_probabilities: bool = False
    overwrite: bool = False
    keep_existing: bool = False
    part: tuple[int, int] = (1, 1)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Predicted:
    """What a run did: numbers of images, and why some were refused, by name."""

    written: int
    kept: int
    refused: dict[str, str]


def predict_folder(
    model: TrainedModel,
    images: Path,
    output: Path,
    options: Options | None = None,
    *,
    tell: Callable[[str], None] = print,
    bar: bool | None = None,
) -> Predicted:
    """Write the label map of every image of a folder.

    Args:
        model: Opened model folder.
        images: Folder in nnU-Net's naming.
        output: Receives the label maps; made if need be.
        options: Defaults if not given.
        tell: Receives a line for each refused image, and what was done before.
        bar: Whether to draw a bar of the progress; on a terminal if not given.

    Raises:
        UserError: If nothing can be predicted, before anything is written; if the output cannot be written any more, or
            another run is at work on this part of it.
    """
    options = options or Options()
    refused: dict[str, str] = {}
    found = model.cases(images, options.previous_stage_labels, refused)
    number, count = options.part
    names = {*refused, *(case.name for case in found)}
    chosen = set(sorted(names)[number - 1 :: count])
    refused = {name: reason for name, reason in refused.items() if name in chosen}
    job = _Job(model, output, options, [case for case in found if case.name in chosen])
    for reason in refused.values():
        tell(f"refused: {reason}")
    if job.cases:
        with alone_in(output, options.part):
            job.predict(refused, tell, bar)
    others = [path.name for path in files_in(output, model.ending) if path.name.removesuffix(model.ending) not in names]
    if others:
        tell(f"note: {output} holds label maps that are of no image in {images}, left as they are: {some_of(others)}")
    return Predicted(len(job.cases) - job.kept - job.refused, job.kept, refused)


@contextmanager
def alone_in(output: Path, part: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """No other run predicts images of this part of the folder meanwhile; the folder is made if need be.

    Raises:
        UserError: If one does, such as a run over all of them, or the folder cannot be written.
    """
    with _locked(writable_folder(output) / _LOCK.format(*part)):
        for other in output.glob(_LOCK.format("*", "*")):
            if not other.match(_LOCK.format("*", part[1])):  # parts of another number share images with this one
                with _locked(other):
                    pass
        yield


def _locked(lock: Path) -> AbstractContextManager[None]:
    part = lock.stem.removeprefix(".predicting_").replace("_", " ")
    return alone(lock, f"{lock.parent}, part {part}", "name another output")


class _Job:
    """One run over one part of a folder."""

    def __init__(self, model: TrainedModel, output: Path, options: Options, cases: list[CaseFiles]) -> None:
        self.model, self.output, self.options, self.cases = model, output, options, cases
        self.endings = (*(WITH_PROBABILITIES if options.save_probabilities else ()), model.ending)
        self.kept = self.refused = 0
        self.inputs: dict[str, Files] = {}
        self.beside: set[str] = set()
        self.writing_beside = Lock()
        self.finished = Finished(output, digest_of_model(model), options.part)

    def predict(self, refused: dict[str, str], tell: Callable[[str], None], bar: bool | None) -> None:
        """Everything that is not done yet."""
        names = [f"{case.name}{ending}" for case in self.cases for ending in self.endings]
        remove_abandoned(self.output, 0, None if self.options.part[1] == 1 else set(names))
        missing = [case for case in self.cases if not self._is_done(case)]
        self.kept = len(self.cases) - len(missing)
        if self.kept:
            tell(f"{self.kept} of {len(self.cases)} images are done already")
        progress = Progress(len(missing), sum(map(self._work, missing)), tell, shown=bar)
        steps = Steps(self._read, self._compute, self._write, lambda case: bytes_of(self.model, case))
        try:
            for case, error in convey(missing, steps, self.options.limits):
                if error is not None:
                    self.refused += 1
                    refused[case.name] = str(error)
                    tell(f"refused: {error}")
                progress.advance(self._work(case))
        except (OSError, RuntimeError) as e:
            if isinstance(e, IsADirectoryError):
                place = e.filename2 or e.filename
                raise UserError(f"{place} is a folder in the place of a file; take it away") from e
            reason = e.strerror if isinstance(e, OSError) and e.strerror else reason_of(e)
            raise UserError(
                f"{self.output} cannot be written into any more ({reason}); make room and run the same command again"
            ) from e
        finally:
            progress.close()

    def _files(self, case: CaseFiles) -> list[Path]:
        """What a case is predicted from."""
        labels = self.options.previous_stage_labels
        return replace(case, label=labels and labels / f"{case.name}{self.model.ending}").sources

    def _work(self, case: CaseFiles) -> int:
        return sum(path.stat().st_size for path in self._files(case) if path.is_file())

    def _is_done(self, case: CaseFiles) -> bool:
        if self.options.overwrite:
            return False
        if self.options.keep_existing and all((self.output / f"{case.name}{end}").is_file() for end in self.endings):
            return True
        return self.finished.has(case.name, self._files(case), self.endings)

    def _read(self, case: CaseFiles) -> PreparedCase:
        self.inputs[case.name] = described(self._files(case))
        prepared = self.model.prepare(case, self.options.previous_stage_labels)
        return replace(prepared, image=np.empty((0, 0, 0, 0), np.float32))  # not wanted any more, and large

    def _compute(self, cases: Sequence[PreparedCase]) -> list[tuple[PreparedCase, torch.Tensor] | UserError]:
        def logits_of(some: Sequence[PreparedCase]) -> list[tuple[PreparedCase, torch.Tensor]]:
            logits = self.model.logits_of(some)
            return list(zip([replace(case, data=torch.empty(0)) for case in some], logits, strict=True))

        return together_or_alone(logits_of, cases)

    def _write(self, case: CaseFiles, result: tuple[PreparedCase, torch.Tensor]) -> None:
        """All results of a case under their temporary names, then the record, then their names."""
        prepared, logits = result
        with replacing(self.output / case.name, self.endings) as unfinished:
            if self.options.save_probabilities:
                labels, probabilities = self.model.label_map(prepared, logits)
                _write_npz(Path(f"{unfinished}.npz"), probabilities)
                Path(f"{unfinished}.pkl").write_bytes(pickle.dumps(prepared.properties))
            else:
                labels = self.model.labels(prepared, logits)
            path = Path(f"{unfinished}{self.model.ending}")
            final = self.output / f"{case.name}{self.model.ending}"
            fill_labels(path, final, labels, prepared.properties, self.model.reader)
            sizes = {ending: Path(f"{unfinished}{ending}").stat().st_size for ending in self.endings}
            self._describe()
            self.finished.record(case.name, self.inputs.pop(case.name), sizes)

    def _describe(self) -> None:
        """What nnU-Net's ensembling and post-processing, and ``nnunet-covid evaluate``, look for beside label maps."""
        with self.writing_beside:
            for name, content in (
                ("dataset.json", self.model.dataset_json),
                ("plans.json", self.model.predictor.plans_manager.plans),
            ):
                if name not in self.beside:
                    write_json(self.output / name, content)
                    self.beside.add(name)


def together_or_alone(
    predict: Callable[[Sequence[PreparedCase]], Sequence[Result]], cases: Sequence[PreparedCase]
) -> list[Result | UserError]:
    """What is predicted of several images; where that fails, of each alone: one image cannot stop the others."""
    try:
        return list(predict(cases))
    except RuntimeError as e:
        if len(cases) > 1:
            return [result for case in cases for result in together_or_alone(predict, [case])]
        return [UserError(f"case {cases[0].name} cannot be predicted ({reason_of(e)})")]


def _write_npz(path: Path, probabilities: NDArray[np.float32]) -> None:
    """As ``numpy.savez_compressed``, at zlib's fastest level: probabilities hardly shrink at a higher one."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("probabilities.npy", "w", force_zip64=True) as stream,
    ):
        np.lib.format.write_array(stream, np.ascontiguousarray(probabilities), allow_pickle=False)


def digest_of_model(model: TrainedModel) -> str:
    """Sixteen digits of everything that decides a label map beside the image: plans, weights, mirroring and step."""
    predictor = model.predictor
    checkpoints = [f"fold_{fold}/{model.checkpoint}" for fold in model.folds]
    files = {name: sha256_of(model.folder / name) for name in ("plans.json", "dataset.json", *checkpoints)}
    settings = {"mirroring": predictor.use_mirroring, "step": predictor.tile_step_size}
    return digest_of({"files": files, **settings}, 16)
