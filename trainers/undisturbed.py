"""Trainings that no second process, full disk, foreign checkpoint or missing right spoils or ends unsaid.

Not here: anything that changes what is learnt.
"""

from __future__ import annotations

import errno
import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nnunetv2.paths import nnUNet_results
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_covid.checkpoint import refusal_of, release_process, restrict_process
from nnunet_covid.disturbances import SAME_COMMAND, alone, full_disk_told
from nnunet_covid.errors import UserError
from nnunet_covid.files import remove_abandoned, replacing
from nnunet_covid.nnunet.pretrained_weights import tell_of_other_weights

UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
LEFT_BEHIND = (*(f"checkpoint_{name}.pth" for name in ("final", "latest", "best")), "validation/summary.json")
"""By which nnU-Net and sweeps know how far a training in a folder is."""
DECAY = ("weight_decay", "decoupled_weight_decay")
"""Of a group of an optimiser; the second tells torch's AdamW from its Adam."""


def stop_training(message: str) -> NoReturn:
    """End ``nnUNetv2_train`` with one line and status 2: nnU-Net shows a traceback for every exception."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


@contextmanager
def unwritable_told() -> Iterator[None]:
    """A file or folder without the right to it ends the training with one line."""
    try:
        yield
    except OSError as e:
        if e.errno not in UNWRITABLE or not e.filename:
            raise
        path, results = Path(e.filename).absolute(), Path(nnUNet_results.require()).absolute()
        written = path.is_relative_to(results) or results.is_relative_to(path)
        remedy = "write there, or set another nnUNet_results" if written else "read and write there"
        stop_training(f"{e.filename}: {e.strerror}; ask for the right to {remedy}")


class UndisturbedTrainer(nnUNetTrainer):
    """nnU-Net's trainer, whose trainings no second process, full disk or foreign checkpoint spoils or ends unsaid."""

    @functools.wraps(nnUNetTrainer.__init__)  # nnU-Net looks at the names of its parameters
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        restrict_process()  # -pretrained_weights and --c read files of whatever origin
        with unwritable_told():
            super().__init__(*args, **kwargs)

    def initialize(self) -> None:
        """nnU-Net's; weights of another network, given to begin from, end the training with one line."""
        super().initialize()
        plans = Path(self.preprocessed_dataset_folder_base, f"{self.plans_manager.plans_name}.json")
        tell_of_other_weights(f"{type(self).__name__} by {plans}")

    def run_training(self) -> None:
        """nnU-Net's, by one process at a time; a full disk, or another optimiser than before, ends it with one line."""
        goes_on = self.was_initialized and self.current_epoch < self.num_epochs  # validated again it needs no optimiser
        if goes_on and not self._optimizer_is_its_own():
            self._stop_with_another_optimizer()
        if self.local_rank != 0:
            super().run_training()
            return
        folder = Path(self.output_folder)
        try:
            told = full_disk_told(folder, then=f"{SAME_COMMAND}, with --c")
            with unwritable_told(), told, alone(folder / ".lock", f"the training in {folder}", "train another fold"):
                remove_abandoned(folder)
                super().run_training()
        except UserError as e:
            stop_training(str(e))

    def on_train_start(self) -> None:
        """nnU-Net's; then what an earlier training left here is named so that nobody takes it for this one's."""
        release_process()  # what the training starts from has been read by now
        super().on_train_start()
        begins = self.local_rank == 0 and self.current_epoch == 0 and not self.disable_checkpointing
        for name in LEFT_BEHIND if begins else ():
            if (path := Path(self.output_folder, name)).is_file():
                path.replace(f"{path}.before")
                self.print_to_log_file(f"{name} of an earlier training is called {path.name}.before from now on")

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net's, under another name first: a process that is killed here leaves the checkpoint before it."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with replacing(Path(filename)) as unfinished:
            super().save_checkpoint(str(unfinished))

    def load_checkpoint(self, filename_or_checkpoint: dict[str, Any] | str) -> None:
        """nnU-Net's; one that is damaged, of another network or of another optimiser ends the training with one line.

        As the learning rate does, weight decay follows the class where it was changed since.
        """
        if not self.was_initialized:
            self.initialize()
        decays = [{key: group[key] for key in DECAY if key in group} for group in self.optimizer.param_groups]
        try:
            super().load_checkpoint(filename_or_checkpoint)
        except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
            if "parameter group" in str(e) or not self._optimizer_is_its_own():
                self._stop_with_another_optimizer()
            why = "it is of another network than these plans make" if "state_dict" in str(e) else refusal_of(e)
            remedy = "remove it, and --c goes on from the one before it or from the beginning"
            stop_training(f"{filename_or_checkpoint} cannot be gone on from ({why}): {remedy}")
        for group, own in zip(self.optimizer.param_groups, decays, strict=True):
            for key in own:
                if group.get(key) != own[key]:
                    self.print_to_log_file(f"{key} = {own[key]} of the class in the place of {group.get(key)}")
            group.update(own)

    def _optimizer_is_its_own(self) -> bool:
        """Whether what was loaded into the optimiser has all that it needs."""
        return not any(set(self.optimizer.defaults) - set(group) for group in self.optimizer.param_groups)

    def _stop_with_another_optimizer(self) -> NoReturn:
        what = f"{self.output_folder} was trained with another optimiser than {type(self).__name__} has now"
        stop_training(f"{what}: set optimizer_name and encoder_rate back, or train anew")
