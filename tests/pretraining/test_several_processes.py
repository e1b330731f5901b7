"""Several processes (gloo, CPU) that learn together learn what one does with the whole batch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_data_set import TinyDataSet

from nnunet_covid.checkpoint import read_checkpoint
from nnunet_covid.errors import UserError
from nnunet_covid.pretraining import steps
from nnunet_covid.pretraining.options import PretrainingOptions
from nnunet_covid.pretraining.processes import Share, in_processes
from nnunet_covid.pretraining.run import run_pretraining
from nnunet_covid.semi_supervised.experiment import find_experiment

CPU = torch.device("cpu")


def pretrain(made: TinyDataSet, name: str, **options: Any) -> Path:
    experiment = find_experiment("940", made.configuration, "0", "nnUNetTrainer", name, "testPlans", CPU)
    # not AdamW, which makes steps of the same length out of a bias's gradient of nothing but rounding
    given = PretrainingOptions(steps=3, optimizer="sgd")
    return run_pretraining(experiment, given, made.unlabelled, labelled=True, **options)


def test_they_end_where_one_ends_with_the_whole_batch(made, environment, monkeypatch) -> None:
    environment(made)
    alone = pretrain(made, "alone")
    # begun by one, gone on with by two: the number is no option of the run
    whole = steps.Pretraining.step

    def stopped(self: steps.Pretraining, *batch: torch.Tensor) -> torch.Tensor:
        if self.done == 1:
            self.save()
            raise KeyboardInterrupt
        return whole(self, *batch)

    monkeypatch.setattr(steps.Pretraining, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        pretrain(made, "together")
    together = pretrain(made, "together", gpus=2)
    one, two = (read_checkpoint(path)["network_weights"] for path in (alone, together))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    moved = [name for name, weight in one.items() if not torch.equal(weight, two[name])]
    assert moved, "the same to the last bit: did two processes learn at all?"
    assert (together.parent / "reconstructions.png").is_file()
    with pytest.raises(UserError, match="`gpus` 9: a batch of these plans has 2 image"):
        pretrain(made, "many", gpus=9)


def shares(count: int, share: Share, meet: Any) -> tuple[float, list[float], bytes]:
    """The mean of the numbers 0 to 6 by shares, of a pair of them that are laid out otherwise, and a long result."""
    meet()
    own = torch.tensor([float(row) for row in share.rows(7)]).mean() * share.weight(7)
    pair = torch.arange(4.0).reshape(2, 2).T * share.rank
    share.average([own, None, pair])
    assert share.processes == count
    return float(own), pair.flatten().tolist(), bytes(1 << 20)


def test_unequal_shares_have_the_mean_of_the_whole() -> None:
    mean, pair, long = in_processes(3, CPU, partial(shares, 3))
    assert len(long) == 1 << 20, "more than a pipe holds"
    assert mean == pytest.approx(3)
    assert pair == [0, 2, 1, 3]


def broken(share: Share, meet: Any) -> None:
    meet()
    if share.rank == 1:
        raise UserError("the disk is full")
    share.average([torch.zeros(1)])


def test_an_error_of_one_ends_all_with_its_line() -> None:
    with pytest.raises(UserError, match="the disk is full"):
        in_processes(2, CPU, broken)
