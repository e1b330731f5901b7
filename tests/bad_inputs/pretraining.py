"""What ``nnunet-covid pretrain`` is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from image_files import grey, write_picture

from bad_inputs.ingredients import Make, several, spoilt
from bad_inputs.registry import BadInput, Kind
from bad_inputs.trainers import slices, weights_of_other_plans
from nnunet_covid.pretraining.options import PretrainingOptions

COMMAND = "nnunet-covid pretrain 940 2d -i unlabelled -p testPlans -device cpu"
ROUNDS = "nnunet-covid pseudo-label 940 2d 0 -i unlabelled -p testPlans -device cpu --strategy random"
RUN = Path("nnUNet_results/Dataset940_Tiny/pretraining/nnUNetTrainer__testPlans__2d/unlabelled")


def all_but_one_gone(folder: Path) -> None:
    for path in sorted((folder / "unlabelled").iterdir())[1:]:
        path.unlink()


def none_left(folder: Path) -> None:
    for path in (folder / "unlabelled").iterdir():
        path.unlink()


def copied_in(source: str, name: str) -> Make:
    """One of the data set's own images among the unlabelled ones."""

    def make(folder: Path) -> None:
        shutil.copy(folder / "nnUNet_raw/Dataset940_Tiny" / source, folder / "unlabelled" / name)

    return make


def a_picture_in_colour(folder: Path) -> None:
    write_picture(folder / "unlabelled/un_9_0000.png", grey((40, 40, 3), 0))


def begun(plans: str | None = None, **options: Any) -> Make:
    """A killed run."""

    def make(folder: Path) -> None:
        context = {
            "dataset": "Dataset940_Tiny",
            "configuration": "2d",
            "trainer": "nnUNetTrainer",
            **({"plans": plans} if plans else {}),
        }
        (folder / RUN).mkdir(parents=True)
        (folder / RUN / "lock").touch()
        content = {"version": 1, "options": asdict(PretrainingOptions(**options)), "context": context, "units": {}}
        (folder / RUN / "state.json").write_text(json.dumps(content))

    return make


def weights_of_fold_one(folder: Path) -> None:
    """A pre-training that has seen the training images of a fold."""
    torch.save({"network_weights": {}, "pretraining": {"fold": 1}}, folder / "fold1.pth")


def model_of_fold_one(folder: Path) -> None:
    """A trained model of a fold."""
    made = {"fold": 1, "plans": {"dataset_name": "Dataset940_Tiny"}}
    torch.save({"network_weights": {}, "init_args": made}, folder / "fold1.pth")


def nothing(folder: Path) -> None:
    pass


BAD_INPUTS = [
    BadInput(
        "one_unlabelled_image",
        Kind.OPTIONS,
        "a single image to pre-train on",
        COMMAND,
        spoilt(slices, all_but_one_gone),
        ("-i unlabelled: 1 image(s) to learn from; at least 2 are needed",),
    ),
    BadInput(
        "pretraining_without_end",
        Kind.OPTIONS,
        "a learning rate without end to pre-train with",
        f"{COMMAND} --learning-rate inf",
        spoilt(slices, nothing),
        ("--learning-rate inf: must be positive and finite",),
    ),
    BadInput(
        "rounds_from_no_pretraining",
        Kind.PLACES,
        "rounds from pre-trained weights that are not there",
        f"{ROUNDS} --pretrained-weights gone.pth",
        spoilt(slices, nothing),
        ("--pretrained-weights gone.pth: no such file",),
    ),
    BadInput(
        "rounds_from_a_pretraining_of_another_fold",
        Kind.STALE,
        "rounds from weights that were pre-trained with the training images of another fold",
        f"{ROUNDS} --pretrained-weights fold1.pth",
        spoilt(slices, weights_of_fold_one),
        ("--pretrained-weights fold1.pth: made with the training images of fold 1, validation images of fold 0 among",),
    ),
    BadInput(
        "rounds_from_weights_of_other_plans",
        Kind.STALE,
        "rounds from pre-trained weights of other plans",
        f"{ROUNDS} --pretrained-weights other.pth",
        spoilt(slices, weights_of_other_plans),
        ("--pretrained-weights other.pth: not of the network of nnUNetTrainer (The shape of the parameters of key",),
    ),
    BadInput(
        "rounds_from_a_model_of_another_fold",
        Kind.STALE,
        "rounds that start from a model of another fold, whose training images are validated on here",
        f"{ROUNDS} --start-from fold1.pth",
        spoilt(slices, model_of_fold_one),
        ("--start-from fold1.pth: made with the training images of fold 1", "take one that was made for fold 0"),
    ),
    BadInput(
        "stretched_and_trusted",
        Kind.OPTIONS,
        "rounds with soft maps and a threshold",
        f"{ROUNDS} --min-max --threshold 0.9",
        spoilt(slices, nothing),
        ("--threshold makes hard labels: leave it out, or leave out --min-max",),
    ),
    BadInput(
        "no_unlabelled_image",
        Kind.PLACES,
        "an empty folder to pre-train on",
        COMMAND,
        spoilt(slices, none_left),
        ("unlabelled holds no image that ends in .png",),
    ),
    BadInput(
        "known_images_only",
        Kind.UNUSED,
        "nothing but one image is left without the known ones",
        f"{COMMAND} --leave-out-duplicates",
        spoilt(slices, several(all_but_one_gone, copied_in("imagesTr/case_5_0000.png", "x_0000.png"))),
        ("-i unlabelled: 1 image(s) to learn from",),
    ),
    BadInput(
        "colour_among_grey",
        Kind.DAMAGED,
        "a picture with three channels among those with one",
        COMMAND,
        spoilt(slices, a_picture_in_colour),
        ("un_9_0000.png: has 3 channel(s), the data set's images have 1",),
    ),
    BadInput(
        "validation_image_among_unlabelled",
        Kind.UNUSED,
        "a validation image, under another name, among those to pre-train on",
        f"{COMMAND} -f 0",
        spoilt(slices, copied_in("imagesTr/case_5_0000.png", "new_0000.png")),
        ("-i unlabelled: 1 image(s) are known already (new = imagesTr/case_5)", "--leave-out-duplicates"),
    ),
    BadInput(
        "nothing_hidden",
        Kind.OPTIONS,
        "a mask share of 0",
        f"{COMMAND} --mask-share 0",
        spoilt(slices, nothing),
        ("--mask-share 0: must lie between 0 and 1",),
    ),
    BadInput(
        "more_gpus_than_there_are",
        Kind.OPTIONS,
        "two GPUs for a pre-training on the CPU",
        f"{COMMAND} -num_gpus 2",
        spoilt(slices, nothing),
        ("-num_gpus 2: 0 can be used with -device cpu; give no more, or leave it out",),
    ),
    BadInput(
        "everything_hidden",
        Kind.OPTIONS,
        "a mask share of 1",
        f"{COMMAND} --mask-share 1",
        spoilt(slices, nothing),
        ("--mask-share 1: must lie between 0 and 1",),
    ),
    BadInput(
        "patch_of_one_block",
        Kind.UNSUPPORTED,
        "a planned patch no larger than the deepest stride of the trainer's encoder",
        f"{COMMAND} -tr UNetPretrainedScratchTrainer",
        spoilt(slices, nothing),
        ("UNetPretrainedScratchTrainer", "the patch of 32×32 voxels is a single block", "plan a larger patch"),
    ),
    BadInput(
        "pretraining_with_other_options",
        Kind.STALE,
        "a killed pre-training, begun with other options",
        f"{COMMAND} --steps 20 --skips",
        spoilt(slices, begun(steps=10)),
        ("holds a run with other settings", "--steps was 10 and is 20; --skips was not given and is given", "--name"),
    ),
    BadInput(
        "pretraining_of_other_plans",
        Kind.STALE,
        "a killed pre-training of a data set that was planned again since",
        COMMAND,
        spoilt(slices, begun(plans="00000000")),
        ("holds a run with other settings", "plans was '00000000' and is", "--name"),
    ),
]
