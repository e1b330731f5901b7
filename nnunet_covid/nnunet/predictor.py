"""Prediction in this process: a trained model folder, its networks tile by tile, and the way back into the image.

What nnU-Net does is left to nnU-Net; its mistakes are told in one line. Files are listed, read and written in
:mod:`nnunet_covid.nnunet.dataset`.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.data_iterators import PreprocessAdapterFromNpy
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray
from torch import nn
from torch._dynamo import OptimizedModule

from nnunet_covid.checkpoint import refusal_of, restricted
from nnunet_covid.dataset_json import channel_names, foreground_values
from nnunet_covid.errors import UserError
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.dataset import read_images, read_labels
from nnunet_covid.nnunet.models import fold_folders, require_trained_model
from nnunet_covid.startup import chosen_device, offer_trainers

Position = tuple[Any, ...]
"""Index of a tile in the padded image, channel axis first."""
Resampling = Callable[..., Any]
"""From (channels, *spatial), a shape, the present and the wanted spacing to the same in that shape."""


@dataclass(frozen=True)
class ForegroundClass:
    """A foreground class or region and the network's output channel that stands for it."""

    name: str
    head: int


@dataclass(frozen=True)
class PreparedCase:
    """One case as its reader gave it and as nnU-Net pre-processes it.

    Attributes:
        image: (channels, *axes) as read from the files.
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
        predictor: nnU-Net's own.
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
    ) -> None:
        """Load plans, networks and weights.

        Args:
            folder: As nnU-Net writes it: ``TRAINER__PLANS__CONFIGURATION``, with ``plans.json`` and ``fold_*``.
            folds: Folds to use; all with this checkpoint (but not ``all``, unless it is alone) if not given.
            checkpoint: File name of the weights in every fold.
            device: One of :data:`nnunet_covid.startup.DEVICES`.
            mirroring: Predict the mirrored image too and average, as nnU-Net does by default.

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
                self.predictor = nnUNetPredictor(
                    use_mirroring=mirroring,
                    perform_everything_on_device=self.device.type == "cuda",
                    device=self.device,
                    allow_tqdm=False,
                )
                self.predictor.initialize_from_trained_model_folder(str(folder), self.folds, checkpoint)
                _ = self.predictor.label_manager.foreground_labels  # nnU-Net reads the labels only now
        except Exception as e:  # a foreign model leads nnU-Net and torch into whatever its files say
            reason = refusal_of(e).split(" in nnunetv2.training")[0]
            raise UserError(f"{folder} cannot be opened: {reason}") from e
        # outside inference mode, or its weights could take no part in gradients
        self.predictor.network = self.predictor.network.to(self.device).eval()

    @property
    def network(self) -> nn.Module:
        """The network, without the wrapper of compilation."""
        network = self.predictor.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

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
        self.network.load_state_dict(self.predictor.list_of_parameters[index])

    def foreground_classes(self) -> list[ForegroundClass]:
        """The classes (or regions) that the network has an output channel for, in its order, background left out."""
        manager = self.predictor.label_manager
        foreground = foreground_values(self.dataset_json["labels"])
        if manager.has_regions:
            return [ForegroundClass(name, head) for head, name in enumerate(foreground)]
        return [ForegroundClass(name, manager.all_labels.index(values[0])) for name, values in foreground.items()]

    def cases(self, images: Path, previous_stage_labels: Path | None = None) -> list[CaseFiles]:
        """The cases of a folder.

        Raises:
            UserError: If there are none, names or channels are wrong, or a cascade's previous stage is missing.
        """
        cases = list_cases(images, self.ending, self.channels)
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
        for case in cases:
            path = previous_stage_labels / f"{case.name}{self.ending}"
            if not path.is_file():
                raise UserError(f"{path} is missing: {self.previous_stage}'s prediction of case {case.name}")
        return cases

    def read(self, case: CaseFiles, channels: int | None = None) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The image of a case (channels, *axes) and its properties, from nnU-Net's reader.

        Args:
            case: Its files.
            channels: How many the image must have; as many as the model was trained on if not given.

        Raises:
            UserError: If a file cannot be read or the number of channels is another.
        """
        expected = self.channels if channels is None else channels
        image, properties = read_images(self.reader, case.files)
        if len(image) != expected:
            raise UserError(
                f"{case.files[0]}: case {case.name} has {len(image)} channel(s), the model was trained on {expected}"
            )
        return image, properties

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
            predictor.configuration_manager,
        )
        made = next(preprocessed)
        return PreparedCase(name, image, made["data"].to(torch.float32).contiguous(), made["data_properties"])

    def predict_logits(self, case: PreparedCase) -> torch.Tensor:
        """Logits (heads, *spatial) in the plan's spacing: nnU-Net's sliding window, averaged over the folds."""
        with contextlib.redirect_stdout(io.StringIO()):
            return self.predictor.predict_logits_from_preprocessed_data(case.data).float()

    def fold_logits(self, case: PreparedCase) -> list[torch.Tensor]:
        """As :meth:`predict_logits`, one for each fold."""
        together = self.predictor.list_of_parameters
        try:
            found = []
            for parameters in together:
                self.predictor.list_of_parameters = [parameters]
                found.append(self.predict_logits(case))
            return found
        finally:
            self.predictor.list_of_parameters = together

    def label_map(self, case: PreparedCase, logits: torch.Tensor) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """What nnU-Net exports: the label map (*image axes) and the probabilities (heads, *image axes)."""
        predictor = self.predictor
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.label_manager,
            case.properties,
            return_probabilities=True,
            num_threads_torch=torch.get_num_threads(),
        )


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


class Tiles:
    """The tiles of one pre-processed image: nnU-Net's padding, positions and Gaussian weight.

    Args:
        predictor: Of the model; gives patch size and step.
        data: (channels, *spatial), always three spatial axes.
    """

    def __init__(self, predictor: nnUNetPredictor, data: torch.Tensor) -> None:
        patch = tuple(predictor.configuration_manager.patch_size)
        self.data, self._inside = pad_nd_image(data, patch, "constant", {"value": 0}, True, None)
        self.positions: list[Position] = predictor._internal_get_sliding_window_slicers(self.data.shape[1:])
        # half precision as in nnU-Net: there the far corners of a patch weigh what the smallest half does
        gaussian = compute_gaussian(
            patch, sigma_scale=1.0 / 8, value_scaling_factor=10, dtype=torch.float16, device=torch.device("cpu")
        )
        self.weight = gaussian.float()
        self.total = torch.zeros(self.data.shape[1:])
        for position in self.positions:
            self.total[position[1:]] += self.weight

    def cut(self, position: Position) -> torch.Tensor:
        """The image inside a tile, (1, channels, *patch)."""
        return self.data[position][None].contiguous()

    def share(self, position: Position) -> torch.Tensor:
        """How much the tile contributes to the stitched value of each of its voxels, (*patch); sums to 1 over tiles."""
        return self.weight / self.total[position[1:]]

    def pad(self, mask: torch.Tensor) -> torch.Tensor:
        """A mask of the image, (*spatial), on the padded grid, so that it can be indexed like the tiles."""
        padded = torch.zeros(self.data.shape[1:], dtype=mask.dtype)
        padded[self._inside[1:]] = mask
        return padded

    def canvas(self, channels: int) -> torch.Tensor:
        """Zeros for :meth:`paint`, (channels, *padded)."""
        return torch.zeros((channels, *self.data.shape[1:]))

    def paint(self, canvas: torch.Tensor, position: Position, maps: torch.Tensor) -> None:
        """Add the maps of one tile, (channels, *patch), with the tile's share."""
        canvas[position] += maps.to(canvas) * self.share(position)

    def unpad(self, canvas: torch.Tensor) -> torch.Tensor:
        """The finished canvas without the padding, (channels, *spatial)."""
        return canvas[(slice(None), *self._inside[1:])]


def to_image_grid(
    maps: NDArray[Any],
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    resample: Resampling | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Undo nnU-Net's resampling, cropping and transposition.

    Args:
        maps: (channels, *spatial) on the pre-processed grid.
        properties: Of the case, as the preprocessor returned them.
        plans: Of the model.
        configuration: Of the model.
        resample: One of the configuration's; linear, as nnU-Net does it for logits, if not given.

    Returns:
        The maps (channels, *image axes), 0 where nnU-Net had cropped the image, and where it had not, (*image axes).
    """
    shape = properties["shape_after_cropping_and_before_resampling"]
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    planned = list(configuration.spacing)
    current = planned if len(planned) == len(shape) else [spacing[0], *planned]
    resampled = np.asarray((resample or configuration.resampling_fn_probabilities)(maps, shape, current, spacing))
    whole = np.zeros((len(maps), *properties["shape_before_cropping"]), resampled.dtype)
    inside = np.zeros(properties["shape_before_cropping"], bool)
    box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    whole[(slice(None), *box)] = resampled
    inside[box] = True
    back = list(plans.transpose_backward)
    return whole.transpose([0, *(i + 1 for i in back)]), inside.transpose(back)
