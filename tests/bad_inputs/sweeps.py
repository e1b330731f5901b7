"""What ``nnunet-covid sweep`` and ``nnunet-covid table`` are refused."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tiny_data_set import DATASET

from bad_inputs.ingredients import Make, several, spoilt
from bad_inputs.registry import BadInput, Kind
from bad_inputs.trainers import slices

GOOD = 'datasets = 940\nconfigurations = "2d"\nplans = "testPlans"\ndevice = "cpu"\nfolds = 0\n'
TRAINERS = 'trainers = ["nnUNetTrainer"]\n'
PRETRAIN = '[[pretrain]]\nname = "own"\nimages = "unlabelled"\n'
SWEEP = "nnunet-covid sweep s.toml"


def says(text: str) -> Make:
    """A sweep file."""

    def make(folder: Path) -> None:
        (folder / "s.toml").write_text(text)

    return make


def scores(text: str, encoding: str = "utf-8") -> Make:
    """A table of scores."""

    def make(folder: Path) -> None:
        (folder / "scores.csv").write_text(text, encoding=encoding)

    return make


def trained_from(weights: str) -> Make:
    """A training that a sweep has begun from another file of weights of this name."""

    def make(folder: Path) -> None:
        torch.save({"network_weights": {}}, folder / weights)
        model = f"{DATASET}/nnUNetTrainer__testPlans__2d/fold_0"
        fold = folder / "nnUNet_results" / f"pretrained_{Path(weights).stem}" / model
        fold.mkdir(parents=True)
        (fold / "checkpoint_final.pth").touch()
        made = {"images": "", "options": [], "pretrained": f"/theirs/{weights}", "weights": "of theirs"}
        (fold / "sweep.json").write_text(json.dumps(made))

    return make


def model_of_fold_one(folder: Path) -> None:
    """A trained model."""
    made = {"fold": 1, "plans": {"dataset_name": DATASET}}
    torch.save({"network_weights": {}, "init_args": made}, folder / "w.pth")


HEAD = "trainer,length,seed,fold,case,class,dice\n"
SCORES = "nnunet-covid table s.toml --scores scores.csv"


BAD_INPUTS = [
    BadInput(
        "no_sweep_file",
        Kind.PLACES,
        "a sweep file that is not there",
        "nnunet-covid sweep other.toml",
        spoilt(slices, says(GOOD)),
        ("other.toml cannot be read", "name a sweep file"),
    ),
    BadInput(
        "sweep_file_is_no_toml",
        Kind.DAMAGED,
        "a list that is not closed in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + 'trainers = ["nnUNetTrainer"\n')),
        ("s.toml is no TOML", "cluster.md for an example"),
    ),
    BadInput(
        "sweep_file_in_another_encoding",
        Kind.DAMAGED,
        "a sweep file with an umlaut in another encoding",
        SWEEP,
        spoilt(slices, lambda folder: (folder / "s.toml").write_text("# Größe", encoding="latin-1")),
        ("s.toml is no text in UTF-8 (byte 4); save it so",),
    ),
    BadInput(
        "misspelt_key_of_a_sweep",
        Kind.UNUSED,
        "`trainer` for `trainers` in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + 'trainer = ["nnUNetTrainer"]\n')),
        ("s.toml: unknown key 'trainer'; did you mean trainers?",),
    ),
    BadInput(
        "sweep_without_trainers",
        Kind.OPTIONS,
        "a sweep file that names no trainers",
        SWEEP,
        spoilt(slices, says(GOOD)),
        ('s.toml: names no trainers; for example trainers = ["nnUNetTrainer"]',),
    ),
    BadInput(
        "sweep_on_an_unknown_device",
        Kind.OPTIONS,
        "`gpu` as the device of a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD.replace('"cpu"', '"gpu"') + TRAINERS)),
        ("s.toml: device = 'gpu': expected one of cpu, cuda, mps",),
    ),
    BadInput(
        "sweep_with_an_unused_configuration",
        Kind.UNUSED,
        "a configuration that a sweep file describes, and no run has",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + 'new_configurations.small = {inherits_from = "2d"}\n')),
        ("s.toml: no run has the configuration small, which it describes; add it to configurations",),
    ),
    BadInput(
        "sweep_of_an_unknown_data_set",
        Kind.PLACES,
        "a sweep over a data set that is not there",
        SWEEP,
        spoilt(slices, says(GOOD.replace("940", "941") + TRAINERS)),
        ("data set '941': there is none in", "there are Dataset940_Tiny"),
    ),
    BadInput(
        "sweep_of_a_misspelt_trainer",
        Kind.OPTIONS,
        "a trainer that nnU-Net does not find, in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + 'trainers = ["nnUNetTrainer", "InfNetTrianer"]\nlengths = "1epochs"\n')),
        ("trainer InfNetTrianer_1epochs: nnU-Net finds no such trainer; did you mean InfNetTrainer?",),
    ),
    BadInput(
        "sweep_of_a_configuration_that_is_not_planned",
        Kind.OPTIONS,
        "a configuration that the plans lack, in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD.replace('"2d"', '"2D"') + TRAINERS)),
        ("testPlans.json has no configuration '2D', but 2d", "take one of these, or describe it"),
    ),
    BadInput(
        "sweep_of_fold_minus_one",
        Kind.OPTIONS,
        "a fold below 0 in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD.replace("folds = 0", "folds = -1") + TRAINERS)),
        ("s.toml: folds -1: expected whole numbers from 0 on",),
    ),
    BadInput(
        "sweep_with_one_bracket",
        Kind.OPTIONS,
        "[pretrain] with one bracket in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + '[pretrain]\nname = "own"\n')),
        ("s.toml: write [[pretrain]] with two brackets",),
    ),
    BadInput(
        "sweep_from_an_unknown_pre_training",
        Kind.OPTIONS,
        "a training that starts from a pre-training that the sweep file does not describe",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + '[[train]]\npretrained = "own"\n')),
        ('s.toml: pretrained = "own" is no name of a [[pretrain]] table, and no .pth file',),
    ),
    BadInput(
        "seeds_of_a_pre_training",
        Kind.UNUSED,
        "seeds in the table of a pre-training, which has but one",
        SWEEP,
        spoilt(slices, says(f"{GOOD}{TRAINERS}{PRETRAIN}seeds = [0, 1]\n")),
        ("s.toml [[pretrain]]: unknown key 'seeds'",),
    ),
    BadInput(
        "sweep_from_a_pre_training_of_another_fold",
        Kind.OPTIONS,
        "a training on one fold from a pre-training with the training images of another",
        SWEEP,
        spoilt(
            slices, says(f'{GOOD}{TRAINERS}{PRETRAIN}options = ["-f", 1]\n[[train]]\npretrained = "own"\n{TRAINERS}')
        ),
        ("s.toml: [[pretrain]] own sees the training images of fold 1, validation images of fold 0 among them",),
    ),
    BadInput(
        "sweep_from_a_model_of_another_fold",
        Kind.STALE,
        "a training from a model of another fold, whose training images it is validated on, in a sweep file",
        SWEEP,
        spoilt(slices, several(says(GOOD + f'[[train]]\n{TRAINERS}pretrained = "w.pth"\n'), model_of_fold_one)),
        ("w.pth: made with the training images of fold 1, validation images of fold 0 among them",),
    ),
    BadInput(
        "sweep_from_other_weights_of_the_same_name",
        Kind.STALE,
        "a training from a file of weights, whose results another sweep has made from another file of that name",
        SWEEP,
        spoilt(slices, several(says(GOOD + f'[[train]]\n{TRAINERS}pretrained = "w.pth"\n'), trained_from("w.pth"))),
        ("fold_0 was made with weights = 'of theirs', not", "move it away, take another name or nnUNet_results"),
    ),
    BadInput(
        "sweep_that_describes_a_configuration_otherwise",
        Kind.UNUSED,
        "a configuration in a sweep file that the plans have already, with other values",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + "new_configurations.2d = {batch_size = 77}\n")),
        ("testPlans.json has another", "in '2d' than the sweep file describes: give the configuration another name"),
    ),
    BadInput(
        "sweep_of_two_plans",
        Kind.OPTIONS,
        "a list where a sweep file takes one name",
        SWEEP,
        spoilt(slices, says(GOOD.replace('"testPlans"', '["testPlans", "others"]') + TRAINERS)),
        ("s.toml: plans = ['testPlans', 'others']: expected one text, in quotes",),
    ),
    BadInput(
        "switch_of_a_sweep_in_quotes",
        Kind.OPTIONS,
        "`false` in quotes in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + 'probabilities = "false"\n')),
        ("s.toml: probabilities = 'false': expected true or false, without quotes",),
    ),
    BadInput(
        "rounds_of_a_sweep_without_images",
        Kind.PLACES,
        "pseudo-label rounds in a sweep file, whose folder of images is not there",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + '[[pseudo_label]]\nname = "R"\nstrategy = "random"\nimages = "un"\n')),
        ("s.toml: images", "un: there is no such folder"),
    ),
    BadInput(
        "time_limit_as_text",
        Kind.OPTIONS,
        "a time limit as hours and minutes in a sweep file",
        SWEEP,
        spoilt(slices, says(GOOD + TRAINERS + '[slurm]\nminutes = "24:00"\n')),
        ("s.toml [slurm]: minutes = '24:00': expected something like 1440",),
    ),
    BadInput(
        "sweep_file_and_flags",
        Kind.OPTIONS,
        "a sweep file, and flags beside it",
        f"{SWEEP} -tr InfNetTrainer",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("the file says it already: leave out the flags for trainers, or the file",),
    ),
    BadInput(
        "nothing_to_sweep",
        Kind.OPTIONS,
        "neither a sweep file nor flags",
        "nnunet-covid sweep",
        slices,
        ("nothing to run: name a sweep file, or -d, -c and -tr",),
    ),
    BadInput(
        "no_run_at_a_time",
        Kind.OPTIONS,
        "no run at a time",
        f"{SWEEP} --jobs 0",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("argument --jobs: 0 is not a positive number",),
    ),
    BadInput(
        "slurm_flag_of_a_local_sweep",
        Kind.UNUSED,
        "a flag for SLURM without --executor slurm",
        f"{SWEEP} --minutes 60",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("--minutes says nothing to the executor local: add --executor slurm, or leave it out",),
    ),
    BadInput(
        "local_flag_of_a_sweep_on_slurm",
        Kind.UNUSED,
        "the number of runs at once on this machine beside --executor slurm",
        f"{SWEEP} --executor slurm --jobs 2",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("--jobs says nothing to the executor slurm: leave it out",),
    ),
    BadInput(
        "sweep_where_there_is_no_gpu",
        Kind.PLACES,
        "a sweep for GPUs on a machine that has none",
        SWEEP,
        spoilt(slices, says(GOOD.replace('device = "cpu"', "") + TRAINERS)),
        ('no GPU is seen here: give -device cpu (in a file: device = "cpu"), or name GPUs with --gpus',),
        environment=(("CUDA_VISIBLE_DEVICES", ""),),
    ),
    BadInput(
        "sweep_where_there_is_no_slurm",
        Kind.PLACES,
        "a sweep for SLURM on a machine that has none",
        f"{SWEEP} --executor slurm",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("there is no SLURM on this machine", "go to its login node"),
        environment=(("PATH", "/nowhere"),),
    ),
    BadInput(
        "table_of_nothing",
        Kind.PLACES,
        "the table of a sweep of which nothing is finished",
        "nnunet-covid table s.toml",
        spoilt(slices, says(GOOD + TRAINERS)),
        ("no run of this sweep is finished yet; see its --status, and notes above on what is left out",),
    ),
    BadInput(
        "scores_of_something_else",
        Kind.DAMAGED,
        "a CSV file with other columns as the scores of a sweep",
        SCORES,
        spoilt(slices, several(says(GOOD + TRAINERS), scores("case,dice\na,1\n"))),
        ("scores.csv is no table of scores: it has no column",),
    ),
    BadInput(
        "scores_in_another_encoding",
        Kind.DAMAGED,
        "scores of a sweep that a spreadsheet has saved as UTF-16",
        SCORES,
        spoilt(slices, several(says(GOOD + TRAINERS), scores(HEAD, "utf-16"))),
        ("scores.csv cannot be read as a table (UnicodeDecodeError); save it as CSV in UTF-8",),
    ),
    BadInput(
        "scores_cut_short",
        Kind.DAMAGED,
        "a line of the scores of a sweep that is cut short",
        SCORES,
        spoilt(slices, several(says(GOOD + TRAINERS), scores(f"{HEAD}nnUNetTrainer,,0,0,a,infection\n"))),
        ("lacks a score, or a number is none, in the line nnUNetTrainer, 0, 0, a, infection; take the line out",),
    ),
]
