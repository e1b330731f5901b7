"""Snapshots of relation matrices: kept whole, read back in order, drawn; and what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_covid.auxiliary_data.relation_snapshots import (
    SnapshotMean,
    read_snapshots,
    write_snapshot,
)
from nnunet_covid.cli import main
from nnunet_covid.figures.relations import row_distance


def write(fold: Path, epoch: int, *, other: bool = True) -> SnapshotMean:
    generator = torch.Generator().manual_seed(epoch)
    mean = SnapshotMean()
    for _ in range(2):
        target, general, others = (torch.rand(6, 6, generator=generator) for _ in range(3))
        mean.add(target, general, others if other else None)
    snapshot = mean.snapshot(epoch)
    assert snapshot is not None
    write_snapshot(fold, snapshot)
    return mean


def test_snapshots_come_back_in_the_order_of_epochs(tmp_path: Path) -> None:
    kept = {epoch: write(tmp_path, epoch, other=epoch != 2) for epoch in (10, 2, 0)}
    found = read_snapshots(tmp_path)
    assert [s.epoch for s in found] == [0, 2, 10]
    for snapshot in found:
        expected = kept[snapshot.epoch].snapshot(snapshot.epoch)
        for name, value in vars(snapshot).items():
            np.testing.assert_array_equal(value, getattr(expected, name))
    assert found[1].general_other is None
    assert sorted(p.suffix for p in (tmp_path / "relations").iterdir()) == [".npz"] * 3


def test_arrays_of_other_names_do_no_harm(tmp_path: Path) -> None:
    write(tmp_path, 0)
    path = tmp_path / "relations" / "epoch_0000.npz"
    with np.load(path) as stored:
        matrices = dict(stored)
    assert "allow_pickle" not in matrices
    np.savez_compressed(path, extra=np.array(False), **matrices)
    (found,) = read_snapshots(tmp_path)
    np.testing.assert_array_equal(found.target_covid, matrices["target_covid"])


def test_an_epoch_without_a_step_has_no_snapshot() -> None:
    assert SnapshotMean().snapshot(0) is None


def test_row_distance_is_the_mean_norm_of_the_rows() -> None:
    assert row_distance(np.array([[3.0, 4.0], [0.0, 1.0]])) == pytest.approx(3)


def test_pictures_of_a_model(tmp_path: Path) -> None:
    for fold in (0, 3):
        for epoch in (0, 4):
            write(tmp_path / f"fold_{fold}", epoch, other=fold == 0)
    assert main(["relations", str(tmp_path)]) == 0
    drawn = {fold: {p.name for p in (tmp_path / f"fold_{fold}" / "relations").glob("*.png")} for fold in (0, 3)}
    assert drawn[0] == {"general_relations.png", "target_relations.png", "relation_differences.png"}
    assert drawn[3] == {"target_relations.png", "relation_differences.png"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing"], "nothing is no folder"),
        (["."], "has no fold_N/relations"),
        ([".", "-f", "7"], "fold_7 does not exist"),
        (["fold_1"], "holds no snapshot"),
        (["broken"], "is no snapshot of relation matrices"),
    ],
)
def test_a_folder_without_snapshots_is_refused(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fold_1").mkdir()
    broken = tmp_path / "broken" / "fold_0" / "relations" / "epoch_0000.npz"
    broken.parent.mkdir(parents=True)
    broken.write_text("not an archive")
    assert main(["relations", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
