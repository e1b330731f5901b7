"""The demo: synthetic data, then every step of a real project through nnU-Net's own commands.

A finished step is written down in ``demo.json`` and skipped when the demo is started again in the same folder.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nnunet_covid.demo.commands import EpochLines, StepFailed, console_command, run_logged
from nnunet_covid.demo.covid_semiseg import write_covid_semiseg
from nnunet_covid.errors import UserError
from nnunet_covid.figures.sheets import write_predictions
from nnunet_covid.files import replacing_folder, write_json
from nnunet_covid.startup import offer_trainers

Tell = Callable[[str], None]
TABLE = "table.txt"
DATASET = 501
DATASET_NAME = "Dataset501_COVIDSemiSeg"
PLANS = "nnUNetPlans"
FOLD = 0
LEAST_TRAINING_SLICES = 5
"""nnU-Net splits into five folds."""


@dataclass(frozen=True)
class Settings:
    """One demo.

    Attributes:
        training, test, unlabelled: How many synthetic slices of each kind.
        pixel: Mean size of a pixel, mm.
        epochs: Epochs of training.
        iterations: Steps per epoch.
        seed: Of the slices and of the training.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    training: int = 24
    test: int = 8
    unlabelled: int = 4
    pixel: float = 1.3
    epochs: int = 9
    iterations: int = 30
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.training < LEAST_TRAINING_SLICES:
            raise UserError(
                f"{self.training} training slices are too few: nnU-Net splits them into five folds; "
                f"ask for at least {LEAST_TRAINING_SLICES}"
            )
        for name in ("test", "epochs", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"the number of {name} must be at least 1, not {getattr(self, name)}")
        if not 0.5 <= self.pixel <= 4.0:
            raise UserError(f"a pixel of {self.pixel} mm does not show a lung well; choose from 0.5 to 4 mm")
        if self.seed < 0:
            raise UserError(f"the seed must not be negative, but is {self.seed}")

    @property
    def trainer(self) -> str:
        """The trainer's name as it stands behind ``-tr``."""
        return f"InfNetTrainer_{self.epochs}epochs_{self.iterations}its_seed{self.seed}"

    @property
    def configuration(self) -> str:
        """nnU-Net's configuration: what it planned, or on a CPU one with half the features."""
        return "2d_light" if self.device == "cpu" else "2d"


class Workspace:
    """The folder of one demo and what lies in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "synthetic_source"
        self.raw = folder / "nnUNet_raw" / DATASET_NAME
        self.plans = folder / "nnUNet_preprocessed" / DATASET_NAME / f"{PLANS}.json"
        self.predictions = folder / "predictions"
        self.evaluation = folder / "evaluation"
        self.overlay = folder / "overlay.png"
        self.journal = folder / "demo.json"

    def model(self, settings: Settings) -> Path:
        """The trained model."""
        name = f"{settings.trainer}__{PLANS}__{settings.configuration}"
        return self.folder / "nnUNet_results" / DATASET_NAME / name

    def environment(self, device: str, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The variables under which nnU-Net's commands run: its folders here, our trainers, few processes on a CPU."""
        environment = dict(base)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            environment[name] = str(self.folder / name)
        offer_trainers(environment)
        environment["PYTHONUNBUFFERED"] = "1"
        environment["nnUNet_compile"] = "f"  # compiling takes longer than this training
        if device == "cpu":
            environment["nnUNet_def_n_proc"] = "1"
            environment["OMP_WAIT_POLICY"] = "PASSIVE"  # on a busy machine, waiting threads must not take the cores
        if device == "mps":
            environment["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
        return environment


@dataclass(frozen=True)
class Step:
    """One step: its name in the journal, what the person reads, what it does, and a file that it leaves."""

    name: str
    title: str
    work: Callable[[], None]
    result: Path


class Demo:
    """One run of the demo in its folder."""

    def __init__(self, folder: Path, settings: Settings, tell: Tell = print) -> None:
        """Nothing is written before :meth:`run`.

        Args:
            folder: Receives everything; made if need be.
            settings: What to do.
            tell: Receives each line for the person.
        """
        self.settings = settings
        self.workspace = Workspace(folder.absolute())
        self._tell = tell
        self._done: dict[str, float] = {}
        self._mean_dice: float | None = None

    def steps(self) -> list[Step]:
        """All steps in order."""
        s, w = self.settings, self.workspace
        checkpoint = w.model(s) / f"fold_{FOLD}" / "checkpoint_final.pth"
        return [
            Step("data", f"make {s.training} training and {s.test} test slices", self.make_data, w.source),
            Step("convert", "convert them to an nnU-Net data set", self.convert, w.raw / "dataset.json"),
            Step("plan", "plan and pre-process", self.plan, w.plans),
            Step("train", f"train {s.trainer} on {s.device}", self.train, checkpoint),
            Step("predict", "predict the test slices", self.predict, w.predictions),
            Step("score", "score the predictions", self.score, w.evaluation / TABLE),
        ]

    def run(self) -> float:
        """Do what is not done yet; returns the mean Dice of the test slices.

        Raises:
            UserError: If the folder cannot be used.
            StepFailed: If a step fails.
        """
        self._open_folder()
        steps = self.steps()
        self._tell(f"Demo on synthetic chest CT in {self.workspace.folder}")
        for number, step in enumerate(steps, 1):
            head = f"[{number}/{len(steps)}] {step.title}"
            if step.name in self._done and step.result.exists():
                self._tell(f"{head}: done before")
                continue
            self._tell(head)
            start = time.monotonic()
            try:
                step.work()
            except StepFailed as e:
                raise StepFailed(f"step {number} of {len(steps)} ({step.name}): {e}", e.last_lines) from e
            self._done[step.name] = round(time.monotonic() - start, 1)
            self._write_journal()
            self._tell(f"      {self._done[step.name]:.0f} s")
        return self._report()

    def make_data(self) -> None:
        """Step 1: the synthetic data set in the layout of COVID-SemiSeg."""
        s, source = self.settings, self.workspace.source
        shutil.rmtree(source, ignore_errors=True)
        numbers = {name: getattr(s, name) for name in ("training", "test", "unlabelled", "seed", "pixel")}
        with replacing_folder(source) as unfinished:
            write_covid_semiseg(unfinished, **numbers)

    def convert(self) -> None:
        """Step 2: the converter that a user of COVID-SemiSeg runs."""
        self._run("convert", "nnunet-covid", "convert", "covid-semiseg", self.workspace.source, "--workers", 1)

    def plan(self) -> None:
        """Step 3: fingerprint, plans and pre-processed data."""
        processes = () if self.settings.device == "cuda" else ("-np", 1, "-npfp", 1)
        arguments = ("-d", DATASET, "-c", "2d", "--verify_dataset_integrity", *processes)
        self._run("plan", "nnUNetv2_plan_and_preprocess", *arguments)
        if self.settings.configuration != "2d":
            add_light_configuration(self.workspace.plans)

    def train(self) -> None:
        """Step 4: fold 0, from the last checkpoint if there is one."""
        s = self.settings
        model = self.workspace.model(s) / f"fold_{FOLD}"
        resume = ("--c",) if any(model.glob("checkpoint_*.pth")) else ()
        arguments = (DATASET, s.configuration, FOLD, "-tr", s.trainer, "-device", s.device, *resume)
        # no worker processes: starting them takes longer than they save. The variable breaks planning, so only here
        extra = {} if s.device == "cuda" else {"nnUNet_n_proc_DA": "0"}
        lines = EpochLines(s.epochs, lambda line: self._tell(f"      {line}"))
        self._run("train", "nnUNetv2_train", *arguments, on_line=lines, extra=extra)

    def predict(self) -> None:
        """Step 5: the folder of test images."""
        s = self.settings
        shutil.rmtree(self.workspace.predictions, ignore_errors=True)
        arguments = ["-i", self.workspace.raw / "imagesTs", "-o", self.workspace.predictions, "-d", DATASET]
        arguments += ["-c", s.configuration, "-f", FOLD, "-tr", s.trainer, "-device", s.device]
        self._run("predict", "nnUNetv2_predict", *arguments, "--save_probabilities", "-npp", 1, "-nps", 1)

    def score(self) -> None:
        """Step 6: tables and the overlay picture."""
        from nnunet_covid.evaluation import evaluate_folders, summarise, terminal_table, write_report

        work = self.workspace
        try:
            evaluation = evaluate_folders(work.predictions, work.raw / "labelsTs")
            work.evaluation.mkdir(exist_ok=True)
            write_report(evaluation, work.evaluation, plots=False)
            (work.evaluation / TABLE).write_text(terminal_table(evaluation) + "\n", encoding="utf-8")
            dice = {score.case: score.values["dice"] for score in evaluation.scores}
            mean = summarise(evaluation).classes["infection"].metrics["dice"].mean
            title = f"Synthetic test slices, InfNetTrainer, {self.settings.epochs * self.settings.iterations} steps"
            title += f": mean Dice {mean:.2f} (n = {len(dice)}), worst to best"
            write_predictions(
                work.overlay, work.raw / "imagesTs", work.raw / "labelsTs", work.predictions, dice, title=title
            )
        except UserError as e:
            raise StepFailed(str(e)) from e
        self._mean_dice = mean

    def _run(
        self,
        step: str,
        name: str,
        *arguments: object,
        on_line: Callable[[str], None] | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        shown = " ".join([name, *map(str, arguments)])
        self._tell(f"      {shown}")
        run_logged(
            console_command(name, *arguments),
            self.workspace.folder / "logs" / f"{step}.log",
            shown=shown,
            environment={**self.workspace.environment(self.settings.device), **(extra or {})},
            folder=self.workspace.folder,
            on_line=on_line,
        )

    def _open_folder(self) -> None:
        folder, journal = self.workspace.folder, self.workspace.journal
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"{folder} cannot be made ({e.strerror}); choose another folder", about="output") from e
        if not any(folder.iterdir()):
            self._write_journal()
            return
        remedy = "choose another folder, or delete it"
        try:
            content = json.loads(journal.read_text(encoding="utf-8"))
            settings, self._done, self._mean_dice = (content[key] for key in ("settings", "seconds", "mean_dice"))
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{folder} is not empty and holds no demo; {remedy}", about="output") from None
        mine = asdict(self.settings)
        if settings != mine:
            differ = ", ".join(f"{k} {settings.get(k)}" for k in mine if settings.get(k) != mine[k])
            raise UserError(f"{folder} holds a demo with other settings ({differ}); {remedy}", about="output")

    def _write_journal(self) -> None:
        content = {"settings": asdict(self.settings), "seconds": self._done, "mean_dice": self._mean_dice}
        write_json(self.workspace.journal, content)

    def _report(self) -> float:
        work = self.workspace
        mean, seconds = float(self._mean_dice or 0.0), sum(self._done.values())
        self._tell("")
        self._tell((work.evaluation / TABLE).read_text(encoding="utf-8").rstrip())
        self._tell("")
        self._tell(f"Mean Dice {mean:.3f} on {self.settings.test} test slices, after {seconds / 60.0:.1f} minutes.")
        for what, where in (
            ("model", work.model(self.settings)),
            ("predictions", work.predictions),
            ("tables", work.evaluation),
            ("picture", work.overlay),
        ):
            self._tell(f"{what:<12} {where}")
        return mean


def add_light_configuration(plans_file: Path, base: str = "2d", name: str = "2d_light") -> None:
    """Add to a plans file a configuration for training on a CPU, or put it right: half the features at every stage.

    nnU-Net's way to do so (its page "explanation of plans files"): an entry that inherits from another and replaces
    what differs. The pre-processed data are shared.
    """
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    architecture = copy.deepcopy(plans["configurations"][base]["architecture"])
    features = architecture["arch_kwargs"]["features_per_stage"]
    architecture["arch_kwargs"]["features_per_stage"] = [max(n // 2, 8) for n in features]
    plans["configurations"][name] = {"inherits_from": base, "architecture": architecture}
    write_json(plans_file, plans, indent=4)
