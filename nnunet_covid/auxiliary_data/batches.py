"""Batches of linked images by nnU-Net's own loader and augmentation, beside the batches of the COVID data set."""

from __future__ import annotations

import copy
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_covid.auxiliary_data.links import LinkedCases
from nnunet_covid.nnunet.preprocess import LESION_LABELS
from nnunet_covid.nnunet.training import ChannelsSpared, changes_intensity, innermost, with_probability


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


class TwoViews(ImageTransforms):
    """Two views of an image beside each other on the channel axis, (2·C, *spatial), by a trainer's own augmentation.

    The first, the weak one, has seen what moves voxels: the spatial transforms and mirroring. The second, the strong
    one, is the same patch after every change of intensity as well. Masks among the channels stay as they are in both.

    Args:
        transforms: The trainer's, without targets; seldom applied changes of intensity are applied with
            ``probability``.
        masked: As for :class:`ImageTransforms`.
        probability: Of each change of intensity.
        spared: Channels that no change of intensity touches.
    """

    def __init__(self, transforms: Any, *, masked: bool, probability: float, spared: Sequence[int] = ()) -> None:
        everything = copy.deepcopy(getattr(transforms, "transforms", [transforms]))
        self.intensity = [ChannelsSpared(t, spared) for t in everything if changes_intensity(t)]
        others = [t for t in everything if not changes_intensity(t)]
        moving = [t for t in others if not all(isinstance(one, SegOnlyTransform) for one in innermost(t))]
        super().__init__(ComposeTransforms(moving), masked=masked)
        self.masks = [t for t in moving if isinstance(t, MaskImageTransform)]
        for transform in self.intensity:
            with_probability(transform, probability)

    def __call__(self, image: torch.Tensor, segmentation: torch.Tensor) -> dict[str, torch.Tensor]:
        moved = self.transforms(image=image, **({"segmentation": segmentation} if self.masked else {}))
        strong = {**moved, "image": moved["image"].clone()}
        for transform in [*self.intensity, *self.masks]:
            strong = transform(**strong)
        both = torch.cat((moved["image"], strong["image"]))
        return {"image": both, "segmentation": torch.zeros(1, dtype=torch.int16)}


def linked_loader(
    dataset: Any,
    transforms: ImageTransforms,
    plans: PlansManager,
    *,
    batch_size: int,
    initial_patch_size: Sequence[int],
    patch_size: Sequence[int],
    lesion_share: float,
) -> nnUNetDataLoader:
    """nnU-Net's own loader of linked images.

    Args:
        lesion_share: Share of a batch whose patches are cut around a lesion.
    """
    return nnUNetDataLoader(
        dataset,
        batch_size,
        initial_patch_size,
        patch_size,
        plans.get_label_manager(LESION_LABELS),
        oversample_foreground_percent=lesion_share,
        transforms=transforms,
    )


def loader_of_images(
    trainer: Any, dataset: Any, prepare: Callable[..., ImageTransforms], batch_size: int, lesion_share: float = 0.0
) -> nnUNetDataLoader:
    """nnU-Net's loader of images alone, with the patches and the augmentation of a trainer.

    Args:
        dataset: Of linked images, or another of nnU-Net's kind with one label, lesion.
        prepare: Makes of the augmentation, and of whether it needs a mask (``masked``), what the loader applies.
        lesion_share: As for :func:`linked_loader`.
    """
    rotation, dummy_2d, initial_patch_size, mirror_axes = (
        trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    )
    masks = trainer.configuration_manager.use_mask_for_norm
    patch_size = trainer.configuration_manager.patch_size
    transforms = trainer.get_training_transforms(
        patch_size, rotation, None, mirror_axes, dummy_2d, use_mask_for_norm=masks
    )
    return linked_loader(
        dataset,
        prepare(transforms, masked=any(masks)),
        trainer.plans_manager,
        batch_size=batch_size,
        initial_patch_size=initial_patch_size,
        patch_size=patch_size,
        lesion_share=lesion_share,
    )


def linked_batches(loader: nnUNetDataLoader, *, device: torch.device, loaders: int) -> Iterator[dict[str, Any]]:
    """An endless stream of batches, as nnU-Net makes that of its own training data.

    Args:
        loader: Of :func:`linked_loader`.
        loaders: Of how many such streams this is one; they share nnU-Net's number of worker processes.
    """
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


class OwnRandomness:
    """Whatever happens inside draws from random numbers of its own: those outside go on as if nothing had happened.

    Args:
        seeds: Whole numbers that together decide what is drawn.
    """

    def __init__(self, *seeds: int) -> None:
        first, second, third = np.random.SeedSequence([seed % 2**63 for seed in seeds]).generate_state(3)
        self._states: tuple[Any, Any, Any] = (
            random.Random(int(first)).getstate(),
            np.random.RandomState(second).get_state(),
            torch.Generator().manual_seed(int(third)).get_state(),
        )

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *exception: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        outside = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.setstate(self._states[0])
        np.random.set_state(self._states[1])
        torch.set_rng_state(self._states[2])
        self._states = outside


class UnlabelledBeside:
    """A loader that puts a batch of unlabelled images beside each batch of another loader, in the same process.

    Args:
        main: nnU-Net's loader of labelled images; its random numbers are the same as without the other.
        unlabelled: Of :func:`linked_loader`.
        key: Of the images in the batch.
        seed: Of the draws of unlabelled images, beside torch's in this process; every worker process has draws of its
            own each time that it starts, as nnU-Net's have, so that a continued training does not see the same again.
            Where torch's seed changes, as a training with a seed sets it for each epoch, the draws begin anew.
    """

    def __init__(self, main: Any, unlabelled: nnUNetDataLoader, key: str, seed: Sequence[int]) -> None:
        self.main = main
        self.unlabelled = unlabelled
        self.key = key
        self.seed = tuple(seed)
        self._torch_seed: int | None = None

    def set_thread_id(self, thread_id: int) -> None:
        """Called where a worker process starts."""
        self.main.set_thread_id(thread_id)
        self.seed = (*self.seed, thread_id, secrets.randbits(63))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        if self._torch_seed != torch.initial_seed():
            self._torch_seed = torch.initial_seed()
            self._randomness = OwnRandomness(*self.seed, self._torch_seed)
        batch = next(self.main)
        with self._randomness:
            return {**batch, self.key: next(self.unlabelled)["data"]}


def put_beside(stream: Any, unlabelled: nnUNetDataLoader, key: str, seed: Sequence[int]) -> None:
    """Let the workers of a stream of labelled batches make batches of unlabelled images too.

    Args:
        stream: nnU-Net's, or joined batches whose main one it is; workers that run already start anew.
        unlabelled, key, seed: As for :class:`UnlabelledBeside`.
    """
    if isinstance(stream, JoinedBatches):
        put_beside(stream.main, unlabelled, key, seed)
    elif isinstance(stream, SingleThreadedAugmenter):
        stream.data_loader = UnlabelledBeside(stream.data_loader, unlabelled, key, seed)
    else:
        stream._finish()
        stream.generator = UnlabelledBeside(stream.generator, unlabelled, key, seed)


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
