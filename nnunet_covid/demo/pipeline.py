"""The demo: synthetic data, then every step of a real project through nnU-Net's own commands.

A finished step is written down in ``demo.json`` and skipped when the demo is started again in the same folder.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nnunet_covid.demo.commands import EpochLines, StepFailed, console_command, run_logged
from nnunet_covid.demo.covid_semiseg import write_covid_semiseg
from nnunet_covid.demo.light_plan import add_light_configuration
from nnunet_covid.demo.settings import DATA_SET, FOLD, Settings, Workspace
from nnunet_covid.errors import UserError
from nnunet_covid.figures.sheets import write_predictions
from nnunet_covid.files import write_text

Tell = Callable[[str], None]
TABLE = "table.txt"


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
        s = self.settings
        unfinished = self.workspace.source.with_name(f".{self.workspace.source.name}.partial")
        for folder in (unfinished, self.workspace.source):
            shutil.rmtree(folder, ignore_errors=True)
        write_covid_semiseg(
            unfinished,
            training=s.training,
            test=s.test,
            unlabelled=s.unlabelled,
            seed=s.seed,
            pixel=s.pixel,
        )
        unfinished.rename(self.workspace.source)

    def convert(self) -> None:
        """Step 2: the converter that a user of COVID-SemiSeg runs."""
        self._run("convert", "nnunet-covid", "convert", "covid-semiseg", self.workspace.source, "--workers", 1)

    def plan(self) -> None:
        """Step 3: fingerprint, plans and pre-processed data."""
        processes = () if self.settings.device == "cuda" else ("-np", 1, "-npfp", 1)
        arguments = ("-d", DATA_SET, "-c", "2d", "--verify_dataset_integrity", *processes)
        self._run("plan", "nnUNetv2_plan_and_preprocess", *arguments)
        if self.settings.configuration != "2d":
            add_light_configuration(self.workspace.plans)

    def train(self) -> None:
        """Step 4: fold 0, from the last checkpoint if there is one."""
        s = self.settings
        model = self.workspace.model(s) / f"fold_{FOLD}"
        resume = ("--c",) if any(model.glob("checkpoint_*.pth")) else ()
        arguments = (DATA_SET, s.configuration, FOLD, "-tr", s.trainer, "-device", s.device, *resume)
        # no worker processes: starting them takes longer than they save. The variable breaks planning, so only here
        extra = {} if s.device == "cuda" else {"nnUNet_n_proc_DA": "0"}
        lines = EpochLines(s.epochs, lambda line: self._tell(f"      {line}"))
        self._run("train", "nnUNetv2_train", *arguments, on_line=lines, extra=extra)

    def predict(self) -> None:
        """Step 5: the folder of test images."""
        s = self.settings
        shutil.rmtree(self.workspace.predictions, ignore_errors=True)
        arguments = ["-i", self.workspace.raw / "imagesTs", "-o", self.workspace.predictions, "-d", DATA_SET]
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
            raise UserError(f"{folder} cannot be made ({e.strerror}); choose another folder with -o") from e
        if not any(folder.iterdir()):
            self._write_journal()
            return
        remedy = "choose another folder with -o, or delete it"
        try:
            content = json.loads(journal.read_text(encoding="utf-8"))
            settings, self._done, self._mean_dice = (content[key] for key in ("settings", "seconds", "mean_dice"))
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{folder} is not empty and holds no demo; {remedy}") from None
        if settings != self.settings.to_json():
            mine = self.settings.to_json()
            differ = ", ".join(f"{k} {settings.get(k)}" for k in mine if settings.get(k) != mine[k])
            raise UserError(f"{folder} holds a demo with other settings ({differ}); {remedy}")

    def _write_journal(self) -> None:
        content = {
            "settings": self.settings.to_json(),
            "seconds": self._done,
            "mean_dice": self._mean_dice,
        }
        write_text(self.workspace.journal, json.dumps(content, indent=2) + "\n")

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
