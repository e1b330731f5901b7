"""The steps of a pre-training: each draws its patches and masks by itself, so that a killed run ends as it would have.

All random numbers of a step's image come from the seed, the step and the image's number: neither the number of worker
processes nor the moment of a kill changes what is learnt, on a CPU to the last bit; nor does, but for rounding, the
number of processes that learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from nnunet_covid.auxiliary_data.batches import ImageTransforms, loader_of_images
from nnunet_covid.checkpoint import refusal_of
from nnunet_covid.errors import UserError
from nnunet_covid.figures.reconstructions import FILE as PICTURE
from nnunet_covid.figures.reconstructions import Reconstruction, draw_reconstructions
from nnunet_covid.files import replacing
from nnunet_covid.nnunet.training import GRADIENT_NORM, EpochSchedule, poly, seed_everything, spatial_only, warmed_up
from nnunet_covid.pretraining.autoencoder import Autoencoder
from nnunet_covid.pretraining.masking import block_mask, hide, loss_on_masked, masked_blocks
from nnunet_covid.pretraining.options import PretrainingOptions
from nnunet_covid.pretraining.processes import Share
from nnunet_covid.semi_supervised.rounds import seed_for
from nnunet_covid.semi_supervised.training import LabelledAndPseudo

LATEST = "checkpoint_latest.pth"
"""Where an unfinished run goes on."""
FINAL = "checkpoint_final.pth"
STEPS_BETWEEN_SAVES = 250
"""nnU-Net's epoch."""
STEPS_PER_READING = 50
"""Losses are averaged over so many steps; reading each would make a GPU wait."""
WARM_UP = 0.05
"""Share of the steps over which the rate rises."""
ZERO_MEAN = ("ZScoreNormalization",)
"""Of nnU-Net's normalisations: with that of CT, zero is the mean of the labelled lesions, not of the image."""
SHOWN = 4
"""Images in the picture."""
WHOLE = Share()
"""One process alone."""


class StepBatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Batch and mask of every step, by its number.

    Patches and their rotation, scaling and mirroring are nnU-Net's, by its own loader and the trainer's augmentation;
    intensities stay, because the network is asked for them.

    Args:
        trainer: Initialised.
        cases: What patches are cut from.
        block: Sides of the blocks that are hidden.
        options: Share, seed, steps.
        share: Which images of each batch are this process's.

    Raises:
        ValueError: If a patch is a single block.
    """

    def __init__(
        self,
        trainer: Any,
        cases: LabelledAndPseudo,
        block: Sequence[int],
        options: PretrainingOptions,
        share: Share = WHOLE,
    ) -> None:
        self.images, self.share = int(trainer.batch_size), share
        self.patch = tuple(trainer.configuration_manager.patch_size)
        self.block = tuple(block)
        self.options = options
        masked_blocks(self.patch, self.block, options.mask_share)

        def moving(transforms: Any, *, masked: bool) -> ImageTransforms:
            return ImageTransforms(spatial_only(transforms), masked=masked)

        self.loader = loader_of_images(trainer, cases, moving, 1)

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, C, *patch) and masks (B, 1, *patch), of a share of the batch its part."""
        images, rows = [], self.share.rows(self.images)
        for row in rows:
            seed_everything(seed_for(self.options.seed, step, f"patch {row}"))
            images.append(next(self.loader)["data"])
        generator = torch.Generator().manual_seed(seed_for(self.options.seed, step, "masks"))
        masks = block_mask(self.images, self.patch, self.block, self.options.mask_share, generator)
        return torch.cat(images), masks[list(rows)]


class Pretraining:
    """All steps, or those that are left of an interrupted run.

    Args:
        autoencoder: On the device.
        batches: Of every step.
        zero_mean: For each channel whether it is normalised to the mean 0.
        folder: For checkpoint and picture.
        device: To learn on.
        compiled: Whether the network is compiled.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        batches: StepBatches,
        zero_mean: Sequence[bool],
        folder: Path,
        device: torch.device,
        *,
        compiled: bool = False,
    ) -> None:
        self.autoencoder = autoencoder
        self.batches = batches
        self.share, self.options = batches.share, batches.options
        autoencoder.unet = self.share.synchronised(autoencoder.unet, device)
        self.zero_mean = zero_mean
        self.folder = folder
        self.device = device
        self.reconstruct: nn.Module = torch.compile(autoencoder) if compiled else autoencoder  # type: ignore[assignment]
        self.optimizer = self._new_optimizer()
        steps = self.options.steps
        self.schedule = EpochSchedule(self.optimizer, warmed_up(poly(steps), math.ceil(WARM_UP * steps)))
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")
        self.done = 0
        self.losses: list[tuple[int, float, float]] = []

    def _new_optimizer(self) -> torch.optim.Optimizer:
        parameters, rate = list(self.autoencoder.unet.parameters()), self.options.rate
        if self.options.optimizer == "adamw":
            return torch.optim.AdamW(parameters, rate)
        return torch.optim.SGD(parameters, rate, momentum=0.99, nesterov=True, weight_decay=3e-5)

    def run(self, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
        """Do the steps and write the checkpoint for ``-pretrained_weights``.

        Args:
            checkpoint: What it holds beside the weights.

        Returns:
            ``losses``: rows of the steps done, the mean loss of the steps before, and what it would be were the mean
            of each channel predicted.
        """
        self.resume()
        steps, processes = self.options.steps, get_allowed_n_proc_DA()
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=range(self.done, steps),
            num_workers=min(processes, steps - self.done),
            pin_memory=self.device.type == "cuda",
        )
        read: list[torch.Tensor] = []
        first = self.share.rank == 0
        with tqdm(total=steps, initial=self.done, desc="pre-train", unit="step", disable=not first) as bar:
            for images, mask in loader:
                read.append(self.step(images, mask))
                bar.update()
                if self.done % STEPS_PER_READING == 0 or self.done in (1, steps):
                    means = torch.stack(read).mean(0)
                    self.share.average([means])
                    self._note(means.tolist())
                    bar.set_postfix(loss=f"{self.losses[-1][1]:.3f}")
                    read.clear()
                if self.done % STEPS_BETWEEN_SAVES == 0 and first:
                    self.save()
        if first:
            self.draw()
            with replacing(self.folder / FINAL) as unfinished:
                torch.save({"network_weights": self.autoencoder.pretrained(), **checkpoint}, unfinished)
        return {"losses": self.losses}

    def step(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """One step of the optimiser: its loss, and the loss were the mean predicted, (2,); weighted by the share."""
        torch.manual_seed(seed_for(self.options.seed, self.done, "network"))  # of its dropout
        self.schedule.step(self.done)
        images, mask = (x.to(self.device, non_blocking=True) for x in (images, mask))
        hidden, weight = hide(images, mask, self.zero_mean), self.share.weight(self.batches.images)
        self.reconstruct.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, enabled=self.device.type == "cuda"):
            loss = loss_on_masked(self.reconstruct(hidden), images, mask) * weight
        self.scaler.scale(loss).backward()
        self.share.average(parameter.grad for parameter in self.autoencoder.unet.parameters())
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.autoencoder.unet.parameters(), GRADIENT_NORM)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.done += 1
        return torch.stack((loss.detach(), loss_on_masked(hidden, images, mask) * weight))

    def _note(self, means: Sequence[float]) -> None:
        if not math.isfinite(means[0]):
            raise UserError(f"the loss is no number any more after {self.done} steps: lower the `learning_rate`")
        self.losses.append((self.done, means[0], means[1]))

    def save(self) -> None:
        """What a killed run goes on from, and the picture of what the network can do by now."""
        state = {part: getattr(self, part).state_dict() for part in ("autoencoder", "optimizer", "scaler")}
        with replacing(self.folder / LATEST) as unfinished:
            torch.save({**state, "done": self.done, "losses": self.losses}, unfinished)
        self.draw()

    def resume(self) -> None:
        """Go on from what was saved, if anything was.

        Raises:
            UserError: If the file cannot be read.
        """
        path = self.folder / LATEST
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            for part in ("autoencoder", "optimizer", "scaler"):
                if state[part]:  # the scaler's is empty where it has nothing to do, as on a CPU
                    getattr(self, part).load_state_dict(state[part])
            self.done, self.losses = state["done"], [tuple(row) for row in state["losses"]]
        except Exception as e:  # torch's unpickler raises whatever the bytes lead it into
            message = f"{path} cannot be read ({refusal_of(e)}); delete {self.folder} to start afresh"
            raise UserError(message) from e

    @torch.no_grad()
    def draw(self) -> None:
        """Draw some patches that no step has: image, what the network sees of it, and its reconstruction."""
        self.autoencoder.eval()
        shown: list[Reconstruction] = []
        number = self.options.steps
        while len(shown) < SHOWN:
            images, mask = self.batches[number]
            hidden = hide(images, mask, self.zero_mean)
            reconstructions = self.autoencoder(hidden.to(self.device)).float().cpu()
            for image, where, found in zip(images, mask, reconstructions, strict=True):
                shown.append(Reconstruction(image[0].numpy(), where[0].numpy(), found[0].numpy()))
            number += 1
        self.autoencoder.train()
        draw_reconstructions(self.folder / PICTURE, shown[:SHOWN], f"after {self.done} of {self.options.steps} steps")
