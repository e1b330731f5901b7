"""How much memory an image takes on its way, from the header of its file."""

from __future__ import annotations

import math

from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.nnunet.written_images import SLICE_SPACING
from nnunet_covid.raw_dataset.source import UnusableFile
from nnunet_covid.raw_dataset.volumes import read_header


def bytes_of(model: TrainedModel, case: CaseFiles) -> int:
    """The largest of what reading, predicting and writing a case take; 0 where the header cannot be read.

    Reading holds the image as read, nnU-Net's copy and its crop (single precision, all channels) and, where it is
    resampled, one channel in double precision before and after; predicting the pre-processed image, half-precision
    logits and weights; writing logits, labels, and again one channel in double precision on both grids.
    """
    try:
        header = read_header(case.files[0])
    except UnusableFile:
        return 0
    voxels = math.prod(header.GetSize())
    heads = model.predictor.label_manager.num_segmentation_heads
    inputs = model.channels + (heads if model.previous_stage is not None else 0)
    planned = list(model.predictor.configuration_manager.spacing)
    # of a picture as nnU-Net reads it
    given = list(header.GetSpacing())[::-1] if header.GetDimension() == 3 else [SLICE_SPACING, 1.0, 1.0]
    spacing = [given[axis] for axis in model.predictor.plans_manager.transpose_forward][-len(planned) :]
    resampled = math.ceil(voxels * math.prod(s / p for s, p in zip(spacing, planned, strict=True)))
    doubles = 0 if spacing == planned else 8 * (2 * voxels + 2 * resampled)
    reading = voxels * (8 * model.channels + 4) + 4 * inputs * resampled + doubles
    predicting = resampled * (4 * inputs + 2 * heads + 2)
    writing = 2 * heads * (resampled + (voxels if doubles else 0)) + 2 * voxels + doubles
    return max(reading, predicting, writing)
