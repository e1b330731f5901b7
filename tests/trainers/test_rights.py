"""What a training says of files and folders that it has no right to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nnunet_covid.trainers.undisturbed import unwritable_told


@pytest.mark.parametrize(
    ("file", "remedy"),
    [
        ("results/Dataset501/fold_0/progress.png", "write there, or set another nnUNet_results"),
        ("results", "write there, or set another nnUNet_results"),
        (".", "write there, or set another nnUNet_results"),
        ("preprocessed/Dataset501/case.b2nd", "read and write there"),
    ],
)
def test_another_folder_for_results_is_no_remedy_for_data(
    file: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    path = str(tmp_path / file)
    with pytest.raises(SystemExit), unwritable_told():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    assert capsys.readouterr().err == f"error: {path}: Permission denied; ask for the right to {remedy}\n"
