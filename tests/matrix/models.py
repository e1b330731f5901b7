"""Trainings of one epoch and one step, predictions, and what must be true of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import timm
import torch
from cells import EVERYTHING, FAMILIES, LATE, Cell, needs_link
from data_sets import FOLDS, KINDS, PLANS, RESIDUAL_PLANS, TEST, DataSets, Kind
from nnunet_here import World
from skimage import io

import nnunet_covid.trainers as ours
from nnunet_covid.trainers import base, collaborative

ON_CPU = ("-device", "cpu")
DISTILLED = "SSANetTrainerSA"
QUICK = (*ON_CPU, "-npp", 1, "-nps", 1, "--disable_progress_bar")


class Models:
    """Data sets and trained models of one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.data = DataSets(world)
        self._trained: dict[tuple[str, ...], str] = {}
        self._predicted: dict[tuple[str, ...], Path] = {}

    def prepared(self, trainer: str, name: str, *configurations: str, residual: bool = False) -> Kind:
        """A data set that this trainer can begin with."""
        linked = needs_link(trainer)
        return self.data.planned(name, *configurations, residual=residual, linked=linked)

    def train(
        self, trainer: str, kind: Kind, configuration: str, *arguments: object, fold: object = 0, status: int = 0
    ) -> str:
        """What ``nnUNetv2_train`` prints."""
        plans = str(arguments[arguments.index("-p") + 1]) if "-p" in arguments else PLANS
        variables = self.start_weights(trainer, kind, configuration, plans)
        command = ("nnUNetv2_train", kind.number, configuration, fold, "-tr", short(trainer), *ON_CPU, *arguments)
        if trainer in LATE and not status:
            self._begin_late(trainer, kind, configuration)
            command = (*command, "--c")
        return self.world.call(*command, status=status, **variables)

    def trained(
        self, trainer: str, name: str, configuration: str = "2d", *, plans: str = PLANS, fold: object = 0
    ) -> Path:
        """The model folder of a training with ``--npz``, made once."""
        kind = self.prepared(trainer, name, configuration, residual=plans == RESIDUAL_PLANS)
        folder = self.model(trainer, kind, configuration, plans)
        key = (str(folder), str(fold))
        if key not in self._trained:
            printed = self.train(trainer, kind, configuration, "-p", plans, "--npz", fold=fold)
            assert "Mean Validation Dice" in printed
            assert (folder / f"fold_{fold}" / "checkpoint_final.pth").is_file()
            self._trained[key] = printed
        return folder

    def model(self, trainer: str, kind: Kind, configuration: str, plans: str = PLANS) -> Path:
        return self.world.results / kind.name / f"{short(trainer)}__{plans}__{configuration}"

    def predict(
        self,
        trainer: str,
        kind: Kind,
        output: Path,
        *arguments: object,
        configuration: str = "2d",
        plans: str = PLANS,
        fold: object = 0,
        world: World | None = None,
        images: Path | None = None,
    ) -> Path:
        """The folder of ``nnUNetv2_predict``."""
        which = ("-d", kind.number, "-c", configuration, "-f", fold, "-tr", short(trainer), "-p", plans)
        where = ("-i", images or self.data.images(kind), "-o", output)
        (world or self.world).call("nnUNetv2_predict", *where, *which, *QUICK, *arguments)
        return output

    def predicted(self, trainer: str, name: str, configuration: str = "2d", plans: str = PLANS) -> Path:
        """Predictions of the test images with probabilities, made once."""
        model = self.trained(trainer, name, configuration, plans=plans)
        if model not in self._predicted:
            kind = self.prepared(trainer, name, configuration)
            output = self.world.root / "predicted" / kind.name / model.name
            self.predict(trainer, kind, output, "--save_probabilities", configuration=configuration, plans=plans)
            self._predicted[model] = output
        return self._predicted[model]

    def forget(self) -> None:
        """Delete the weights, gigabytes, that no later test asks for; a model is made anew when it is asked for."""
        for path in self.world.results.rglob("checkpoint_*.pth"):
            fold = path.parent
            if path.name == "checkpoint_final.pth":
                trainer = fold.parent.name.split("_")[0]
                on_slices = fold.parent.parent.name == KINDS["slices"].name and fold.name == "fold_0"
                if trainer == "nnUNetTrainer" or (on_slices and (EVERYTHING or trainer in {*FAMILIES, DISTILLED})):
                    continue
                self._trained.pop((str(fold.parent), fold.name.removeprefix("fold_")), None)
            path.unlink()

    def start_weights(self, trainer: str, kind: Kind, configuration: str, plans: str = PLANS) -> dict[str, str]:
        """Where the weights come from that cannot be had from a hub here, or that the trainer asks the user for."""
        written = getattr(ours, trainer, None)  # none for nnU-Net's own
        if getattr(written, "general_weights", None) is not None:
            general = configuration.replace("3d_cascade_fullres", "3d_fullres")  # the general encoder sees images alone
            model = self.trained("nnUNetTrainer", name_of(kind), general, plans=plans)
            content = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
            path = self.world.root / f"general_{model.parent.name}_{model.name}.pth"
            torch.save({"network_weights": content["network_weights"]}, path)  # as of another data set: of no fold
            return {collaborative.WEIGHTS_VARIABLE: str(path)}
        source = getattr(written, "encoder_weights", None)
        if source is None or source == base.LITE0[1]:
            return {}
        path = self.world.root / f"{written.encoder_name}.pth"
        if not path.is_file():
            torch.save(timm.create_model(written.encoder_name, pretrained=False).state_dict(), path)
        return {base.WEIGHTS_VARIABLE: str(path)}

    def _begin_late(self, trainer: str, kind: Kind, configuration: str) -> None:
        """A training with distillation from an epoch on is refused below that, and goes on from a checkpoint there."""
        command = ("nnUNetv2_train", kind.number, configuration, 0, "-tr", f"{trainer}_1epochs_1its", *ON_CPU)
        assert f"distils from epoch {LATE[trainer]} on" in one_line(self.world.call(*command, status=2))
        source = self.trained(DISTILLED, name_of(kind), configuration) / "fold_0" / "checkpoint_final.pth"
        checkpoint = torch.load(source, weights_only=False)
        folder = self.model(trainer, kind, configuration) / "fold_0"
        folder.mkdir(parents=True)
        logged = {name: values[:1] * LATE[trainer] for name, values in checkpoint["logging"].items()}
        later = {"current_epoch": LATE[trainer], "logging": logged}
        torch.save({**checkpoint, **later}, folder / "checkpoint_latest.pth")


def short(trainer: str, epochs: int = 1) -> str:
    """The trainer for one epoch (or one that does what is new in it) of one step."""
    return f"{trainer}_{LATE.get(trainer, 0) + epochs}epochs_1its"


def name_of(kind: Kind) -> str:
    return next(name for name, known in KINDS.items() if known == kind)


def one_line(printed: str) -> str:
    """The one line of an error, without a traceback."""
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, printed[-2000:]
    assert "Traceback" not in printed
    return errors[0]


def check_refused(models: Models, cell: Cell, kind: Kind, configuration: str, *arguments: object) -> None:
    """Exit status 2, one line with the declared words, and nothing written."""
    assert cell.refusal is not None
    printed = models.train(cell.trainer, kind, configuration, *arguments, status=2)
    line = one_line(printed)
    assert all(words in line for words in cell.refusal.words), line
    assert not models.model(cell.trainer, kind, configuration).exists()


def read(path: Path) -> np.ndarray:
    """Labels of a file."""
    return io.imread(path) if path.suffix == ".png" else sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def check_predictions(folder: Path, kind: Kind) -> None:
    """One label map per test image, of its size and place, and such that it follows from its probabilities."""
    assert sorted(p.name for p in folder.glob(f"*{kind.ending}")) == [f"{case}{kind.ending}" for case in TEST]
    for case in TEST:
        labels = read(folder / f"{case}{kind.ending}")
        assert labels.shape == kind.shape
        assert set(np.unique(labels)) <= {0, *kind.values}
        if kind.dims == 3:
            spacing = sitk.ReadImage(str(folder / f"{case}{kind.ending}")).GetSpacing()
            assert spacing == pytest.approx(kind.spacing[::-1])
        maps = np.load(folder / f"{case}.npz")["probabilities"].reshape(kind.heads, *kind.shape)
        assert np.isfinite(maps).all()
        if kind.has_regions:
            expected = np.zeros(kind.shape, int)
            for region, value in zip(maps, kind.values, strict=True):
                expected[region > 0.5] = value
        else:
            np.testing.assert_allclose(maps.sum(0), 1, atol=1e-2)
            expected = np.array([0, *kind.values])[maps.argmax(0)]
        assert (expected == labels).mean() > 0.99


def check_same(a: Path, b: Path) -> None:
    """The same label maps in both folders."""
    names = [sorted(p.name for p in folder.iterdir() if p.name.startswith("test_")) for folder in (a, b)]
    files = [n for n in names[0] if n in names[1] and not n.endswith(("npz", "pkl"))]
    assert len(files) == len(TEST)
    for name in files:
        np.testing.assert_array_equal(read(a / name), read(b / name))


def check_validation(model: Path, kind: Kind) -> None:
    """The validation cases are scored, and their probabilities are there."""
    folder = model / "fold_0" / "validation"
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(FOLDS[0]["val"])
    for case in FOLDS[0]["val"]:
        assert np.load(folder / f"{case}.npz")["probabilities"].shape[0] == kind.heads


def without_validation(model: Path) -> None:
    shutil.rmtree(model / "fold_0" / "validation")
