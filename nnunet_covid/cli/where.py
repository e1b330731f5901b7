"""Print the folder for nnUNet_extTrainer, for people who prefer an environment variable to 'nnunet-covid register':

export nnUNet_extTrainer=$(nnunet-covid where)
"""

from __future__ import annotations

import argparse

from nnunet_covid.startup import TRAINERS_FOLDER


def run(args: argparse.Namespace) -> None:
    print(TRAINERS_FOLDER)
