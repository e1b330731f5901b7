"""From the prediction of a pre-processed image to its pseudo label: trust, the files, the record that it is done.

A pseudo label is written twice: as the label of a pre-processed case, which is trained on, and in the geometry of the
image it belongs to, which is looked at.

Soft labels serve any loss: a loss that wants integers cannot take probabilities, so a hard label is drawn anew each
time a case is used. One threshold u, uniform in (0, 1), is drawn for the whole image and each voxel takes the class in
whose part of the stacked probabilities u falls. A voxel has class c with exactly its probability, so that the expected
cross entropy is that with the probabilities as target; and because u is shared, what the network sees is a shape, not
noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from nnunet_covid.dataset_json import BACKGROUND, IGNORE, foreground_values, label_values
from nnunet_covid.errors import UserError
from nnunet_covid.files import read_json, replacing, write_json
from nnunet_covid.nnunet.export import to_image_grid
from nnunet_covid.nnunet.preprocess import OUTSIDE
from nnunet_covid.nnunet.written_images import write_labels
from nnunet_covid.semi_supervised.experiment import Experiment
from nnunet_covid.semi_supervised.options import RoundOptions

STEPS = 255
"""Probabilities of soft labels are kept in as many steps."""

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Heads:
    """What the output channels of a network stand for.

    Attributes:
        values: The label value of each channel: all labels, background first, or nnU-Net's ``regions_class_order``.
        regions: Whether the channels are overlapping regions with a sigmoid each, not the classes of a softmax.
    """

    values: tuple[int, ...]
    regions: bool = False

    def votes(self, logits: Sequence[Floats]) -> NDArray[np.float32]:
        """Share of the mirrored predictions that vote for each channel, in the place of its probability.

        A softmax votes for its largest channel, a region's sigmoid for the region where it is above one half.

        Args:
            logits: One array (C, *spatial) per mirroring, mirrored back.
        """
        total = np.zeros(logits[0].shape, np.float32)
        for one in logits:
            if self.regions:
                total += one > 0
            else:
                winner = one.argmax(0)[None]
                np.put_along_axis(total, winner, np.take_along_axis(total, winner, 0) + 1, 0)
        return total / np.float32(len(logits))

    def certainty_of_prediction(self, probabilities: Floats, certainty: Floats) -> Floats:
        """How certain what was predicted is at each voxel, the least certain region counting.

        Args:
            probabilities: (C, *spatial): they say what is predicted.
            certainty: As many channels between 0 and 1: the probabilities themselves, or :meth:`votes`.
        """
        if self.regions:
            return np.where(probabilities > 0.5, certainty, 1 - certainty).min(0)
        return np.take_along_axis(certainty, probabilities.argmax(0)[None], 0)[0]

    def trusted(
        self,
        probabilities: Floats | torch.Tensor,
        thresholds: Sequence[float],
        untrusted: int | None = None,
        certainty: Floats | torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """SSA-Net, eq. (9): class c where its probability is the largest and above η, else background.

        A region is drawn where its probability is above both one half (nnU-Net's rule) and η.

        Args:
            probabilities: (C, *spatial), on any device; a batch may be among the spatial axes.
            thresholds: η of each channel.
            untrusted: ``None`` is the paper's reading, in which an infection of little confidence becomes background. A
                label value is given to every voxel of little confidence instead, background included: nothing is known
                about it. Of regions each counts, with one minus its certainty where it is not predicted.
            certainty: What η is compared with, in the shape of the probabilities; these if ``None``.

        Returns:
            The pseudo label and the prediction before thresholding, int16, both of shape *spatial.
        """
        seen = torch.as_tensor(probabilities)
        certain = seen if certainty is None else torch.as_tensor(certainty)
        etas = torch.tensor(list(thresholds), dtype=seen.dtype, device=seen.device)
        if self.regions:
            return self._trusted_regions(seen, etas, untrusted, certain)
        winner = seen.argmax(0)
        predicted = torch.tensor(self.values, dtype=torch.int16, device=seen.device)[winner]
        trusted = certain.gather(0, winner[None])[0] > etas[winner]
        return torch.where(trusted, predicted, 0 if untrusted is None else untrusted), predicted

    def _trusted_regions(
        self, probabilities: torch.Tensor, etas: torch.Tensor, untrusted: int | None, certainty: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        label = torch.zeros_like(probabilities[0], dtype=torch.int16)
        predicted = torch.zeros_like(label)
        sure = torch.ones_like(label, dtype=torch.bool)
        for channel, certain, value, eta in zip(probabilities, certainty, self.values, etas, strict=True):
            inside = channel > 0.5
            predicted[inside] = value
            label[inside & (certain > eta)] = value
            sure &= torch.where(inside, certain, 1 - certain) > eta
        return label if untrusted is None else torch.where(sure, predicted, untrusted), predicted

    def stretched(self, probabilities: Floats) -> Floats:
        """Each foreground channel (C, *spatial) from its smallest to its largest value in the image to 0 … 1.

        Source: the code released with Inf-Net (Fan et al., TMI 2020), whose pseudo labels are such maps: the surest
        voxel of every image counts as certain, however unsure the model is. A channel that is the same everywhere
        becomes 0. Classes that then share more than 1 are divided by their sum; background has the rest.
        """
        foreground = probabilities if self.regions else probabilities[1:]
        axes = tuple(range(1, foreground.ndim))
        low, high = foreground.min(axes, keepdims=True), foreground.max(axes, keepdims=True)
        maps = (foreground - low) / np.where(high > low, high - low, 1)
        if self.regions:
            return maps
        maps = maps / np.maximum(maps.sum(0, keepdims=True), 1)
        return np.concatenate((1 - maps.sum(0, keepdims=True), maps))

    def to_bytes(self, probabilities: Floats) -> NDArray[np.uint8]:
        """Probabilities of the foreground channels in 255 steps, (F, *spatial)."""
        foreground = probabilities if self.regions else probabilities[1:]
        return np.round(foreground * STEPS).astype(np.uint8)

    def draw(self, stored: NDArray[np.uint8], u: float) -> NDArray[np.int16]:
        """The label map at threshold ``u``.

        Args:
            stored: (F, *spatial) from :meth:`to_bytes`.
            u: In [0, 1); a region is drawn where its probability is above it.
        """
        level = u * STEPS
        label = np.zeros(stored.shape[1:], np.int16)
        if self.regions:
            for channel, value in zip(stored, self.values, strict=True):
                label[channel > level] = value
            return label
        reached = np.zeros(label.shape, np.float32)
        for channel, value in zip(stored, self.values[1:], strict=True):
            below = reached <= level
            reached += channel
            label[below & (reached > level)] = value
        return label


def mean_confidence(confidence: Floats, predicted: NDArray[np.integer]) -> float:
    """Mean over the predicted foreground; over all voxels where there is none.

    Background fills most of an image and is nearly always sure, so that a mean over all voxels would say how little
    was found rather than how sure it is.
    """
    foreground = predicted > 0
    chosen = confidence[foreground] if foreground.any() else confidence
    return float(np.mean(chosen, dtype=np.float64))


class Classes:
    """The classes of a data set as pseudo labels need them.

    Args:
        dataset_json: Of the data set.
        plans: Of any configuration.
        ignore: Whether an ignore label is wanted where the data set has none.

    Attributes:
        dataset_json: The description, with the ignore label.
        manager: nnU-Net's reading of it.
        names: Name of each foreground class (or region) to its label values.
        heads: What the network's output channels stand for.

    Raises:
        UserError: If the regions cannot be kept in one label map.
    """

    def __init__(self, dataset_json: dict[str, Any], plans: PlansManager, *, ignore: bool = False) -> None:
        self.dataset_json = with_ignore_label(dataset_json) if ignore else dataset_json
        self.manager = plans.get_label_manager(self.dataset_json)
        self.names = foreground_values(self.dataset_json["labels"])
        values = self.manager.regions_class_order if self.manager.has_regions else self.manager.all_labels
        self.heads = Heads(tuple(int(v) for v in values or ()), self.manager.has_regions)
        if self.manager.has_regions:
            self._refuse_crossing_regions()

    def _refuse_crossing_regions(self) -> None:
        """A voxel in several regions gets the value of the last; read again, that must lie in the same regions."""
        for value in self.manager.all_labels:
            inside = [name for name, values in self.names.items() if value in values]
            kept = self.heads.values[list(self.names).index(inside[-1])] if inside else 0
            found = [name for name, values in self.names.items() if kept in values]
            if found != inside:
                was, became = (" and ".join(names) or BACKGROUND for names in (inside, found))
                raise UserError(
                    f"regions_class_order: label {value} lies in {was}, but a label map keeps it as {kept}, which lies "
                    f"in {became}: let regions that overlap lie within one another, the larger first"
                )

    def thresholds(self, eta: float, single: Mapping[str, float]) -> list[float]:
        """η of each head.

        Raises:
            UserError: If a class of that name does not exist, or no class is named.
        """
        if not isinstance(single, Mapping):
            raise UserError(f"class_eta = {single!r}, but it gives each class its own: {{'infection': 0.9}}")
        names = list(self.names)
        if not self.manager.has_regions:  # the channels are in the order of the label values
            names = [BACKGROUND, *sorted(names, key=lambda name: self.names[name][0])]
        for name in single:
            if name not in names:
                raise UserError(f"there is no class '{name}'; the classes are {', '.join(names)}")
        return [single.get(name, eta) for name in names]

    def counts(self, label: NDArray[np.integer]) -> dict[str, int]:
        """Voxels of each label value, background included, ignored voxels left out; what lies outside is background."""
        inside = np.where(label == OUTSIDE, 0, label)
        return {str(int(v)): int((inside == v).sum()) for v in self.manager.all_labels}

    def voxels(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Voxels of each foreground class or region from those of each label value."""
        return {name: sum(counts[str(v)] for v in values) for name, values in self.names.items()}

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


@dataclass(frozen=True)
class Prediction:
    """Of one case.

    Attributes:
        probabilities: (heads, *spatial), float32.
        certainty: In the same shape: the probabilities, or the share of mirrored predictions for each head.
        label: The label map that nnU-Net makes of the probabilities.
        confidence: Mean certainty of what is predicted over the predicted foreground.
        seconds: Spent in forward passes.
    """

    probabilities: NDArray[np.float32]
    certainty: NDArray[np.float32]
    label: NDArray[np.integer]
    confidence: float
    seconds: float


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
        self.classes = Classes(experiment.dataset_json, experiment.plans_manager, ignore=ignore)
        self._thresholds = self.classes.thresholds(options.threshold, options.class_thresholds)
        self._untrusted = self.classes.manager.ignore_label if ignore else None

    def label(self, head: dict[str, Any], case: Path, target: Path, prediction: Prediction) -> dict[str, Any]:
        """Write the pseudo label of one case; its record is written last: where it is, the case is done.

        Args:
            head: Image, round and model, for the record.
            case: The pre-processed image, without ending.
            target: The pseudo label, without ending.
            prediction: Of the image.

        Returns:
            The record: the head, the confidence, and voxels by label value and by class.
        """
        heads, probabilities = self.classes.heads, prediction.probabilities
        found = heads.trusted(probabilities, self._thresholds, self._untrusted, prediction.certainty)
        label, predicted = (one.numpy() for one in found)
        outside = open_blosc2(case, "_seg.b2nd")[0] == OUTSIDE
        stored = np.where(outside & (label == 0), np.int16(OUTSIDE), label)[None]
        soft = heads.stretched(probabilities) if self.options.min_max else probabilities
        self._write_label(target, stored, heads.to_bytes(soft) if self.options.soft else None)
        if self.options.export:
            shown = self.experiment.shown_folder(head["round"])
            path = shown / f"{target.name}{self.experiment.dataset_json['file_ending']}"
            self._write_in_image_geometry(path, stored, load_pickle(f"{case}.pkl"))
        counts, before = (self.classes.counts(one) for one in (label, predicted))
        record = {
            **head,
            "confidence": prediction.confidence,
            "predicted": self.classes.voxels(before),
            "kept": self.classes.voxels(counts),
            "counts": counts,
        }
        write_json(Path(f"{target}.json"), record, indent=None)
        return record

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
                blocks, chunks = comp_blosc2_params(array.shape, tuple(configuration.patch_size), array.itemsize)
                settings = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "nthreads": 1}
                place = {"urlpath": f"{unfinished}{ending}", "chunks": chunks, "blocks": blocks}
                blosc2.asarray(np.ascontiguousarray(array), cparams=settings, **place)
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


def open_blosc2(case: Path, ending: str) -> Any:
    """An array of a pre-processed case, read where it is sliced."""
    return blosc2.open(urlpath=f"{case}{ending}", mode="r", dparams={"nthreads": 1})


def read_record(target: Path, model: str) -> dict[str, Any] | None:
    """The record of a case that is done with this model; ``None`` if it is not."""
    record = read_json(Path(f"{target}.json"))
    return record if record is not None and record.get("model") == model else None
