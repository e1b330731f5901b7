"""Prediction in this process: a trained model folder, its networks tile by tile, and the way back into the image.

What nnU-Net does is left to nnU-Net; its mistakes are told in one line. Files are listed, read and written in
:mod:`nnunet_covid.nnunet.dataset`.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from numpy.typing import NDArray
from torch import nn

from nnunet_covid.checkpoint import refusal_of, restricted
from nnunet_covid.dataset_json import channel_names, foreground_values
from nnunet_covid.errors import UserError, reason_of
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import read_images, read_labels
from nnunet_covid.nnunet.export import label_map, label_map_and_probabilities
from nnunet_covid.nnunet.external import known_trainers_found_at_once
from nnunet_covid.nnunet.intensities import refuse_other_scale
from nnunet_covid.nnunet.models import fold_folders, require_trained_model
from nnunet_covid.nnunet.resampling import InParts
from nnunet_covid.nnunet.sliding_window import BatchPredictor
from nnunet_covid.startup import chosen_device, offer_trainers
from nnunet_covid.whole_files import is_whole


@dataclass(frozen=True)
class ForegroundClass:
    """A foreground class or region and the network's output channel that stands for it."""

    name: str
    head: int


@dataclass(frozen=True)
class PreparedCase:
    """One case as its reader gave it and as nnU-Net pre-processes it.

    Attributes:
        image: (channels, *axes) as read from the files; without voxels where nobody wants them.
        data: (channels, *spatial) in the plan's spacing; with a previous stage its one-hot labels behind them.
        properties: What nnU-Net keeps in order to undo the pre-processing.
    """

    name: str
    image: NDArray[np.float32]
    data: torch.Tensor
    properties: dict[str, Any]


class TrainedModel:
    """The networks of one model folder and everything nnU-Net does before and after them.

    Attributes:
        predictor: nnU-Net's own, for patches of several images at once.
        folds: Whose weights are used.
        checkpoint: File name of the weights in every fold.
    """

    def __init__(
        self,
        folder: Path,
        *,
        folds: Sequence[str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: str = "auto",
        mirroring: bool = True,
        step_size: float = 0.5,
        batch: int | None = None,
    ) -> None:
        """Load plans, networks and weights.

        Args:
            folder: As nnU-Net writes it: ``TRAINER__PLANS__CONFIGURATION``, with ``plans.json`` and ``fold_*``.
            folds: Folds to use; all with this checkpoint (but not ``all``, unless it is alone) if not given.
            checkpoint: File name of the weights in every fold.
            device: One of :data:`nnunet_covid.startup.DEVICES`.
            mirroring: Predict the mirrored image too and average, as nnU-Net does by default.
            step_size: Distance of patches as a share of their size, above 0 and at most 1.
            batch: Patches in a forward pass; see :class:`nnunet_covid.nnunet.sliding_window.BatchPredictor`.

        Raises:
            UserError: If the folder, a fold, the checkpoint, the trainer or the device is not there.
        """
        self.folder = folder
        self.checkpoint = checkpoint
        self.folds = _checked_folds(folder, folds, checkpoint)
        self.device = torch.device(chosen_device(device))
        offer_trainers()  # so that our trainers are found where nothing is registered
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said), restricted():
                self.predictor = BatchPredictor(
                    tile_step_size=step_size,
                    use_mirroring=mirroring,
                    perform_everything_on_device=self.device.type == "cuda",
                    device=self.device,
                    allow_tqdm=False,
                )
                with known_trainers_found_at_once():
                    self.predictor.initialize_from_trained_model_folder(str(folder), self.folds, checkpoint)
                self.predictor.batch = batch
                _ = self.predictor.label_manager.foreground_labels  # nnU-Net reads the labels only now
        except Exception as e:  # a foreign model leads nnU-Net and torch into whatever its files say
            weights = [folder / f"fold_{fold}" / checkpoint for fold in self.folds]
            raise UserError(f"{folder} cannot be opened: {_why_not_opened(e, weights)}") from e
        if len({repr(_beside(weights)) for weights in self.predictor.list_of_parameters}) > 1:
            raise UserError(f"{folder}: folds of it are not calibrated alike; run nnunet-covid calibrate {folder}")
        # outside inference mode, or its weights could take no part in gradients
        self.predictor.network = self.predictor.network.to(self.device).eval()

    @cached_property
    def _configuration(self) -> InParts:
        return InParts(self.predictor.configuration_manager.configuration)

    @property
    def network(self) -> nn.Module:
        """The network, without the wrapper of compilation."""
        return self.predictor.bare_network

    @property
    def dataset_json(self) -> dict[str, Any]:
        """Of the training data set."""
        return self.predictor.dataset_json

    @property
    def ending(self) -> str:
        """Of the files of images."""
        return self.dataset_json["file_ending"]

    @property
    def channels(self) -> int:
        """Image channels that the model was trained on."""
        return len(channel_names(self.dataset_json))

    @property
    def reader(self) -> Any:
        """nnU-Net's reader and writer of these images."""
        return self.predictor.plans_manager.image_reader_writer_class()

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Of the configuration, two or three sides."""
        return tuple(self.predictor.configuration_manager.patch_size)

    @property
    def previous_stage(self) -> str | None:
        """The configuration whose label maps a cascade's second stage needs."""
        return self.predictor.configuration_manager.previous_stage_name

    def use_fold(self, index: int) -> None:
        """Load the weights of one of the folds, an index into ``folds``."""
        self.predictor.use_weights(index)

    def foreground_classes(self) -> list[ForegroundClass]:
        """The classes (or regions) that the network has an output channel for, in its order, background left out."""
        manager = self.predictor.label_manager
        foreground = foreground_values(self.dataset_json["labels"])
        if manager.has_regions:
            return [ForegroundClass(name, head) for head, name in enumerate(foreground)]
        return [ForegroundClass(name, manager.all_labels.index(values[0])) for name, values in foreground.items()]

    def cases(
        self, images: Path, previous_stage_labels: Path | None = None, refused: dict[str, str] | None = None
    ) -> list[CaseFiles]:
        """The cases of a folder.

        Args:
            images: Folder in nnU-Net's naming.
            previous_stage_labels: Folder of label maps, where the model is the second stage of a cascade.
            refused: Receives the reason for which a case is left out, instead of an error.

        Raises:
            UserError: If there are none, names or channels are wrong, or a cascade's previous stage is missing.
        """
        cases = list_cases(images, self.ending, self.channels, refused=refused)
        if self.previous_stage is None:
            if previous_stage_labels is not None:
                raise UserError(
                    f"{self.folder} is no second stage of a cascade: leave out the previous stage's predictions"
                )
            return cases
        if previous_stage_labels is None:
            raise UserError(
                f"{self.folder} is the second stage of a cascade: predict the images with {self.previous_stage} first "
                "and name that folder as the previous stage's predictions"
            )
        missing = {}
        for case in cases:
            path = previous_stage_labels / f"{case.name}{self.ending}"
            if not path.is_file():
                missing[case.name] = f"{path} is missing: {self.previous_stage}'s prediction of case {case.name}"
        if refused is None and missing:
            raise UserError(next(iter(missing.values())))
        if refused is not None:
            refused.update(missing)
        return [case for case in cases if case.name not in missing]

    def read(self, case: CaseFiles, channels: int | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The image of a case (channels, *axes) and its properties, from nnU-Net's reader.

        Args:
            case: Its files.
            channels: How many the image must have; as many as the model was trained on if not given.

        Raises:
            UserError: If a file cannot be read or is damaged, or the number of channels or the scale is another.
        """
        expected = self.channels if channels is None else channels
        image, properties = read_images(self.reader, case.files)
        if len(image) != expected:
            found = f"case {case.name} has {len(image)} channel(s), the model was trained on {expected}"
            raise UserError(f"{case.files[0]}: {found}; {self._remedy_of_channels(len(image), expected)}")
        for path in case.files:
            if not is_whole(path, image):
                raise UserError(f"{path} is cut short or damaged; copy it again")
        planned = self.predictor.configuration_manager.normalization_schemes
        refuse_other_scale(image, f"case {case.name}", self.predictor.plans_manager.plans, planned)
        return image, properties

    def _remedy_of_channels(self, found: int, expected: int) -> str:
        if found < expected:
            return f"add the others under the names …_{found:04d}{self.ending} and so on"
        colours = "colours or transparency in a picture, save it in grey"
        return f"take out what is more ({colours}; several volumes in one file, export one)"

    def prepare(self, case: CaseFiles, previous_stage_labels: Path | None = None) -> PreparedCase:
        """Read and pre-process one case as nnU-Net's predictor does, in this process.

        Raises:
            UserError: If a file cannot be read or holds another number of channels than the model was trained on.
        """
        image, properties = self.read(case)
        labels = None
        if self.previous_stage is not None and previous_stage_labels is not None:
            labels, _ = read_labels(self.reader, previous_stage_labels / f"{case.name}{self.ending}")
        return self.prepare_image(case.name, image, properties, labels)

    def prepare_image(
        self,
        name: str,
        image: NDArray[np.float32],
        properties: dict[str, Any],
        previous_stage_labels: NDArray[Any] | None = None,
    ) -> PreparedCase:
        """Pre-process an image (channels, *axes) as nnU-Net's predictor does; ``properties`` are left as they are."""
        predictor = self.predictor
        preprocessed = PreprocessAdapterFromNpy(
            [image],
            [previous_stage_labels],
            [dict(properties)],
            None,
            predictor.plans_manager,
            predictor.dataset_json,
            self._configuration,
        )
        try:
            made = next(preprocessed)
        except (OSError, RuntimeError, ValueError, AssertionError, KeyError, IndexError) as e:
            raise UserError(f"case {name} cannot be pre-processed with the plans of the model ({reason_of(e)})") from e
        return PreparedCase(name, image, made["data"].to(torch.float32).contiguous(), made["data_properties"])

    def logits_of(self, cases: Sequence[PreparedCase]) -> list[torch.Tensor]:
        """Of each case, logits (heads, *spatial) in the plan's spacing, half precision: nnU-Net's, over all folds."""
        return self.predictor.predict_logits_of([case.data for case in cases])

    def predict_logits(self, case: PreparedCase) -> torch.Tensor:
        """Logits (heads, *spatial) of one case in single precision."""
        return self.logits_of([case])[0].float()

    def labels(self, case: PreparedCase, logits: torch.Tensor) -> NDArray[Any]:
        """The label map (*image axes) that nnU-Net exports where no probabilities are asked for."""
        p = self.predictor
        return label_map(logits, case.properties, p.plans_manager, p.configuration_manager, p.label_manager)

    def fold_logits(self, cases: Sequence[PreparedCase]) -> list[list[torch.Tensor]]:
        """Logits (heads, *spatial) of each case in single precision, for each fold; its weights are loaded once."""
        found = []
        for parameters in self.predictor.list_of_parameters:
            with self.alone(parameters):
                found.append([logits.float() for logits in self.logits_of(cases)])
        return found

    @contextlib.contextmanager
    def alone(self, parameters: Any) -> Iterator[None]:
        """While this lasts, the network with these weights predicts alone instead of all folds."""
        together = self.predictor.list_of_parameters
        self.predictor.list_of_parameters = [parameters]
        try:
            yield
        finally:
            self.predictor.list_of_parameters = together

    def label_map(self, case: PreparedCase, logits: torch.Tensor) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """What nnU-Net exports with probabilities: the label map (*image axes) and (heads, *image axes)."""
        p = self.predictor
        return label_map_and_probabilities(
            logits, case.properties, p.plans_manager, p.configuration_manager, p.label_manager
        )


def _beside(weights: Any) -> dict[str, Any]:
    """What stands beside the weights of a whole network, a calibration; torch keeps versions of layers there."""
    noted = getattr(weights, "_metadata", {}).get("", {})
    return {key: value for key, value in noted.items() if key != "version"}


def _why_not_opened(error: Exception, weights: Sequence[Path]) -> str:
    if cut := [path for path in weights if not zipfile.is_zipfile(path)]:
        return f"{Path(cut[0].parent.name, cut[0].name)} is cut short or damaged; copy it again, or train that fold"
    if str(error).startswith("Error(s) in loading state_dict"):
        return "its weights do not fit the network that its trainer builds here; install the version that trained it"
    return refusal_of(error).split(" in nnunetv2.training")[0]


def _checked_folds(folder: Path, folds: Sequence[str] | None, checkpoint: str) -> tuple[str, ...]:
    require_trained_model(folder)
    present = [path.name.removeprefix("fold_") for path in fold_folders(folder, checkpoint)]
    if not present:
        others = sorted({path.name for path in folder.glob("fold_*/checkpoint_*.pth")})
        hint = f"present: {', '.join(others)}; choose one of these" if others else "train it first"
        raise UserError(f"{folder} has no {checkpoint} in any fold; {hint}")
    if folds is None:
        return tuple(fold for fold in present if fold != "all") or ("all",)
    missing = [fold for fold in folds if fold not in present]
    if missing:
        raise UserError(f"{folder} has no fold {missing[0]} with {checkpoint}; there are {', '.join(present)}")
    return tuple(folds)
