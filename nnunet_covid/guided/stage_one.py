"""Infection maps from models that have not seen the image: the validation predictions of a cross-validation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.errors import UserError
from nnunet_covid.guided.infection_map import MapKind
from nnunet_covid.nnunet.dataset import read_splits
from nnunet_covid.raw_dataset.splits import Split

CHECKPOINT = "checkpoint_final.pth"
SHOWN = 5
DEFAULT_FOLDS = 5
"""Of nnU-Net's own split."""


@dataclass(frozen=True)
class CrossValidation:
    """The folds of one trained model and what each of them predicted for its validation cases.

    Args:
        folder: ``RESULTS/DATASET/TRAINER__PLANS__CONFIGURATION``.
        suffix: What follows the case in the name of a file: the images' ending for label maps, ``.npz`` for
            probabilities.
    """

    folder: Path
    suffix: str

    @classmethod
    def for_kind(cls, folder: Path, kind: MapKind, ending: str) -> CrossValidation:
        """Where maps of this kind lie."""
        return cls(folder, ending if kind == "label" else ".npz")

    def folds(self) -> list[int]:
        """Numbers of the folds. The fold ``all`` has seen every case and is not among them."""
        names = (path.name.removeprefix("fold_") for path in self.folder.glob("fold_*") if path.is_dir())
        return sorted(int(name) for name in names if name.isdecimal())

    def maps(self, cases: Sequence[str]) -> dict[str, tuple[int, Path]]:
        """Fold and file of the map of every case.

        Where nnU-Net's split file is at hand, a fold's maps are those of its validation cases alone: others, of
        a training with other splits, may lie beside them, and the model has seen their images.

        Raises:
            UserError: If cases lack a map, naming the command that makes it.
        """
        found: dict[str, tuple[int, Path]] = {}
        splits = read_splits(self.folder.parent.name) or []
        for fold in self.folds():
            kept_out = splits[fold]["val"] if fold < len(splits) else None
            for path in self._validation(fold).glob(f"*{self.suffix}"):
                case = path.name.removesuffix(self.suffix)
                if kept_out is None or case in kept_out:
                    found.setdefault(case, (fold, path))
        missing = [case for case in cases if case not in found]
        if missing:
            raise UserError(self._explanation(missing))
        return {case: found[case] for case in cases}

    def _validation(self, fold: int) -> Path:
        return self.folder / f"fold_{fold}" / "validation"

    def _explanation(self, missing: Sequence[str]) -> str:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        what = "probabilities" if self.suffix == ".npz" else "label maps"
        commands = list(self._commands())
        remedy = (
            f"make them with {'; '.join(commands)}"
            if commands
            else "train stage 1 on folds whose validation cases cover this data set, under the same case names"
        )
        return (
            f"{self.folder} has no validation {what} of {len(missing)} cases "
            f"({', '.join(missing[:SHOWN])}{more}); {remedy}"
        )

    def _commands(self) -> Iterable[str]:
        """The commands that make the maps of the folds without them: training, or validation of a finished one."""
        trainer, plans, configuration = (*self.folder.name.split("__"), "PLANS", "CONFIGURATION")[:3]
        present = self.folds()
        lacking: dict[bool, list[str]] = {}
        for fold in range(max([DEFAULT_FOLDS - 1, *present]) + 1):
            if fold not in present or not any(self._validation(fold).glob(f"*{self.suffix}")):
                trained = (self.folder / f"fold_{fold}" / CHECKPOINT).is_file()
                lacking.setdefault(trained, []).append(str(fold))
        for trained, folds in lacking.items():
            shown = folds[0] if len(folds) == 1 else "FOLD"
            parts = [f"nnUNetv2_train {self.folder.parent.name} {configuration} {shown} -tr {trainer}"]
            parts += [f"-p {plans}"] * (plans != "nnUNetPlans")
            parts += ["--npz"] * (self.suffix == ".npz") + ["--val"] * trained
            parts += [f"for FOLD {', '.join(folds)}"] * (len(folds) > 1)
            yield " ".join(parts)


def folds_of_maps(maps: dict[str, tuple[int, Path]]) -> list[Split]:
    """Splits in which every case is validated in the fold whose model made its map, in the order of folds."""
    numbers = sorted({fold for fold, _ in maps.values()})
    return [
        {
            "train": sorted(case for case, (other, _) in maps.items() if other != fold),
            "val": sorted(case for case, (other, _) in maps.items() if other == fold),
        }
        for fold in numbers
    ]
