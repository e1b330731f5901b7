"""Images onto the grid of the plans and back, with nnU-Net's own pre-processor.

Reading is :mod:`nnunet_covid.nnunet.dataset`'s matter; here an image is an array (channels, *axes) with the properties
that nnU-Net's reader gave beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from nnunet_covid.files import replacing

PARTS = (".b2nd", "_seg.b2nd", ".pkl")
"""The files of a pre-processed case; the last one says that the case is complete."""
OUTSIDE = -1
"""nnU-Net's label of background outside the body."""


def preprocess_to(
    target: Path,
    image: NDArray[Any],
    labels: NDArray[Any] | None,
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: dict[str, Any],
) -> None:
    """Pre-process a case and write it as nnU-Net does for training, all files under their names at the end.

    Args:
        target: The case's files without their endings; see :data:`PARTS`.
        image: (channels, *axes).
        labels: (1, *axes); ``None`` where there are none: then the labels tell the body from what is outside.
        properties: Of the image; what undoes the pre-processing is added.
        plans: With ``configuration`` among them.
        configuration: Of the plans.
        dataset_json: Whose labels they are.
    """
    preprocessor = configuration.preprocessor_class(verbose=False)
    data, seg, properties = preprocessor.run_case_npy(image, labels, properties, plans, configuration, dataset_json)
    data, seg = data.astype(np.float32, copy=False), seg.astype(np.int16, copy=False)
    patch = tuple(configuration.patch_size)
    blocks, chunks = comp_blosc2_params(data.shape, patch, data.itemsize)
    blocks_seg, chunks_seg = comp_blosc2_params(seg.shape, patch, seg.itemsize)
    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target, PARTS) as unfinished:
        nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            properties,
            str(unfinished),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )


def is_preprocessed(target: Path) -> bool:
    """Whether :func:`preprocess_to` has written this case."""
    return target.with_name(target.name + PARTS[-1]).is_file()


def to_image_axes(
    array: NDArray[Any],
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    resample: Callable[..., Any],
) -> NDArray[Any]:
    """Undo nnU-Net's resampling, cropping and transposition.

    Args:
        array: (channels, *spatial) on the pre-processed grid.
        properties: Of the case, as the pre-processor returned them.
        plans: With ``configuration`` among them.
        configuration: Whose grid it is.
        resample: The plans' function for this kind of array, of the configuration.

    Returns:
        (channels, *image axes), 0 where nnU-Net had cropped the image.
    """
    shape = tuple(properties["shape_after_cropping_and_before_resampling"])
    spacing = [properties["spacing"][i] for i in plans.transpose_forward]
    planned = list(configuration.spacing)
    current = planned if len(planned) == len(shape) else [spacing[0], *planned]
    if array.shape[1:] != shape:
        array = np.asarray(resample(array, shape, current, spacing))
    whole = np.zeros((len(array), *properties["shape_before_cropping"]), array.dtype)
    box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    whole[(slice(None), *box)] = array
    return whole.transpose([0, *(i + 1 for i in plans.transpose_backward)])
