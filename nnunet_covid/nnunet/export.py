"""The way back from logits in the plan's spacing to the image: nnU-Net's resampling, labels, cropping and axes.

Label maps are those of ``nnUNetv2_predict``, made in less memory: nnU-Net's functions are called on parts of the logits
wherever the parts together give what they give on the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import insert_crop_into_image
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from numpy.typing import NDArray

from nnunet_covid.nnunet.resampling import separate_axis, slabs_of

Resampling = Callable[..., Any]
"""From (channels, *spatial), a shape, the present and the wanted spacing to the same in that shape."""


def label_map(
    logits: torch.Tensor,
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    labels: LabelManager,
) -> NDArray[Any]:
    """The label map (*image axes) that nnU-Net exports for logits (heads, *spatial) in the plan's spacing."""
    inside = np.empty(properties["shape_after_cropping_and_before_resampling"], _label_type(labels))
    for planes, part in _resampled_parts(logits.numpy(), properties, plans, configuration):
        # in single precision: no value, order or tie changes, and numpy has no fast argmax of halves
        inside[planes] = labels.convert_logits_to_segmentation(part.astype(np.float32))
    whole = np.zeros(properties["shape_before_cropping"], inside.dtype)
    insert_crop_into_image(whole, inside, properties["bbox_used_for_cropping"])
    return whole.transpose(plans.transpose_backward)


def label_map_and_probabilities(
    logits: torch.Tensor,
    properties: dict[str, Any],
    plans: PlansManager,
    configuration: ConfigurationManager,
    labels: LabelManager,
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """What nnU-Net exports where probabilities are asked for: the label map and (heads, *image axes)."""
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits,
        plans,
        configuration,
        labels,
        properties,
        return_probabilities=True,
        num_threads_torch=torch.get_num_threads(),
    )


def _label_type(labels: LabelManager) -> Any:
    return np.uint8 if len(labels.foreground_labels) < 255 else np.uint16


def _spacings(
    properties: dict[str, Any], plans: PlansManager, configuration: ConfigurationManager
) -> tuple[list[float], list[float]]:
    """Spacing of the pre-processed image and of the cropped one, in the plan's order of axes."""
    original = [properties["spacing"][i] for i in plans.transpose_forward]
    planned = list(configuration.spacing)
    return (planned if len(planned) == len(original) else [original[0], *planned]), original


def _resampled_parts(
    logits: NDArray[Any], properties: dict[str, Any], plans: PlansManager, configuration: ConfigurationManager
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Parts of the logits in the shape that the cropped image has: planes of its first axis, and (heads, planes, …).

    On the same grid nothing is resampled. nnU-Net's default resampling works channel by channel, so channels may be
    given to it alone. Where it leaves the first axis as it is, planes do not mix either: it resamples plane by plane if
    that axis is the coarse one, and otherwise interpolates linearly with a weight of exactly 1 for the plane itself;
    what scikit-image clips to the range of its input are rounding errors of doubles, far below the halves that return.
    """
    shape = tuple(int(n) for n in properties["shape_after_cropping_and_before_resampling"])
    resample, (current, original) = (
        configuration.resampling_fn_probabilities,
        _spacings(properties, plans, configuration),
    )
    known = getattr(resample, "func", None) is resample_data_or_seg_to_shape and logits.dtype == np.float16
    planes_stay = logits.shape[1] == shape[0]
    slabs = slabs_of(shape)
    if logits.shape[1:] != shape and not known:
        logits = np.asarray(resample(logits, shape, current, original))
    elif logits.shape[1:] != shape and planes_stay and _may_be_cut(resample.keywords, current, original):
        for planes in slabs:
            part = logits[:, planes]
            yield planes, np.asarray(resample(part, (part.shape[1], *shape[1:]), current, original))
        return
    elif logits.shape[1:] != shape:
        one_by_one = [resample(logits[head : head + 1], shape, current, original) for head in range(len(logits))]
        logits = np.concatenate(one_by_one)
    for planes in slabs:
        yield planes, logits[:, planes]


def _may_be_cut(settings: dict[str, Any], current: list[float], original: list[float]) -> bool:
    """Whether nnU-Net's default resampling keeps planes of the first axis apart if it keeps their number."""
    separate, axis = separate_axis(settings, current, original)
    return settings.get("order", 3) <= 1 and (axis == 0 if separate else True)


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
    current, spacing = _spacings(properties, plans, configuration)
    resampled = np.asarray((resample or configuration.resampling_fn_probabilities)(maps, shape, current, spacing))
    whole = np.zeros((len(maps), *properties["shape_before_cropping"]), resampled.dtype)
    inside = np.zeros(properties["shape_before_cropping"], bool)
    box = tuple(slice(low, high) for low, high in properties["bbox_used_for_cropping"])
    whole[(slice(None), *box)] = resampled
    inside[box] = True
    back = list(plans.transpose_backward)
    return whole.transpose([0, *(i + 1 for i in back)]), inside.transpose(back)
