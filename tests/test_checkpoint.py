"""A checkpoint of whatever origin is values: nothing in it is run, wherever it is read."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_covid.checkpoint import RESTRICTED, read_checkpoint, release_process, restrict_process, restricted
from nnunet_covid.errors import UserError

WEIGHTS = {"conv.weight": torch.ones(2, 1, 3, 3)}


class Attack:
    """Unpickled without restriction it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def saved(path: Path, **entries: Any) -> Path:
    torch.save({"network_weights": WEIGHTS, "trainer_name": "nnUNetTrainer", **entries}, path)
    return path


def test_what_nnunet_writes_is_read(tmp_path: Path) -> None:
    content = {
        "logging": {
            "mean_fg_dice": [np.float64(0.5)],
            "dice_per_class_or_region": [[np.float32(0.1)], []],
            "lrs": [0.1],
        },
        "_best_ema": np.float64(0.25),
        "current_epoch": np.int64(3),
        "init_args": {"plans": {"a": [1, None]}, "device": torch.device("cpu"), "fold": 0, "unpack": np.bool_(True)},
        "optimizer_state": {"state": {0: {"momentum": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]},
        "grad_scaler_state": None,
        "inference_allowed_mirroring_axes": (0, 1),
        "of_numpy": np.arange(4, dtype=np.float32),
        "name": np.str_("a"),
    }
    read = read_checkpoint(saved(tmp_path / "c.pth", **content))
    assert {key: read[key] for key in content if key != "of_numpy" and key != "optimizer_state"} == {
        key: value for key, value in content.items() if key != "of_numpy" and key != "optimizer_state"
    }
    np.testing.assert_array_equal(read["of_numpy"], content["of_numpy"])
    assert torch.equal(read["network_weights"]["conv.weight"], WEIGHTS["conv.weight"])


class OldNames:
    """A pickle module that names numpy.core, as numpy 1 does, where numpy 2 says numpy._core."""

    class Pickler(pickle._Pickler):  # type: ignore[name-defined]
        def save_global(self, obj: Any, name: str | None = None) -> None:
            if not getattr(obj, "__module__", "").endswith("core.multiarray"):
                super().save_global(obj, name)
                return
            self.write(b"cnumpy.core.multiarray\n" + obj.__name__.encode() + b"\n")
            self.memoize(obj)

    dumps = staticmethod(pickle.dumps)


def test_what_numpy_1_wrote_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    torch.save({"network_weights": WEIGHTS, "ema": np.float64(0.5)}, path, pickle_module=OldNames)
    assert b"numpy.core.multiarray" in path.read_bytes()
    assert read_checkpoint(path)["ema"] == 0.5


def test_an_attack_is_told_and_not_run(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", extra=Attack(tmp_path / "pwned"))
    with pytest.raises(UserError, match=r"c\.pth cannot be read as a checkpoint \(it names \w+\.mkdir, .*attack"):
        read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"half", b"PK\3\4 no archive", b"\x80\x02}q\0.", bytes(range(256)) * 4])
def test_what_is_no_checkpoint_is_told_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"c\.pth (cannot be read as a checkpoint|is no checkpoint)") as caught:
        read_checkpoint(tmp_path / "c.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("weights", [3, None, {"conv.weight": 3}, [torch.zeros(2)]])
def test_weights_are_tensors_by_name(weights: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no network_weights; name another file"):
        read_checkpoint(saved(tmp_path / "c.pth", network_weights=weights))
    with pytest.raises(UserError, match="holds no epoch; name another file"):
        read_checkpoint(saved(tmp_path / "c.pth"), needed=("epoch",))


def test_nnunets_own_reading_is_restricted_while_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RESTRICTED, raising=False)
    path = saved(tmp_path / "c.pth", extra=Attack(tmp_path / "pwned"))
    with restricted(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not (tmp_path / "pwned").exists()
    assert RESTRICTED not in os.environ
    torch.load(path, weights_only=False)
    assert (tmp_path / "pwned").exists(), "the attack works, so that the tests above mean something"


def test_a_training_reads_restrictedly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for ``-pretrained_weights``, which nnU-Net reads by itself."""
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    monkeypatch.setenv(RESTRICTED, "")  # so that it is put back afterwards
    monkeypatch.delenv(RESTRICTED)
    restrict_process()
    path = saved(tmp_path / "c.pth", extra=Attack(tmp_path / "pwned"))
    with pytest.raises(pickle.UnpicklingError):
        load_pretrained_weights(torch.nn.Conv2d(1, 2, 3), str(path))
    assert not (tmp_path / "pwned").exists()
    ema = saved(tmp_path / "plain.pth", network_weights=torch.nn.Conv2d(1, 2, 3).state_dict(), ema=np.float64(1))
    load_pretrained_weights(torch.nn.Conv2d(1, 2, 3), str(ema))


def test_reading_one_checkpoint_takes_nothing_away_from_a_restricted_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RESTRICTED, "1")
    restrict_process()
    path = saved(tmp_path / "c.pth", extra=np.float32(0.5))
    read_checkpoint(path)
    assert torch.load(path, weights_only=False)["extra"] == 0.5


def test_the_restriction_ends_where_a_training_starts_and_leaves_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESTRICTED, "")
    monkeypatch.delenv(RESTRICTED)
    restrict_process()
    assert RESTRICTED in os.environ
    release_process()
    assert RESTRICTED not in os.environ
    monkeypatch.setenv(RESTRICTED, "0")
    restrict_process()
    release_process()
    assert os.environ[RESTRICTED] == "0"
