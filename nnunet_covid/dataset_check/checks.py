"""All checks of one data set, reading every image once: each is a function from what was measured to findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from nnunet_covid.dataset_check.dataset import CheckedCase, CheckedDataset
from nnunet_covid.dataset_check.images import (
    ON_AIR,
    better_orientation,
    common_deviation,
    likely_mirroring,
    near_duplicates,
    share_on_air,
    spread_by_mirroring,
    thumbnail,
    unit,
)
from nnunet_covid.figures.slices import RED, outlined, sheet
from nnunet_covid.files import replacing, some_of, writable_folder, write_json
from nnunet_covid.raw_dataset import Part, Scan
from nnunet_covid.raw_dataset.grey_scale import GreyScale, grey_scale_of, odd_ones

TABLE = "findings.json"
APART = 8
"""Times brighter or darker than most images, so that an image is in another unit."""
OPPOSITE = -0.3
"""Correlation with the mean image below which the grey scale of an image runs the other way round."""
AXIS_NAMES = {2: ("top to bottom", "left to right"), 3: ("head to foot", "front to back", "left to right")}


@dataclass(frozen=True)
class Finding:
    """A sentence for the user, the cases it is about and, where it helps, a picture.

    Attributes:
        check: Short name of the check.
        message: What was found and what to do about it.
        cases: Names of the cases.
        picture: RGB, shape (y, x, 3).
    """

    check: str
    message: str
    cases: tuple[str, ...] = ()
    picture: NDArray[np.uint8] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Measured:
    """What the checks need of one case, so that no image is kept."""

    case: CheckedCase
    thumbnail: NDArray[np.float32]
    direction: tuple[float, ...] | None
    scale: GreyScale
    brightest: float
    values: frozenset[int]
    on_air: float
    spreads: dict[tuple[int, ...], float] | None

    @property
    def is_slice(self) -> bool:
        """Whether it is a picture, not a volume."""
        return len(self.thumbnail) == 1


def run_checks(dataset: CheckedDataset) -> list[Finding]:
    """All findings on one data set."""
    measured = [_measure(case) for case in tqdm(dataset.cases, desc="checking", unit="case", disable=None)]
    slices = [one for one in measured if one.is_slice]
    volumes = [one for one in measured if not one.is_slice]
    usual = max(slices, volumes, key=len)  # what is compared with each other
    return [
        *_splits(dataset),
        *_mixed(slices, volumes),
        *_duplicates(dataset, usual),
        *_label_values(dataset, measured),
        *_labelled(dataset, measured),
        *_on_air(measured),
        *_mirrored(usual),
        *_scales(dataset, measured),
        *_directions(usual),
        *_orientations(usual),
    ]


def _measure(case: CheckedCase) -> Measured:
    scan, label = case.read()
    lesion = _lesion(case, scan, label)
    return Measured(
        case,
        thumbnail(scan.image),
        scan.geometry.direction if scan.geometry else None,
        grey_scale_of(scan.image, is_hu=scan.is_hu),
        float(scan.image.max()),
        frozenset() if label is None else frozenset(np.unique(label).tolist()),
        0.0 if lesion is None else share_on_air(scan, lesion),
        None if lesion is None else spread_by_mirroring(scan.image, lesion),
    )


def _lesion(case: CheckedCase, scan: Scan, label: NDArray[Any] | None) -> NDArray[np.bool_] | None:
    """All foreground, where there is any and the label map has the image's shape; what is ignored is none."""
    if label is None or label.shape != scan.image.shape:
        return None
    lesion = (label > 0) & (label != case.ignore)
    return lesion if lesion.any() else None


def _of(measured: Sequence[Measured], part: Part) -> list[Measured]:
    return [one for one in measured if one.case.part is part]


def write_report(findings: Sequence[Finding], folder: Path) -> None:
    """``findings.json`` and one PNG per finding with a picture, in the place of those of an earlier run."""
    earlier = [folder / TABLE, *folder.glob("[0-9][0-9][0-9]_*.png")]
    if not findings and not any(path.exists() for path in earlier):
        return
    writable_folder(folder)
    for path in earlier:
        path.unlink(missing_ok=True)
    if not findings:
        return
    entries = []
    for index, finding in enumerate(findings, start=1):
        entry: dict[str, Any] = {"check": finding.check, "message": finding.message, "cases": list(finding.cases)}
        if finding.picture is not None:
            entry["picture"] = f"{index:03d}_{finding.check.replace(' ', '_')}.png"
            with replacing(folder / entry["picture"]) as unfinished:
                Image.fromarray(finding.picture).save(unfinished)
        entries.append(entry)
    write_json(folder / TABLE, entries)


def _splits(dataset: CheckedDataset) -> Iterator[Finding]:
    """Compare every fold's sides, and training with test cases, by patient."""

    def source(found: set[str]) -> str:
        return " (patients guessed from the case names)" if found & dataset.guessed_patients else ""

    patients = {case.name: case.patient for case in dataset.cases if case.part is Part.TRAINING}
    for index, fold in enumerate(dataset.splits):
        unknown = sorted((set(fold["train"]) | set(fold["val"])) - set(patients))
        if unknown:
            message = f"fold {index} names {len(unknown)} cases that are not in imagesTr; nnU-Net will stop there"
            yield Finding("splits", message, tuple(unknown))
        on_both = {patients.get(name, name) for name in fold["train"]} & {patients.get(n, n) for n in fold["val"]}
        if on_both:
            message = (
                f"fold {index} trains and validates on {len(on_both)} patients{source(on_both)}: {some_of(on_both)}; "
                "its score will be too good, split by patient"
            )
            cases = tuple(n for side in ("train", "val") for n in fold[side] if patients.get(n, n) in on_both)
            yield Finding("patients", message, cases)
    named = {name for fold in dataset.splits for names in fold.values() for name in names}
    if dataset.splits and (unused := set(patients) - named):
        message = f"no fold names {some_of(unused)}, which would not be used; add them to splits_final.json"
        yield Finding("splits", message, tuple(sorted(unused)))
    test = {case.patient for case in dataset.cases if case.part is Part.TEST}
    if in_both := test & set(patients.values()):
        message = f"{len(in_both)} patients are in imagesTr as well as in imagesTs{source(in_both)}: {some_of(in_both)}"
        cases = tuple(c.name for c in dataset.cases if c.patient in in_both and c.part is not Part.UNLABELLED)
        yield Finding("patients", message, cases)


def _mixed(slices: Sequence[Measured], volumes: Sequence[Measured]) -> Iterator[Finding]:
    """Slices among volumes, or the other way round."""
    if slices and volumes:
        fewer_volumes = len(volumes) <= len(slices)
        odd = volumes if fewer_volumes else slices
        kinds = "volumes, the others slices" if fewer_volumes else "slices, the others volumes"
        names = tuple(one.case.name for one in odd)
        message = f"{len(odd)} of {len(slices) + len(volumes)} images are {kinds}: {some_of(names)}"
        yield Finding("dimensions", f"{message}; make two data sets of them", names)


def _duplicates(dataset: CheckedDataset, measured: Sequence[Measured]) -> Iterator[Finding]:
    training = _of(measured, Part.TRAINING)
    for one, other, similarity in _similar(training, _of(measured, Part.TEST)):
        message = f"training case {one.name} and test case {other.name} are nearly the same ({similarity:.2f})"
        yield Finding("duplicates", message, (one.name, other.name), _side_by_side(one, other))
    for one, other, similarity in _similar(training, training):
        apart = [i for i, fold in enumerate(dataset.splits) if one.name in fold["train"] and other.name in fold["val"]]
        if apart and one.patient != other.patient:
            where = f"{other.name} (validation) of fold {', '.join(map(str, apart))}"
            message = f"{one.name} (training) and {where} are nearly the same ({similarity:.2f})"
            yield Finding("duplicates", message, (one.name, other.name), _side_by_side(one, other))


def _similar(first: Sequence[Measured], second: Sequence[Measured]) -> Iterator[tuple[CheckedCase, CheckedCase, float]]:
    for i, j, similarity in near_duplicates([one.thumbnail for one in first], [one.thumbnail for one in second]):
        if first[i].case.name != second[j].case.name:
            yield first[i].case, second[j].case, similarity


def _side_by_side(*cases: CheckedCase) -> NDArray[np.uint8]:
    """Each picture, or the slice of a volume with most foreground (else its middle), with its mask outlined."""
    tiles = []
    for case in cases:
        scan, label = case.read()
        image, mask = scan.image, _lesion(case, scan, label)
        if image.ndim == 3:
            index = len(image) // 2 if mask is None else int(mask.sum(axis=(1, 2)).argmax())
            image, mask = image[index], None if mask is None else mask[index]
        tiles.append(outlined(image.astype(np.float32), {} if mask is None else {RED: mask}))
    return sheet(tiles, columns=len(tiles))


def _label_values(dataset: CheckedDataset, measured: Sequence[Measured]) -> Iterator[Finding]:
    for one in measured:
        if outside := sorted(one.values - dataset.labels):
            message = f"{one.case.name} holds the label values {outside}, which dataset.json does not name"
            yield Finding("labels", message, (one.case.name,))


def _labelled(dataset: CheckedDataset, measured: Sequence[Measured]) -> Iterator[Finding]:
    """Training images without a label map, label maps without an image, and whether any marks anything."""
    training = _of(measured, Part.TRAINING)
    labelled = [one for one in training if one.case.label is not None]
    if labelled and (without := {one.case.name for one in training if one.case.label is None}):
        message = f"no label map in labelsTr for {some_of(without)}; add them under these names, or take the images out"
        yield Finding("label files", message, tuple(sorted(without)))
    if dataset.unpaired:
        message = f"labelsTr holds {some_of(set(dataset.unpaired))}, which belong to no image in imagesTr; rename them"
        yield Finding("label files", f"{message}, or take them out", dataset.unpaired)
    if labelled and not any(one.values - {0, one.case.ignore} for one in labelled):
        message = f"none of {len(labelled)} label maps marks anything; are they the right files?"
        yield Finding("labels", message, tuple(one.case.name for one in labelled))


def _on_air(measured: Sequence[Measured]) -> Iterator[Finding]:
    for one in measured:
        if one.on_air > ON_AIR:
            message = f"{one.on_air:.0%} of the mask of {one.case.name} lies on air; are image and mask aligned?"
            yield Finding("masks on air", message, (one.case.name,), _side_by_side(one.case))


def _mirrored(measured: Sequence[Measured]) -> Iterator[Finding]:
    with_lesion = [one for one in measured if one.spreads is not None]
    if mirrored := likely_mirroring([one.spreads for one in with_lesion if one.spreads is not None]):
        names = AXIS_NAMES[2 if with_lesion[0].is_slice else 3]
        axes = " and ".join(names[axis] for axis in mirrored)
        message = f"the masks fit their images better when mirrored {axes}; resample masks to images in space"
        worst = max(with_lesion, key=lambda one: one.spreads[()] if one.spreads else 0.0)
        yield Finding("mirrored masks", message, (worst.case.name,), _side_by_side(worst.case))


def _scales(dataset: CheckedDataset, measured: Sequence[Measured]) -> Iterator[Finding]:
    """Images in another unit than the rest, or than the channel's name says, and grey scales the other way round."""
    scales = {one.case.name: one.scale for one in measured}
    if odd := odd_ones(scales):
        yield Finding("grey scale", odd[1], tuple(odd[0]))
    elif dataset.channel == "CT" and measured[0].scale is not GreyScale.HOUNSFIELD:
        message = f"no image holds Hounsfield units, but dataset.json calls their channel {dataset.channel}"
        yield Finding("grey scale", f"{message}; convert them again, or correct it", tuple(scales))
    grey = [one for one in measured if one.scale is not GreyScale.HOUNSFIELD]
    usual = float(np.median([one.brightest for one in grey])) if grey else 0.0
    if apart := [one.case.name for one in grey if not usual / APART <= one.brightest <= usual * APART]:
        message = f"the brightest value is {usual:g} in most images, but less or more than {APART} times apart in"
        yield Finding("grey scale", f"{message} {some_of(apart)}; bring all to one scale", tuple(apart))
    pictures = [unit(one.thumbnail.mean(axis=0)) for one in grey]
    template = unit(np.mean(pictures, axis=0)) if len(pictures) >= 5 else None
    like = [] if template is None else [float((picture * template).sum()) for picture in pictures]
    inverted = [one.case.name for one, likeness in zip(grey, like, strict=False) if likeness < OPPOSITE]
    if inverted:
        message = f"the grey scale runs the other way round than in the rest in {some_of(inverted)}; invert it"
        yield Finding("grey scale", message, tuple(inverted))


def _directions(measured: Sequence[Measured]) -> Iterator[Finding]:
    groups: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for one in measured:
        if one.direction is not None:
            groups[tuple(round(value) + 0.0 for value in one.direction)].append(one.case.name)
    if len(groups) > 1:
        most = max(groups.values(), key=len)
        for direction, names in groups.items():
            if names is not most:
                message = f"images are stored in another direction {direction} than the rest: {some_of(names)}"
                yield Finding("orientation", f"{len(names)} {message}", tuple(names))


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
        owners = {one.case.patient for one in members}
        whose = f"of {len(owners)} patients ({some_of(owners, 3)})"
        message = f"{len(members)} images in {part} {whose} match the training images better when {turn}"
        names = tuple(one.case.name for one in members)
        yield Finding("orientation", message, names, _side_by_side(training[0].case, members[0].case))
