"""What nnU-Net itself writes with ``--save_probabilities`` is read with the right axes and channels."""

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from folders_on_disk import Folders

from nnunet_covid.evaluation import evaluate_folders

torch = pytest.importorskip("torch")
export_prediction = pytest.importorskip("nnunetv2.inference.export_prediction")
label_handling = pytest.importorskip("nnunetv2.utilities.label_handling.label_handling")
simpleitk_io = pytest.importorskip("nnunetv2.imageio.simpleitk_reader_writer")

LABELS = {"background": 0, "ggo": 1, "consolidation": 2}
SHAPE, SPACING = (6, 10, 14), (5.0, 0.8, 0.7)


@pytest.mark.parametrize("forward", [(0, 1, 2), (1, 2, 0)])
def test_exported_probabilities_lie_on_the_exported_label_map(tmp_path, forward):
    folders = Folders(tmp_path / "data", LABELS, ".nii.gz")
    backward = tuple(int(i) for i in np.argsort(forward))
    wanted = np.zeros(SHAPE, dtype=np.uint8)
    wanted[1:4, 2:8, 3:11], wanted[2:5, 6:9, 9:13] = 1, 2
    # The network saw transposed axes: logits in that order, confident of the wanted label.
    seen = wanted.transpose(forward)
    logits = torch.from_numpy(np.stack([9.0 * (seen == label) for label in range(3)]).astype(np.float32))
    image = sitk.GetImageFromArray(wanted)
    image.SetSpacing(SPACING[::-1])
    reference = folders.references / "case.nii.gz"
    sitk.WriteImage(image, str(reference))
    _, properties = simpleitk_io.SimpleITKIO().read_seg(str(reference))
    properties |= {
        "shape_after_cropping_and_before_resampling": seen.shape,
        "shape_before_cropping": seen.shape,
        "bbox_used_for_cropping": [[0, n] for n in seen.shape],
    }
    plans = SimpleNamespace(
        transpose_forward=list(forward),
        transpose_backward=list(backward),
        image_reader_writer_class=simpleitk_io.SimpleITKIO,
        get_label_manager=lambda _: label_handling.LabelManager(LABELS, None),
    )
    configuration = SimpleNamespace(
        spacing=[SPACING[i] for i in forward], resampling_fn_probabilities=lambda data, *_: data
    )
    export_prediction.export_prediction_from_logits(
        logits,
        properties,
        configuration,
        plans,
        {"labels": LABELS, "file_ending": ".nii.gz"},
        str(folders.predictions / "case"),
        save_probabilities=True,
        num_threads_torch=1,
    )
    evaluation = evaluate_folders(folders.predictions, folders.references)
    for score in evaluation.scores:
        assert score.values["dice"] == 1
        assert score.values["map_mae"] < 1e-3
        assert score.values["toolbox_mae"] < 1e-3
