"""Weights that a training is given to begin from, where they do not fit; nnU-Net itself loads them."""

from __future__ import annotations

import sys
from typing import Any

from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

from nnunet_covid.checkpoint import refusal_of


def why_not_taken(error: Exception) -> str:
    """Why nnU-Net did not take them, in a few words: of another network's the first weight that differs."""
    if isinstance(error, KeyError):
        return f"it holds no {error}"
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
        except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
            why = f"{args[1]}: not of the network of {network} ({why_not_taken(e)})"
            print(f"error: {why}; take weights of this trainer and these plans", file=sys.stderr)
            raise SystemExit(2) from e

    run_training.load_pretrained_weights = load
