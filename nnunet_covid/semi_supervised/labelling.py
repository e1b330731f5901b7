"""From one pre-processed image to its pseudo label: prediction, trust, the files of it and the record that it is done.

A pseudo label is written twice: as the label of a pre-processed case, which is trained on, and in the geometry of the
image it belongs to, which is looked at.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnunet_covid.dataset_json import BACKGROUND, IGNORE, foreground_values, label_values
from nnunet_covid.errors import UserError
from nnunet_covid.files import replacing, write_json
from nnunet_covid.nnunet.dataset import write_labels
from nnunet_covid.nnunet.predictor import to_image_grid
from nnunet_covid.nnunet.preprocess import OUTSIDE
from nnunet_covid.semi_supervised.experiment import Experiment, quiet
from nnunet_covid.semi_supervised.options import RoundOptions
from nnunet_covid.semi_supervised.training import open_blosc2
from nnunet_covid.semi_supervised.trust import Heads, mean_confidence


@dataclass(frozen=True)
class Prediction:
    """Of one case.

    Attributes:
        probabilities: (heads, *spatial), float32.
        certainty: In the same shape: the probabilities, or the share of mirrored predictions for each head.
        confidence: Mean certainty of what is predicted over the predicted foreground.
        seconds: Spent in forward passes.
    """

    probabilities: NDArray[np.float32]
    certainty: NDArray[np.float32]
    confidence: float
    seconds: float


class CasePredictor:
    """Predicts pre-processed cases with the network of a trainer.

    Args:
        trainer: Initialised, with the weights to predict with.
        mirroring: Average over mirrored inputs, along the axes that the trainer mirrors in training.
        compare: Take the certainty from how far the mirrored predictions agree.
    """

    def __init__(self, trainer: nnUNetTrainer, *, mirroring: bool = True, compare: bool = False) -> None:
        with quiet():
            on_device = trainer.device.type == "cuda"
            self._predictor = nnUNetPredictor(
                use_mirroring=mirroring and not compare,
                perform_everything_on_device=on_device,
                device=trainer.device,
                allow_tqdm=False,
            )
            axes = trainer.inference_allowed_mirroring_axes
            self._predictor.manual_initialization(
                trainer.network,
                trainer.plans_manager,
                trainer.configuration_manager,
                None,
                trainer.dataset_json,
                type(trainer).__name__,
                axes,
            )
        trainer.set_deep_supervision_enabled(False)
        trainer.network.eval()
        self._labels = trainer.label_manager
        self._heads = heads_of(trainer.label_manager)
        self._compare = compare
        self._mirrored: list[tuple[int, ...]] = [()]
        if compare and axes:
            # the image has a channel axis in front, and in 2D a slice axis
            first = 4 - len(trainer.configuration_manager.patch_size)
            axes = [a + first for a in axes]
            self._mirrored = [c for n in range(len(axes) + 1) for c in itertools.combinations(axes, n)]

    def predict(self, image: NDArray[np.float32]) -> Prediction:
        """Predict an image (C, *spatial) as nnU-Net does."""
        start = time.perf_counter()
        data = torch.from_numpy(np.ascontiguousarray(image))
        all_logits = [self._logits(torch.flip(data, axes)).flip(axes) for axes in self._mirrored]
        mean = torch.stack(all_logits).mean(0) if len(all_logits) > 1 else all_logits[0]
        seconds = time.perf_counter() - start
        probabilities = self._labels.apply_inference_nonlin(mean).numpy()
        certainty = self._heads.votes([one.numpy() for one in all_logits]) if self._compare else probabilities
        sure = self._heads.certainty_of_prediction(probabilities, certainty)
        return Prediction(probabilities, certainty, mean_confidence(sure, self.labels_of(probabilities)), seconds)

    def labels_of(self, probabilities: NDArray[np.float32]) -> NDArray[np.integer]:
        """The label map that nnU-Net makes of probabilities."""
        return np.asarray(self._labels.convert_probabilities_to_segmentation(probabilities))

    def _logits(self, data: torch.Tensor) -> Any:
        return self._predictor.predict_sliding_window_return_logits(data).float().cpu()


def heads_of(manager: LabelManager) -> Heads:
    """What the output channels of a network stand for by nnU-Net's reading of the labels."""
    values = manager.regions_class_order if manager.has_regions else manager.all_labels
    return Heads(tuple(int(v) for v in values or ()), manager.has_regions)


@dataclass(frozen=True)
class Classes:
    """The classes of a data set as pseudo labels need them.

    Attributes:
        dataset_json: Description of the data set, with an ignore label if pseudo labels have one.
        manager: nnU-Net's reading of the labels.
        names: Name of each foreground class or region to the label values it covers.
    """

    dataset_json: dict[str, Any]
    manager: LabelManager
    names: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, dataset_json: dict[str, Any], plans: PlansManager, *, ignore: bool = False) -> Classes:
        """From the description of a data set.

        Args:
            dataset_json: The description.
            plans: Any plans of the data set.
            ignore: Whether pseudo labels have an ignore label, which the data set may lack.
        """
        described = with_ignore_label(dataset_json) if ignore else dataset_json
        return cls(described, plans.get_label_manager(described), foreground_values(described["labels"]))

    def thresholds(self, eta: float, single: Mapping[str, float]) -> list[float]:
        """η of each head.

        Raises:
            UserError: If a class of that name does not exist.
        """
        known = [*self.names] if self.manager.has_regions else [BACKGROUND, *self.names]
        for name in single:
            if name not in known:
                raise UserError(f"`threshold` {name}=…: the classes are {', '.join(known)}")
        if self.manager.has_regions:
            return [single.get(name, eta) for name in self.names]
        by_value = {values[0]: name for name, values in self.names.items()} | {0: BACKGROUND}
        return [single.get(by_value[int(v)], eta) for v in self.manager.all_labels]

    def counts(self, label: NDArray[np.integer]) -> dict[str, int]:
        """Voxels of each label value, background included, ignored voxels left out; what lies outside is background."""
        inside = np.maximum(label, 0)
        return {str(int(v)): int((inside == v).sum()) for v in self.manager.all_labels}

    def voxels(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Voxels of each foreground class or region from those of each label value."""
        return {name: sum(counts[str(v)] for v in values) for name, values in self.names.items()}

    @property
    def heads(self) -> Heads:
        """What the network's output channels stand for."""
        return heads_of(self.manager)

    def dice(self, predicted: NDArray[np.integer], reference: NDArray[np.integer]) -> dict[str, float]:
        """Dice of each class; not a number where neither has it, as in nnU-Net's summaries. Ignored voxels are out."""
        counted = reference != self.manager.ignore_label if self.manager.has_ignore_label else np.True_
        result = {}
        for name, values in self.names.items():
            p, r = np.isin(predicted, values) & counted, np.isin(reference, values) & counted
            total = int(p.sum()) + int(r.sum())
            result[name] = 2 * int((p & r).sum()) / total if total else float("nan")
        return result


def with_ignore_label(dataset_json: dict[str, Any]) -> dict[str, Any]:
    """The same description with an ignore label, which must be the highest value."""
    labels = dict(dataset_json["labels"])
    if IGNORE not in labels:
        labels[IGNORE] = max(v for values in label_values(labels).values() for v in values) + 1
    return {**dataset_json, "labels": labels}


class Labeller:
    """Turns predictions into pseudo labels.

    Args:
        experiment: Plans and file ending.
        options: Thresholds and what becomes of untrusted voxels.

    Raises:
        UserError: If a threshold belongs to no class.
    """

    def __init__(self, experiment: Experiment, options: RoundOptions) -> None:
        self.experiment = experiment
        self.options = options
        ignore = options.untrusted == "ignore"
        self.classes = Classes.of(experiment.dataset_json, experiment.plans_manager, ignore=ignore)
        self._thresholds = self.classes.thresholds(options.threshold, options.class_thresholds)
        self._untrusted = self.classes.manager.ignore_label if ignore else None

    def label(
        self, head: dict[str, Any], case: Path, target: Path, predictor: CasePredictor
    ) -> tuple[dict[str, Any], float]:
        """Predict and write one case; its record is written last.

        Args:
            head: Image, round and model, for the record.
            case: The pre-processed image, without ending.
            target: The pseudo label, without ending.
            predictor: Holds the model.

        Returns:
            The record and the seconds of forward passes.
        """
        prediction = predictor.predict(open_blosc2(case, ".b2nd")[:])
        heads = self.classes.heads
        label, predicted = heads.trusted(
            prediction.probabilities, self._thresholds, self._untrusted, prediction.certainty
        )
        outside = open_blosc2(case, "_seg.b2nd")[0] == OUTSIDE
        stored = np.where(outside & (label == 0), np.int16(OUTSIDE), label)[None]
        self._write_label(target, stored, heads.to_bytes(prediction.probabilities) if self.options.soft else None)
        if self.options.export:
            shown = self.experiment.shown_folder(head["round"])
            path = shown / f"{target.name}{self.experiment.dataset_json['file_ending']}"
            self._write_in_image_geometry(path, stored, load_pickle(f"{case}.pkl"))
        counts = self.classes.counts(label)
        record = {
            **head,
            "confidence": prediction.confidence,
            "predicted": self.classes.voxels(self.classes.counts(predicted)),
            "kept": self.classes.voxels(counts),
            "counts": counts,
        }
        write_json(_record_file(target), record, indent=None)
        return record, prediction.seconds

    def _write_label(self, target: Path, label: NDArray[np.int16], soft: NDArray[np.uint8] | None) -> None:
        """Write the label of a pre-processed case, (1, *spatial), and the locations of its classes."""
        manager, configuration = self.classes.manager, self.experiment.configuration_manager
        wanted = list(manager.foreground_regions if manager.has_regions else manager.foreground_labels)
        if manager.has_ignore_label:
            wanted.append([-1, *manager.all_labels])
        locations = configuration.preprocessor_class._sample_foreground_locations(label, wanted)
        arrays: dict[str, NDArray[Any]] = {"_seg.b2nd": label}
        if soft is not None:
            arrays["_soft.b2nd"] = soft
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, [*arrays, ".pkl"]) as unfinished:
            for ending, array in arrays.items():
                _write_array(f"{unfinished}{ending}", array, tuple(configuration.patch_size))
            write_pickle({"class_locations": locations}, f"{unfinished}.pkl")

    def _write_in_image_geometry(self, path: Path, label: NDArray[np.int16], properties: dict[str, Any]) -> None:
        """Write a label, (1, *spatial), with nnU-Net's writer, in the geometry that the image had before.

        What is resampled is the label itself, so that the file shows what is trained on.
        """
        plans, configuration = self.experiment.plans_manager, self.experiment.configuration_manager
        inside = np.where(label == OUTSIDE, 0, label).astype(np.int16)
        whole = to_image_grid(inside, properties, plans, configuration, configuration.resampling_fn_seg)[0][0]
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = whole.astype(np.uint8 if whole.max() < 256 else np.uint16)
        write_labels(path, whole, properties, plans.image_reader_writer_class())


def _write_array(path: str, array: NDArray[Any], patch: tuple[int, ...]) -> None:
    blocks, chunks = comp_blosc2_params(array.shape, patch, array.itemsize)
    settings = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1}
    blosc2.asarray(np.ascontiguousarray(array), urlpath=path, chunks=chunks, blocks=blocks, cparams=settings)


def _record_file(target: Path) -> Path:
    """The last file of a pseudo-labelled case: where it is, the case is done."""
    return target.with_name(f"{target.name}.json")


def read_record(target: Path, model: str) -> dict[str, Any] | None:
    """The record of a case that is done with this model; ``None`` if it is not."""
    try:
        record = json.loads(_record_file(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if record.get("model") == model else None
