"""Running all checks on one data set, reading every image once."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from nnunet_covid.dataset_check.duplicates import near_duplicates
from nnunet_covid.dataset_check.finding import Finding
from nnunet_covid.dataset_check.masks import ON_AIR, likely_mirroring, share_on_air, spread_by_mirroring
from nnunet_covid.dataset_check.orientation import better_orientation, common_deviation
from nnunet_covid.dataset_check.raw_data_set import RawCase, RawDataSet, display_slice
from nnunet_covid.dataset_check.splits_check import check_splits
from nnunet_covid.dataset_check.thumbnails import thumbnail, unit
from nnunet_covid.figures.slices import RED, outlined, sheet
from nnunet_covid.files import some_of, write_text
from nnunet_covid.output_folder import writable_folder
from nnunet_covid.raw_dataset import Part

AXIS_NAMES = {2: ("top to bottom", "left to right"), 3: ("head to foot", "front to back", "left to right")}


@dataclass(frozen=True)
class Measured:
    """What the checks need of one case, so that no image is kept."""

    case: RawCase
    thumbnail: NDArray[np.float32]
    direction: tuple[float, ...] | None
    values: frozenset[int]
    on_air: float
    spreads: dict[tuple[int, ...], float] | None


def run_checks(data_set: RawDataSet) -> list[Finding]:
    """All findings on one data set."""
    measured = [_measure(case) for case in tqdm(data_set.cases, desc="checking", unit="case", disable=None)]
    return [
        *check_splits(data_set),
        *_duplicates(data_set, measured),
        *_label_values(data_set, measured),
        *_masks(measured),
        *_directions(measured),
        *_orientations(measured),
    ]


def _measure(case: RawCase) -> Measured:
    scan, label = case.read()
    foreground = None if label is None or label.shape != scan.image.shape else label > 0
    has_lesion = foreground is not None and bool(foreground.any())
    return Measured(
        case,
        thumbnail(scan.image),
        scan.geometry.direction if scan.geometry else None,
        frozenset() if label is None else frozenset(np.unique(label).tolist()),
        share_on_air(scan, foreground) if foreground is not None else 0.0,
        spread_by_mirroring(scan.image, foreground) if foreground is not None and has_lesion else None,
    )


def _of(measured: Sequence[Measured], part: Part) -> list[Measured]:
    return [one for one in measured if one.case.part is part]


def _duplicates(data_set: RawDataSet, measured: Sequence[Measured]) -> Iterator[Finding]:
    training = _of(measured, Part.TRAINING)
    for one, other, similarity in _similar(training, _of(measured, Part.TEST)):
        message = f"training case {one.name} and test case {other.name} are nearly the same ({similarity:.2f})"
        yield Finding("duplicates", message, (one.name, other.name), _side_by_side(one, other))
    folds = [(set(fold["train"]), set(fold["val"])) for fold in data_set.splits]
    for one, other, similarity in _similar(training, training):
        apart = [i for i, (train, val) in enumerate(folds) if one.name in train and other.name in val]
        if apart and one.patient != other.patient:
            where = f"fold {', '.join(map(str, apart))}"
            message = f"{one.name} (training) and {other.name} (validation) of {where} are nearly the same"
            picture = _side_by_side(one, other)
            yield Finding("duplicates", f"{message} ({similarity:.2f})", (one.name, other.name), picture)


def _similar(first: Sequence[Measured], second: Sequence[Measured]) -> Iterator[tuple[RawCase, RawCase, float]]:
    pairs = near_duplicates([one.thumbnail for one in first], [one.thumbnail for one in second])
    for i, j, similarity in pairs:
        if first[i].case.name != second[j].case.name:
            yield first[i].case, second[j].case, similarity


def _side_by_side(*cases: RawCase) -> NDArray[np.uint8]:
    tiles = []
    for case in cases:
        scan, label = case.read()
        index_label = label if label is not None and label.shape == scan.image.shape else None
        image = display_slice(scan.image, index_label)
        mask = None if index_label is None else display_slice(index_label, index_label) > 0
        tiles.append(outlined(image, {} if mask is None else {RED: mask}))
    return sheet(tiles, columns=len(tiles))


def _label_values(data_set: RawDataSet, measured: Sequence[Measured]) -> Iterator[Finding]:
    allowed: set[int] = set()
    for value in data_set.description["labels"].values():
        allowed |= set(value) if isinstance(value, list) else {value}
    for one in measured:
        if outside := sorted(one.values - allowed):
            message = f"{one.case.name} holds the label values {outside}, which dataset.json does not name"
            yield Finding("labels", message, (one.case.name,))


def _masks(measured: Sequence[Measured]) -> Iterator[Finding]:
    for one in measured:
        if one.on_air > ON_AIR:
            message = f"{one.on_air:.0%} of the mask of {one.case.name} lies on air; are image and mask aligned?"
            yield Finding("masks on air", message, (one.case.name,), _side_by_side(one.case))
    with_lesion = [one for one in measured if one.spreads is not None]
    mirrored = likely_mirroring([one.spreads for one in with_lesion if one.spreads is not None])
    if mirrored:
        names = AXIS_NAMES[with_lesion[0].thumbnail.ndim if len(with_lesion[0].thumbnail) > 1 else 2]
        axes = " and ".join(names[axis] for axis in mirrored)
        message = f"the masks fit their images better when mirrored {axes}; resample masks to images in space"
        worst = max(with_lesion, key=lambda one: one.spreads[()] if one.spreads else 0.0)
        yield Finding("mirrored masks", message, (worst.case.name,), _side_by_side(worst.case))


def _directions(measured: Sequence[Measured]) -> Iterator[Finding]:
    groups: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for one in measured:
        if one.direction is not None:
            groups[tuple(round(value) + 0.0 for value in one.direction)].append(one.case.name)
    if len(groups) > 1:
        most = max(groups.values(), key=len)
        for direction, names in groups.items():
            if names is not most:
                which = f"in another direction {direction} than the rest: {some_of(names)}"
                message = f"{len(names)} images are stored {which}"
                yield Finding("orientation", message, tuple(names))


def _orientations(measured: Sequence[Measured]) -> Iterator[Finding]:
    """Compare with the mean training image; groups are patients with several slices, else whole parts."""
    training = _of(measured, Part.TRAINING)
    if len(training) < 5:
        return
    template = unit(np.mean([one.thumbnail.mean(axis=0) for one in training], axis=0))
    patients: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for one in measured:
        patients[one.case.part.value, one.case.patient].append(one)
    groups: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for (part, patient), members in patients.items():
        groups[(part, patient) if len(members) >= 5 else (part, "")].extend(members)
    turned: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for (part, _), members in groups.items():
        deviations = [better_orientation(unit(one.thumbnail.mean(axis=0)), template) for one in members]
        if (turn := common_deviation(deviations)) and len(members) >= 5:
            turned[part, turn].extend(members)
    for (part, turn), members in turned.items():
        owners = sorted({one.case.patient for one in members})
        whose = f" of {len(owners)} patients ({', '.join(owners[:3])}{', …' if len(owners) > 3 else ''})"
        message = f"{len(members)} images in {part}{whose} match the training images better when {turn}"
        names = tuple(one.case.name for one in members)
        yield Finding("orientation", message, names, _side_by_side(training[0].case, members[0].case))


def write_report(findings: Sequence[Finding], folder: Path) -> None:
    """``findings.json`` and one PNG per finding with a picture."""
    writable_folder(folder)
    entries: list[dict[str, Any]] = []
    for index, finding in enumerate(findings, start=1):
        entry = finding.to_json()
        if finding.picture is not None:
            entry["picture"] = f"{index:03d}_{finding.check.replace(' ', '_')}.png"
            Image.fromarray(finding.picture).save(folder / entry["picture"])
        entries.append(entry)
    write_text(folder / "findings.json", json.dumps(entries, indent=2) + "\n")
