"""The encoder of a trained model, taken out of its checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

PREFIXES = ("general_encoder.", "encoder.")
"""Where a checkpoint may hold the encoder that is wanted: our two-encoder network first, then any planned U-Net."""


def load_encoder_checkpoint(encoder: nn.Module, path: Path) -> None:
    """Load weights into a planned encoder, in place.

    Args:
        path: Checkpoint of an nnU-Net training with the same plans.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If it is no nnU-Net checkpoint or its encoder is another one.
    """
    if not path.is_file():
        msg = f"the checkpoint {path} does not exist"
        raise FileNotFoundError(msg)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=False)["network_weights"]
    except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
        msg = f"{path} is no checkpoint of nnU-Net ({type(e).__name__})"
        raise ValueError(msg) from e
    found = next((p for p in PREFIXES if any(key.startswith(p) for key in weights)), "encoder.")
    taken = {key.removeprefix(found): value for key, value in weights.items() if key.startswith(found)}
    own = encoder.state_dict()
    wrong = [key for key, value in own.items() if key not in taken or taken[key].shape != value.shape]
    if wrong or len(taken) != len(own):
        first = f", first '{wrong[0]}'" if wrong else ""
        msg = (
            f"the encoder in {path} is not the planned one ({len(wrong)} of {len(own)} tensors differ{first}): "
            "train it with these plans, moved to the other data set"
        )
        raise ValueError(msg)
    encoder.load_state_dict(taken)
