"""The demo: synthetic data, then every step of a real project through nnU-Net's own commands.

A finished step is written down in ``demo.json`` and skipped when the demo is started again in the same folder. What a
command prints goes to a log, its progress to the person.
"""

from __future__ import annotations

import copy
import json
import os
import shlex
import shutil
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

from nnunet_covid.demo.covid_semiseg import write_covid_semiseg
from nnunet_covid.errors import UserError
from nnunet_covid.figures.sheets import write_predictions
from nnunet_covid.files import replacing_folder, write_json
from nnunet_covid.nnunet.training_log import LINE, mean_dice
from nnunet_covid.startup import console_command, let_threads_sleep, offer_trainers

DATASET = 501
DATASET_NAME = "Dataset501_COVIDSemiSeg"
PLANS = "nnUNetPlans"
FOLD = 0
LIGHT_BATCH = 6
"""Patches in a batch of a training on a CPU, at most."""
LEAST_TRAINING_SLICES = 5
"""nnU-Net splits into five folds."""
LAST_LINES = 12
"""Of the log of a command that failed."""

Step = tuple[str, str, Callable[[], None], Path]
"""Its name in the journal, what the person reads, what it does, and a file that it leaves."""


class StepFailed(Exception):
    """A step of the demo ended with an error; the message is one line, ``last_lines`` the end of its log."""

    def __init__(self, message: str, last_lines: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.last_lines = list(last_lines)


@dataclass(frozen=True)
class Settings:
    """One demo.

    Attributes:
        training, test, unlabelled: How many synthetic slices of each kind.
        pixel: Mean size of a pixel, mm.
        base: Trainer, without length and seed.
        epochs: Epochs of training.
        iterations: Steps per epoch.
        seed: Of the slices and of the training.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
    """

    training: int = 24
    test: int = 8
    unlabelled: int = 4
    pixel: float = 1.3
    base: str = "InfNetTrainer"
    epochs: int = 9
    iterations: int = 30
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.training < LEAST_TRAINING_SLICES:
            raise UserError(
                f"{self.training} training cases are too few: nnU-Net splits them into five folds; "
                f"ask for at least {LEAST_TRAINING_SLICES}"
            )
        for name in ("test", "epochs", "iterations"):
            if getattr(self, name) < 1:
                raise UserError(f"the number of {name} must be at least 1, not {getattr(self, name)}")
        if not 0.5 <= self.pixel <= 4.0:
            raise UserError(f"a pixel of {self.pixel} mm does not show a lung well; choose from 0.5 to 4 mm")
        if not 0 <= self.seed < 1 << 32:
            raise UserError(f"the seed must be 0 or a positive integer below 2^32, not {self.seed}")

    @property
    def trainer(self) -> str:
        """The trainer's name as it stands behind ``-tr``."""
        return f"{self.base}_{self.epochs}epochs_{self.iterations}its_seed{self.seed}"

    @property
    def configuration(self) -> str:
        """nnU-Net's configuration: what it planned, or on a CPU one with half the features."""
        return "2d_light" if self.device == "cpu" else "2d"


class Demo:
    """One run of the demo in its folder."""

    def __init__(self, folder: Path, settings: Settings, tell: Callable[[str], None] = print) -> None:
        """Nothing is written before :meth:`run`.

        Args:
            folder: Receives everything; made if need be.
            settings: What to do.
            tell: Receives each line for the person.
        """
        self.settings = settings
        self.folder = folder.absolute()
        self.raw = self.folder / "nnUNet_raw" / DATASET_NAME
        self.plans = self.folder / "nnUNet_preprocessed" / DATASET_NAME / f"{PLANS}.json"
        model = f"{settings.trainer}__{PLANS}__{settings.configuration}"
        self.model = self.folder / "nnUNet_results" / DATASET_NAME / model
        self.source, self.predictions, self.evaluation, self.overlay, self._journal = (
            self.folder / name for name in ("synthetic_source", "predictions", "evaluation", "overlay.png", "demo.json")
        )
        self.table = self.evaluation / "table.txt"
        self._tell = tell
        self._done: dict[str, float] = {}
        self._mean_dice: float | None = None

    @property
    def dataset(self) -> int:
        """Number of the data set."""
        return DATASET

    def steps(self) -> list[Step]:
        """All steps in order."""
        s = self.settings
        checkpoint = self.model / f"fold_{FOLD}" / "checkpoint_final.pth"
        return [
            ("data", f"make {s.training} training and {s.test} test slices", self._make_data, self.source),
            ("convert", "convert them to an nnU-Net data set", self._convert, self.raw / "dataset.json"),
            ("plan", "plan and pre-process", self._plan, self.plans),
            ("train", f"train {s.trainer} on {s.device}", self._train, checkpoint),
            ("predict", "predict the test slices", self._predict, self.predictions),
            ("score", "score the predictions", self._score, self.table),
        ]

    def run(self) -> float:
        """Do what is not done yet; returns the mean Dice of the test slices.

        Raises:
            UserError: If the folder cannot be used.
            StepFailed: If a step fails.
        """
        self._open_folder()
        steps = self.steps()
        self._tell(f"Demo on synthetic chest CT in {self.folder}")
        for number, (name, title, work, result) in enumerate(steps, 1):
            head = f"[{number}/{len(steps)}] {title}"
            if name in self._done and result.exists():
                self._tell(f"{head}: done before")
                continue
            self._tell(head)
            start = time.monotonic()
            try:
                work()
            except StepFailed as e:
                raise StepFailed(f"step {number} of {len(steps)} ({name}): {e}", e.last_lines) from e
            self._done[name] = round(time.monotonic() - start, 1)
            self._write_journal()
            self._tell(f"      {self._done[name]:.0f} s")
        return self._report()

    def environment(self, base: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The variables under which nnU-Net's commands run: its folders here, our trainers, few processes on a CPU."""
        environment = dict(base)
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            environment[name] = str(self.folder / name)
        offer_trainers(environment)
        environment["PYTHONUNBUFFERED"] = "1"
        environment["nnUNet_compile"] = "f"  # compiling takes longer than this training
        if self.settings.device == "cpu":
            environment["nnUNet_def_n_proc"] = "1"
            let_threads_sleep(environment)
        if self.settings.device == "mps":
            environment["PYTORCH_ENABLE_MPS_FALLBACK"] = "1"
        return environment

    def _make_data(self) -> None:
        """Step 1: the synthetic data set in the layout of COVID-SemiSeg."""
        shutil.rmtree(self.source, ignore_errors=True)
        numbers = {name: getattr(self.settings, name) for name in ("training", "test", "unlabelled", "seed", "pixel")}
        with replacing_folder(self.source) as unfinished:
            write_covid_semiseg(unfinished, **numbers)

    def _convert(self) -> None:
        """Step 2: the converter that a user of COVID-SemiSeg runs."""
        self._run("convert", "nnunet-covid", "convert", "covid-semiseg", self.source, "--workers", 1)

    def _plan(self) -> None:
        """Step 3: fingerprint, plans and pre-processed data."""
        processes = () if self.settings.device == "cuda" else ("-np", 1, "-npfp", 1)
        arguments = ("-d", self.dataset, "-c", "2d", "--verify_dataset_integrity", *processes)
        # nnU-Net 2.8.1 cannot plan with 0, which a person may have exported for trainings
        self._run("plan", "nnUNetv2_plan_and_preprocess", *arguments, nnUNet_n_proc_DA="1")
        if self.settings.configuration != "2d":
            add_light_configuration(self.plans)

    def _train(self) -> None:
        """Step 4: fold 0, from the last checkpoint if there is one."""
        s = self.settings
        resume = ("--c",) if any(self.model.glob(f"fold_{FOLD}/checkpoint_*.pth")) else ()
        arguments = (self.dataset, s.configuration, FOLD, "-tr", s.trainer, "-device", s.device, *resume)
        # no worker processes: starting them takes longer than they save. The variable breaks planning, so only here
        extra = {} if s.device == "cuda" else {"nnUNet_n_proc_DA": "0"}
        lines = EpochLines(s.epochs, lambda line: self._tell(f"      {line}"))
        self._run("train", "nnUNetv2_train", *arguments, on_line=lines, **extra)

    def _predict(self) -> None:
        """Step 5: the folder of test images."""
        s = self.settings
        shutil.rmtree(self.predictions, ignore_errors=True)
        arguments = ["-i", self.raw / "imagesTs", "-o", self.predictions, "-d", DATASET]
        arguments += ["-c", s.configuration, "-f", FOLD, "-tr", s.trainer, "-device", s.device]
        self._run("predict", "nnUNetv2_predict", *arguments, "--save_probabilities", "-npp", 1, "-nps", 1)

    def _score(self) -> None:
        """Step 6: tables and the overlay picture."""
        from nnunet_covid.evaluation import evaluate_folders, summarise, terminal_table, write_report

        images, references = self.raw / "imagesTs", self.raw / "labelsTs"
        try:
            evaluation = evaluate_folders(self.predictions, references)
            self.evaluation.mkdir(exist_ok=True)
            write_report(evaluation, self.evaluation, plots=False)
            self.table.write_text(terminal_table(evaluation) + "\n", encoding="utf-8")
            dice = {score.case: score.values["dice"] for score in evaluation.scores}
            mean = summarise(evaluation).classes["infection"].metrics["dice"].mean
            title = (
                f"Synthetic test slices, {self.settings.base}, {self.settings.epochs * self.settings.iterations} steps"
            )
            title += f": mean Dice {mean:.2f} (n = {len(dice)}), worst to best"
            write_predictions(self.overlay, images, references, self.predictions, dice, title=title)
        except UserError as e:
            raise StepFailed(str(e)) from e
        self._mean_dice = mean

    def _run(self, step: str, *command: object, on_line: Callable[[str], None] | None = None, **extra: str) -> None:
        """Run a console command under :meth:`environment` and ``extra`` variables; its log is named after the step."""
        name, *arguments = map(str, command)
        shown, log = shlex.join([name, *arguments]), self.folder / "logs" / f"{step}.log"
        self._tell(f"      {shown}")
        run_logged(console_command(name, *arguments), log, shown, {**self.environment(), **extra}, on_line)

    def _open_folder(self) -> None:
        folder = self.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise UserError(f"{folder} cannot be made ({e.strerror}); choose another folder", about="output") from e
        if not any(folder.iterdir()):
            self._write_journal()
            return
        remedy = "choose another folder, or delete it"
        try:
            content = json.loads(self._journal.read_text(encoding="utf-8"))
            settings, self._done, self._mean_dice = (content[key] for key in ("settings", "seconds", "mean_dice"))
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{folder} is not empty and holds no demo; {remedy}", about="output") from None
        mine = asdict(self.settings)
        if settings != mine:
            differ = ", ".join(f"{k} {settings.get(k)}" for k in mine if settings.get(k) != mine[k])
            raise UserError(f"{folder} holds a demo with other settings ({differ}); {remedy}", about="output")

    def _write_journal(self) -> None:
        content = {"settings": asdict(self.settings), "seconds": self._done, "mean_dice": self._mean_dice}
        write_json(self._journal, content)

    def _report(self) -> float:
        mean, minutes = float(self._mean_dice or 0.0), sum(self._done.values()) / 60.0
        table = self.table.read_text(encoding="utf-8").rstrip()
        for line in ("", table, ""):
            self._tell(line)
        self._tell(f"Mean Dice {mean:.3f} on {self.settings.test} test slices, after {minutes:.1f} minutes.")
        places = {"model": self.model, "predictions": self.predictions, "tables": self.evaluation}
        for what, where in {**places, "picture": self.overlay}.items():
            self._tell(f"{what:<12} {where}")
        return mean


def add_light_configuration(plans_file: Path) -> None:
    """Add to a plans file ``2d_light`` for training on a CPU, or put it right: ``2d`` with half the features per stage,
    and of many patches in a batch a few: more steps in the same time.

    nnU-Net's way to do so (its page "explanation of plans files"): an entry that inherits from another and replaces
    what differs. The pre-processed data are shared.
    """
    plans = json.loads(plans_file.read_text(encoding="utf-8"))
    planned = plans["configurations"]["2d"]
    architecture = copy.deepcopy(planned["architecture"])
    features = architecture["arch_kwargs"]["features_per_stage"]
    architecture["arch_kwargs"]["features_per_stage"] = [max(n // 2, 8) for n in features]
    plans["configurations"]["2d_light"] = {
        "inherits_from": "2d",
        "architecture": architecture,
        "batch_size": min(planned["batch_size"], LIGHT_BATCH),
    }
    write_json(plans_file, plans, indent=4)


def run_logged(
    command: Sequence[str],
    log: Path,
    shown: str,
    environment: Mapping[str, str],
    on_line: Callable[[str], None] | None = None,
) -> None:
    """Run a command to its end, in the folder above the logs.

    Args:
        command: Program and arguments.
        log: Receives everything the command prints; an older log is kept above it.
        shown: The command as a person would type it.
        environment: All variables.
        on_line: Receives every line as it comes.

    Raises:
        StepFailed: If the exit status is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=LAST_LINES)
    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {shown}\n")
        with Popen(
            command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            encoding="utf-8",
            errors="replace",
            env=environment,
            cwd=log.parent.parent,
        ) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    stream.write(line)
                    stream.flush()
                    if line.strip():
                        last.append(line.rstrip())
                    if on_line is not None:
                        on_line(line)
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        raise StepFailed(f"'{shown}' ended with status {process.returncode}; its log: {log}", last)


class EpochLines:
    """Turns nnU-Net's training log into one line per epoch."""

    def __init__(self, epochs: int, tell: Callable[[str], None]) -> None:
        self._epochs = epochs
        self._tell = tell
        self._seen: dict[str, str] = {}

    def __call__(self, line: str) -> None:
        """Read one line of the log; tell about the epoch when its last line has come."""
        match = LINE.search(line)
        if match is None:
            return
        self._seen.update({key: value for key, value in match.groupdict().items() if value is not None})
        if match["seconds"] is None or "epoch" not in self._seen:
            return
        value = mean_dice(self._seen.get("dice", ""))
        dice = "–" if value is None else f"{value:.2f}"
        self._tell(
            f"epoch {int(self._seen['epoch']) + 1:>3}/{self._epochs}   "
            f"training loss {self._seen.get('loss', '–')}   validation Dice {dice}   {float(match['seconds']):.0f} s"
        )
        self._seen.clear()
