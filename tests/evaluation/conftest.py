"""Small data sets on disk for the tests of evaluation."""

import numpy as np
import pytest
from folders_on_disk import Folders
from hypothesis import settings

# How long an example takes says more about the machine's load than about the code.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


@pytest.fixture
def png_folders(tmp_path):
    """Three PNG cases of one class, 20×30 pixels: shifted by 2, perfect, and with nothing predicted."""
    folders = Folders(tmp_path / "png", {"background": 0, "infection": 1}, ".png")
    reference = np.zeros((20, 30), dtype=np.uint8)
    reference[5:15, 8:20] = 1
    for case, prediction in {"a": np.roll(reference, 2, 1), "b": reference, "c": np.zeros_like(reference)}.items():
        folders.add(case, prediction, reference)
    return folders


@pytest.fixture
def nifti_folders(tmp_path):
    """Two volumes of two labels, 6×12×14 voxels of 5×0.8×0.7 mm; the second has nothing of label 2."""
    folders = Folders(tmp_path / "nifti", {"background": 0, "ggo": 1, "consolidation": 2}, ".nii.gz")
    reference = np.zeros((6, 12, 14), dtype=np.uint8)
    reference[1:5, 2:8, 2:10] = 1
    reference[2:4, 4:7, 4:8] = 2
    folders.add("case_1", np.roll(reference, 1, 2), reference)
    only_one = np.minimum(reference, 1)
    folders.add("case_2", np.roll(only_one, 1, 1), only_one)
    return folders
