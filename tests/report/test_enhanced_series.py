"""A series in one Enhanced CT file whose frames lie in the file in another order than in the body."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from box_chest import box_chest
from dicom_files import at, enhanced, write
from reported import CPU

from nnunet_covid.cli import main


def test_the_segmentation_of_shuffled_frames_lies_where_the_labels_do(model: Path, tmp_path: Path) -> None:
    hd = pytest.importorskip("highdicom")
    volume = sitk.GetArrayFromImage(box_chest().image)
    order = np.random.default_rng(0).permutation(len(volume))
    write(enhanced(volume[order], [at(int(number)) for number in order]), tmp_path / "scan" / "enhanced.dcm")
    assert main(["report", str(tmp_path / "scan"), "-m", str(model), "-o", str(tmp_path / "out"), *CPU]) == 0
    labels = sitk.ReadImage(str(tmp_path / "out" / "labels.nii.gz"))
    expected = [
        labels.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
        for z, y, x in np.argwhere(sitk.GetArrayFromImage(labels) > 0)
    ]
    segment = hd.seg.segread(str(tmp_path / "out" / "dicom" / "segmentation.dcm")).get_volume(segment_numbers=[1])
    places = segment.map_indices_to_reference(np.argwhere(np.asarray(segment.array)[..., 0] > 0))
    assert len(places) == len(expected) > 0
    np.testing.assert_allclose(
        sorted(map(tuple, np.round(places, 3))), sorted(map(tuple, np.round(expected, 3))), atol=1e-2
    )
