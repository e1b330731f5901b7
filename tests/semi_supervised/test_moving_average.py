"""The teacher against the closed form of its average, and the exchange of weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from nnunet_covid.semi_supervised.moving_average import decay_at, exchange, move_towards, states


class Shared(nn.Module):
    """A convolution that two names lead to, as in nnU-Net's U-Net, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.norm = nn.BatchNorm2d(2)
        self.again = nn.ModuleList([self.conv])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def test_the_average_is_its_closed_form_with_every_decay_and_with_the_statistics_of_batch_norm() -> None:
    torch.manual_seed(0)
    student = Shared()
    teacher = copy.deepcopy(student)
    seen = [[one.double().clone() for one in states(student)]]
    decays = [0.5, 0.9, 0.75, 0.99]
    for decay in decays:
        with torch.no_grad():
            student.conv.weight += torch.randn_like(student.conv.weight)
        student(torch.randn(4, 1, 8, 8))  # moves the statistics
        move_towards(teacher, student, decay)
        seen.append([one.double().clone() for one in states(student)])
    for position, found in enumerate(states(teacher)):
        if not found.is_floating_point():
            assert found == len(decays)  # the counter of batches, as the student has it
            continue
        expected = math.prod(decays) * seen[0][position]
        for step, decay in enumerate(decays):
            expected = expected + (1 - decay) * math.prod(decays[step + 1 :]) * seen[step + 1][position]
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_exchange_swaps_everything_and_twice_changes_nothing() -> None:
    one, other = Shared(), Shared()
    one(torch.randn(2, 1, 8, 8))
    before = [copy.deepcopy(network.state_dict()) for network in (one, other)]
    held = one.conv.weight
    exchange(one, other)
    for network, expected in ((one, before[1]), (other, before[0])):
        for key, value in network.state_dict().items():
            assert torch.equal(value, expected[key]), key
    assert one.conv.weight is held
    exchange(one, other)
    for network, expected in ((one, before[0]), (other, before[1])):
        for key, value in network.state_dict().items():
            assert torch.equal(value, expected[key]), key


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.99), (499, 0.99), (1000, 0.995), (2500, 0.998), (5000, 0.999), (250000, 0.999)]
)
def test_the_decay_rises_with_the_steps_between_its_bounds(step: int, expected: float) -> None:
    assert decay_at(step, 0.99, 0.999) == pytest.approx(expected)
