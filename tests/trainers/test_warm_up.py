from __future__ import annotations

from pathlib import Path

import planned
import pytest
import torch

from nnunet_covid import trainers


@pytest.mark.parametrize("epochs", [3, 40])
def test_the_rate_rises_in_the_first_epoch_and_is_stock_nnunets_after_it(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    rates = {}
    for name in ("nnUNetTrainer", "UNetWarmUpTrainer"):
        kind = getattr(trainers, f"{name}_{epochs}epochs")
        trainer = kind(planned.plans(stages=2), "2d", 0, planned.dataset_json(), torch.device("cpu"))
        trainer.network = torch.nn.Linear(1, 1)
        trainer.optimizer, schedule = trainer.configure_optimizers()
        rates[name] = []
        for epoch in range(epochs):
            schedule.step(epoch)
            rates[name].append(trainer.optimizer.param_groups[0]["lr"])
    stock, warm = rates.values()
    assert warm[0] == pytest.approx(stock[0] / 2)
    assert warm[1:] == pytest.approx(stock[1:])
