"""What nnU-Net's training log says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_covid.nnunet.training_log import END, mean_dice, training_progress

EPOCH = """
2026-01-01 00:00:00.0:
2026-01-01 00:00:00.0: Epoch {number}
2026-01-01 00:00:00.0: Current learning rate: 0.01
2026-01-01 00:00:01.0: train_loss -0.1
2026-01-01 00:00:01.0: Pseudo dice {dice}
2026-01-01 00:00:01.0: Epoch time: {seconds} s
"""


def test_of_the_newest_log_the_last_epoch_and_the_median_time_count(tmp_path: Path) -> None:
    assert training_progress(tmp_path) == {}
    old, new = tmp_path / "training_log_1.txt", tmp_path / "training_log_2.txt"
    old.write_text(EPOCH.format(number=7, dice="[0.9]", seconds=100))
    os.utime(old, (1, 1))
    epochs = [
        EPOCH.format(number=number, dice=f"[np.float32({number / 10}), np.float64(nan), 0.4]", seconds=seconds)
        for number, seconds in enumerate((9.5, 1.25, 2.0))
    ]
    new.write_text("\n".join([*epochs, "2026-01-01 00:00:02.0: Epoch 3 "]))
    found = training_progress(tmp_path)
    assert found == {"epoch": 3, "dice": pytest.approx(0.3), "seconds": 2.0}


def test_a_log_of_a_validation_alone_says_nothing_of_the_training(tmp_path: Path) -> None:
    trained, validated = tmp_path / "training_log_1.txt", tmp_path / "training_log_2.txt"
    trained.write_text(EPOCH.format(number=7, dice="[0.9]", seconds=100))
    os.utime(trained, (1, 1))
    validated.write_text("2026-01-02 00:00:00.0: predicting case_1\n2026-01-02 00:00:01.0: Validation complete\n")
    assert training_progress(tmp_path) == {"epoch": 7, "dice": 0.9, "seconds": 100}


def test_a_newer_log_whose_epochs_lie_before_what_is_read_of_it_is_not_passed_over(tmp_path: Path) -> None:
    """A validation of a thousand cases writes more than that behind the last epoch."""
    old, new = tmp_path / "training_log_1.txt", tmp_path / "training_log_2.txt"
    old.write_text(EPOCH.format(number=7, dice="[0.9]", seconds=100))
    os.utime(old, (1, 1))
    validated = "2026-01-02 00:00:00.0: predicting case_1\n" * (END // 40)
    new.write_text(EPOCH.format(number=99, dice="[0.5]", seconds=1) + validated)
    assert training_progress(tmp_path) == {}


def test_a_class_without_a_value_does_not_count() -> None:
    assert mean_dice("np.float32(nan)") is None
    assert mean_dice("0.5, np.float32(1.5e-01)") == pytest.approx((0.5 + 0.15) / 2)
