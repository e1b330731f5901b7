"""The saliency maps of every image of a folder, written as NIfTI and as pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_covid.errors import Unusable, UserError
from nnunet_covid.figures.sheets import write_heat_maps
from nnunet_covid.figures.slices import scaled, shown_slice
from nnunet_covid.files import names_apart, own_name, writable_folder, write_json
from nnunet_covid.losses.ssa_net import check_exponent
from nnunet_covid.nnunet.cases import CaseFiles
from nnunet_covid.nnunet.dataset import NIFTI
from nnunet_covid.nnunet.encoder import feature_shapes, find_encoder
from nnunet_covid.nnunet.predictor import PreparedCase, TrainedModel
from nnunet_covid.nnunet.written_images import write_map
from nnunet_covid.saliency.case_maps import CaseMaps, Evidence, Request, compute_case_maps

REPORT = "saliency.json"
UNFIT = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
"""What a file system does not take in the name of a file; the name of a class may hold it."""
LONGEST = 100


@dataclass(frozen=True)
class Settings:
    """What the user may choose.

    Args:
        class_names: Classes for Grad-CAM; every foreground class if ``None``.
        stages: Grad-CAM's stages, counted from 1 as in the names of the files; the deepest if empty, all if ``None``.
        exponent: z of the attention maps, at least 1.
        evidence: Where Grad-CAM sums the class's logits.
        encoder: Name of the encoder inside the network.
        write_activation: Write G as well, the attention maps before the softmax.
    """

    class_names: tuple[str, ...] | None = None
    stages: tuple[int, ...] | None = ()
    exponent: float = 2.0
    evidence: Evidence = "predicted"
    encoder: str | None = None
    write_activation: bool = False


def export_saliency(
    model: TrainedModel,
    images: Path,
    output: Path,
    settings: Settings | None = None,
    *,
    previous_stage_labels: Path | None = None,
) -> list[Path]:
    """Write the maps of every case: as NIfTI and as one picture ``CASE.png``.

    Args:
        model: Opened model folder.
        images: Folder in nnU-Net's naming.
        output: Folder for the maps, made if need be.
        settings: The choices; defaults if not given.
        previous_stage_labels: Label maps of the previous stage, where the model is the second stage of a cascade.

    Returns:
        The pictures.

    Raises:
        UserError: If anything about model or settings is wrong, or no image can be used; before anything is written.
        PartlyDoneError: If some images could not be used, at the end.
    """
    settings = settings or Settings()
    cases = model.cases(images, previous_stage_labels)
    encoder = find_encoder(model.network, settings.encoder)
    unusable = Unusable()
    usable = _prepared(model, cases, previous_stage_labels, unusable)
    first = next(usable, None)
    if first is None:
        unusable.raise_if_any(len(cases))
    assert first is not None
    shapes = feature_shapes(model.network, encoder, (1, len(first.data), *model.patch_size), model.device)
    request = _request(model, settings, stages=len(shapes))
    writable_folder(output)

    pictures, entries = [], {}
    for prepared in tqdm(chain([first], usable), desc="saliency", unit="case", total=len(cases), disable=None):
        maps = compute_case_maps(model, prepared, encoder, request)
        _write_maps(output, prepared, maps, request, settings)
        pictures.append(_draw(output, prepared, maps, request))
        entries[prepared.name] = _case_entry(maps, request)
    write_json(output / REPORT, _report(model, request, shapes, entries))
    unusable.raise_if_any(len(cases))
    return pictures


def _prepared(
    model: TrainedModel, cases: Sequence[CaseFiles], previous_stage_labels: Path | None, unusable: Unusable
) -> Iterator[PreparedCase]:
    """The cases that can be read."""
    for case in cases:
        with unusable.going_on():
            prepared = model.prepare(case, previous_stage_labels)
            yield prepared


def _request(model: TrainedModel, settings: Settings, stages: int) -> Request:
    """The settings with classes and stages looked up in the model."""
    known = {one.name: one for one in model.foreground_classes()}
    names = tuple(known) if settings.class_names is None else tuple(dict.fromkeys(settings.class_names))
    for name in names:
        if name not in known:
            raise UserError(f"the model knows no class '{name}'; it knows {', '.join(known)}")
    try:
        check_exponent(settings.exponent)
    except ValueError as e:
        raise UserError(str(e)) from e
    numbers = range(1, stages + 1) if settings.stages is None else dict.fromkeys(settings.stages or (stages,))
    for number in numbers:
        if not 1 <= number <= stages:
            raise UserError(f"the encoder has stages 1 to {stages}, not {number}")
    indices = tuple(number - 1 for number in numbers)
    return Request(tuple(known[name] for name in names), indices, settings.exponent, settings.evidence)


def _class_maps(maps: CaseMaps, request: Request) -> dict[tuple[str, str, int], NDArray[np.float32]]:
    """Method, class and stage number to the map."""
    return {
        (method, one.name, stage + 1): each[c, s]
        for method, each in (("Grad-CAM", maps.grad_cam), ("HiResCAM", maps.hires_cam))
        for c, one in enumerate(request.classes)
        for s, stage in enumerate(request.stages)
    }


def _write_maps(output: Path, case: PreparedCase, maps: CaseMaps, request: Request, settings: Settings) -> None:
    named = {f"attention_stage{number}": each for number, each in enumerate(maps.attention, 1)}
    if settings.write_activation:
        named |= {f"activation_stage{number}": each for number, each in enumerate(maps.activation, 1)}
    files = names_apart((one.name for one in request.classes), lambda name: UNFIT.sub("_", name)[:LONGEST])
    for (method, class_name, stage), each in _class_maps(maps, request).items():
        named[f"{method.lower().replace('-', '')}_{files[class_name]}_stage{stage}"] = each
    for name, each in named.items():
        write_map(output / f"{case.name}_{name}{NIFTI}", each, case.properties)


def _draw(output: Path, case: PreparedCase, maps: CaseMaps, request: Request) -> Path:
    spacing = tuple(float(s) for s in case.properties["spacing"])
    axis, index = shown_slice(maps.predicted, spacing)
    rows, columns = (spacing[a] for a in range(3) if a != axis)

    panels = {f"attention, stage {number}": scaled(each) for number, each in enumerate(maps.activation, 1)}
    for (method, class_name, stage), each in _class_maps(maps, request).items():
        panels[f"{method}, {class_name}, stage {stage}"] = each
    path = output / f"{case.name}.png"
    where = "" if case.image.shape[1 + axis] == 1 else f", slice {index} of {case.image.shape[1 + axis]}"
    write_heat_maps(
        path,
        np.take(case.image[0], index, axis),
        np.take(maps.predicted.any(axis=0), index, axis),
        {heading: np.take(each, index, axis) for heading, each in panels.items()},
        title=f"{case.name}{where}",
        aspect=rows / columns,
    )
    return path


def _case_entry(maps: CaseMaps, request: Request) -> dict[str, Any]:
    stages = [stage + 1 for stage in request.stages]
    return {
        one.name: {
            "predicted_voxels": int(maps.predicted[c].sum()),
            "gradient_left_after_mean": {
                f"stage{number}": round(float(share), 4)
                for number, share in zip(stages, maps.share_left[c], strict=True)
            },
        }
        for c, one in enumerate(request.classes)
    }


def _report(
    model: TrainedModel, request: Request, shapes: Sequence[tuple[int, ...]], cases: dict[str, Any]
) -> dict[str, Any]:
    return {
        "model": own_name(model.folder),
        "trainer": model.predictor.trainer_name,
        "folds": list(model.folds),
        "stages": [
            {"stage": number, "channels": shape[0], "size": list(shape[1:])} for number, shape in enumerate(shapes, 1)
        ],
        "patch": list(model.patch_size),
        "exponent": request.exponent,
        "class_maps": {
            "classes": [one.name for one in request.classes],
            "stages": [stage + 1 for stage in request.stages],
            "score": "sum of the class's logits over "
            + ("the voxels predicted as the class" if request.evidence == "predicted" else "the whole image"),
        },
        "cases": cases,
    }
