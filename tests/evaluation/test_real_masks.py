"""Evaluation of real lesion masks: shapes, sizes and file names as they come."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from nnunet_covid.evaluation import evaluate_folders, summarise

DATA = Path(os.environ.get("NNUNET_COVID_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
MASKS = DATA / "covid_semiseg" / "TrainingSet" / "LungInfection-Train" / "Doctor-label" / "GT"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not MASKS.is_dir(), reason=f"no COVID-SemiSeg masks in {DATA} (set NNUNET_COVID_TEST_DATA)"),
]


def test_dilated_masks_find_everything_and_lie_within_the_dilation(tmp_path):
    predictions, references = tmp_path / "predictions", tmp_path / "references"
    predictions.mkdir()
    references.mkdir()
    paths = sorted(MASKS.iterdir())[:10]
    for path in paths:
        mask = np.asarray(Image.open(path).convert("L")) > 128
        Image.fromarray(mask.astype(np.uint8)).save(references / path.name)
        grown = ndimage.binary_dilation(mask, iterations=2)
        Image.fromarray(grown.astype(np.uint8)).save(predictions / path.name)
    evaluation = evaluate_folders(predictions, references, labels={"background": 0, "infection": 1}, tolerance=2)
    metrics = summarise(evaluation).classes["infection"].metrics
    assert metrics["sensitivity"].minimum == 1
    assert metrics["volume_error"].minimum > 0
    assert 0.5 < metrics["dice"].minimum < metrics["dice"].maximum < 1
    # Every new border voxel lies within two steps of the old border; the old one may lie further from the new one
    # only where a gap was filled.
    for score in evaluation.scores:
        directed = score.values["hd95"]
        assert directed >= 1
    assert metrics["nsd"].mean > 0.8
