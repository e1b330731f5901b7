"""Batches of linked images by nnU-Net's own loader and augmentation, beside the batches of the COVID data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.links import LinkedCases
from nnunet_covid.nnunet.preprocess import LESION_LABELS


class LinkedDataset:
    """The cases of several folders as one data set, in the shape that nnU-Net's loader reads.

    Every case is drawn equally often, so a data set counts by its size.

    Args:
        preprocessed: ``nnUNet_preprocessed``.
        sources: The folders and their cases.
    """

    def __init__(self, preprocessed: Path, sources: Sequence[LinkedCases]) -> None:
        self._cases: dict[str, tuple[Any, str]] = {}
        for source in sources:
            folder = str(preprocessed / source.folder)
            data = infer_dataset_class(folder)(folder, list(source.cases))
            self._cases.update({f"{source.folder}/{name}": (data, name) for name in source.cases})
        self.identifiers = sorted(self._cases)

    def load_case(self, identifier: str) -> Any:
        """Image, labels, nothing of a previous stage, properties."""
        data, name = self._cases[identifier]
        return data.load_case(name)


class ImageTransforms:
    """nnU-Net's training transforms applied to an image; labels, which nobody asks for, are left out of the work.

    Args:
        transforms: The transforms.
        masked: Whether they need the mask of the image region that stands in the labels.
    """

    def __init__(self, transforms: Any, *, masked: bool) -> None:
        self.transforms = transforms
        self.masked = masked

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        seen = {"segmentation": segmentation} if self.masked else {}
        result = self.transforms(image=image, **seen)["image"]
        return {"image": result, "segmentation": torch.zeros(1, dtype=torch.int16)}


def linked_batches(
    dataset: LinkedDataset,
    transforms: ImageTransforms,
    plans: PlansManager,
    *,
    batch_size: int,
    initial_patch_size: Sequence[int],
    patch_size: Sequence[int],
    lesion_share: float,
    device: torch.device,
    loaders: int,
) -> Iterator[dict[str, Any]]:
    """An endless stream of batches, as nnU-Net makes that of its own training data.

    Args:
        lesion_share: Share of a batch whose patches are cut around a lesion.
        loaders: Of how many such streams this is one; they share nnU-Net's number of worker processes.
    """
    loader = nnUNetDataLoader(
        dataset,
        batch_size,
        initial_patch_size,
        patch_size,
        plans.get_label_manager(LESION_LABELS),
        oversample_foreground_percent=lesion_share,
        transforms=transforms,
    )
    processes = get_allowed_n_proc_DA()
    if processes == 0:
        return SingleThreadedAugmenter(loader, None)
    processes = max(1, processes // loaders)
    return NonDetMultiThreadedAugmenter(
        data_loader=loader,
        transform=None,
        num_processes=processes,
        num_cached=max(6, processes // 2),
        seeds=None,
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )


class JoinedBatches:
    """Batches of several streams as one: those of the COVID data set with the images of the others beside them.

    Args:
        main: nnU-Net's own batches.
        beside: Key to stream.
    """

    def __init__(self, main: Iterator[dict[str, Any]], beside: dict[str, Iterator[dict[str, Any]]]) -> None:
        self.main = main
        self.beside = beside

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        batch = next(self.main)
        return {**batch, **{key: next(stream)["data"] for key, stream in self.beside.items()}}

    def finish(self) -> None:
        """End the worker processes."""
        for stream in (self.main, *self.beside.values()):
            if isinstance(stream, NonDetMultiThreadedAugmenter):
                stream._finish()
