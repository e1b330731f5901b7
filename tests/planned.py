"""Plans and dataset.json dictionaries as nnU-Net writes them, small."""

from __future__ import annotations

from typing import Any

ARCHITECTURES = "dynamic_network_architectures.architectures.unet."


def plans(
    *,
    dims: int = 2,
    stages: int = 6,
    features: int = 4,
    residual: bool = False,
    strides: list[list[int]] | None = None,
    kernels: list[list[int]] | None = None,
    patch: list[int] | None = None,
    batch_size: int = 2,
) -> dict[str, Any]:
    """Plans with one configuration, named 2d or 3d_fullres."""
    strides = strides or [[1] * dims] + [[2] * dims] * (stages - 1)
    stages = len(strides)
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    configuration = {
        "data_identifier": "testPlans_2d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": batch_size,
        "patch_size": patch or [64] * dims,
        "median_image_size_in_voxels": [64] * dims,
        "spacing": [1.0] * dims,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "batch_dice": dims == 2,
        "architecture": {
            "network_class_name": ARCHITECTURES + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": [min(features * 2**i, 32) for i in range(stages)],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": kernels or [[3] * dims] * stages,
                "strides": strides,
                blocks: [1] * stages,
                "n_conv_per_stage_decoder": [1] * (stages - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    return {
        "dataset_name": "Dataset999_Test",
        "plans_name": "testPlans",
        "configurations": {"2d" if dims == 2 else "3d_fullres": configuration},
        "image_reader_writer": "NaturalImage2DIO" if dims == 2 else "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "continue_training": False,
    }


def dataset_json(labels: dict[str, Any] | None = None, **extra: Any) -> dict[str, Any]:
    """One channel; background and infection unless told otherwise."""
    return {
        "channel_names": {"0": "grey_ct"},
        "labels": labels or {"background": 0, "infection": 1},
        "numTraining": 2,
        "file_ending": ".png",
        **extra,
    }
