"""Let nnU-Net find our trainers in this Python environment.

Writes one start-up line into the environment's site-packages. After that, plain nnU-Net commands know the trainers:

    nnUNetv2_train 501 2d 0 -tr InfNetTrainer

Nothing has to be exported, and an existing value of nnUNet_extTrainer is kept. Set NNUNET_COVID_NO_STARTUP=1 to
switch the line off for one shell; 'nnunet-covid unregister' takes it out.
"""

from __future__ import annotations

import argparse

from nnunet_covid.startup import register


def run(args: argparse.Namespace) -> None:
    print(f"registered: {register()}")
    print("nnUNetv2_train, nnUNetv2_predict and their child processes now find our trainers.")
