"""A user's own trainer, which waits after its second epoch for as long as a file names its folder."""

import os
import time
from pathlib import Path

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class HeldTrainer(nnUNetTrainer):
    def on_epoch_end(self):
        super().on_epoch_end()
        hold = Path(os.environ["nnUNet_results"], "hold")
        while self.current_epoch == 2 and hold.exists() and self.output_folder.endswith(hold.read_text()):
            time.sleep(0.1)
