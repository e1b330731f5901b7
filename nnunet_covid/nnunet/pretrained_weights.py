"""Weights that a training is given to begin from, where they do not fit; nnU-Net itself loads them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_covid.checkpoint import refusal_of


def why_not_taken(error: Exception) -> str:
    """Why nnU-Net did not take them, in a few words: of another network's the first weight that differs."""
    if isinstance(error, KeyError):
        return f"it holds no {error}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # behind its first sentence stand all values of the weight
    return str(error).partition(". ")[0] if isinstance(error, AssertionError) else refusal_of(error)


def tell_of_other_weights(network: str) -> None:
    """From now on ``-pretrained_weights`` that do not fit end ``nnUNetv2_train`` with one line, not with a traceback.

    Args:
        network: Whose network it is that they must fit.
    """
    from nnunetv2.run import run_training

    def load(*args: Any, **kwargs: Any) -> None:
        try:
            load_pretrained_weights(*args, **kwargs)
        except torch.OutOfMemoryError:
            raise
        except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
            if isinstance(e, AssertionError | KeyError):
                remedy = "take weights of this trainer and these plans"
                why = f"not of the network of {network} ({why_not_taken(e)}); {remedy}"
            else:
                why = f"cannot be read ({why_not_taken(e)})"
                if Path(f"{args[1]}.before").is_file():
                    why += f"; of the training before this one is {args[1]}.before"
            print(f"error: {args[1]}: {why}", file=sys.stderr)
            raise SystemExit(2) from e

    run_training.load_pretrained_weights = load
