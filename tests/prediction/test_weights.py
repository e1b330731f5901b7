"""Which weights a predictor's network has, whatever became of loading others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_covid.nnunet.sliding_window import BatchPredictor


def test_weights_that_cannot_be_loaded_are_never_taken_for_loaded() -> None:
    predictor = BatchPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.network = nn.Linear(2, 2)
    good = {name: torch.ones_like(value) for name, value in predictor.network.state_dict().items()}
    predictor.list_of_parameters = [good, {"weight": torch.zeros(2, 2)}]  # without the bias
    predictor.use_weights(0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="bias"):
            predictor.use_weights(1)
    predictor.use_weights(0)
    assert all(torch.equal(value, good[name]) for name, value in predictor.network.state_dict().items())
