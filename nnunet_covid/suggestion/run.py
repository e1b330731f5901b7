"""A folder of unlabelled images to a list of those to label next, with a contact sheet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_covid.csv_files import write_csv
from nnunet_covid.errors import Unusable, UserError
from nnunet_covid.figures.suggestions import Thumbnail, write_suggestions
from nnunet_covid.files import environment_folder, some_of, writable_folder
from nnunet_covid.nnunet.cases import CaseFiles, list_cases
from nnunet_covid.nnunet.known_images import checksums, known_among, own_images
from nnunet_covid.nnunet.predictor import TrainedModel
from nnunet_covid.prediction.conveyor import Limits, Steps, convey
from nnunet_covid.prediction.folder import together_or_alone
from nnunet_covid.prediction.memory import bytes_of
from nnunet_covid.raw_dataset.patients import guessed_patients, recorded_patients
from nnunet_covid.suggestion.disagreement import PARTS
from nnunet_covid.suggestion.look import Look, Observer, Sight, pictured
from nnunet_covid.suggestion.spread import Labelled, spread_out

TABLE, SHEET = "suggestions.csv", "suggestions.png"
COLUMNS = ("rank", "image", "patient", "score", *PARTS, "distance")
IMAGES_TOGETHER = 16
"""Slices between two changes of a network's weights."""
COST = 4
"""Memory that the comparison of an image takes, by that which its prediction takes."""


@dataclass(frozen=True)
class Request:
    """What to choose from.

    Attributes:
        images: Folder in nnU-Net's naming.
        number: Of images to choose.
        output: Folder for the table and the sheet.
        leave_out: Folders of images that are labelled already, known by their content; they count as chosen.
        mirroring: Whether the predictions of mirrored images are compared too.
        random: Draw without looking, instead.
        seed: Of the draw.
    """

    images: Path
    number: int
    output: Path
    leave_out: tuple[Path, ...] = ()
    mirroring: bool = True
    random: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Suggestion:
    """One image to label; without a look where it was drawn."""

    image: str
    patient: str
    look: Look | None = None
    distance: float | None = None


def suggest(model: TrainedModel, request: Request, tell: Callable[[str], None] = print) -> list[Suggestion]:
    """Choose images and write ``suggestions.csv`` and ``suggestions.png``.

    Args:
        model: Opened without mirroring.
        request: What to choose from.
        tell: Receives each line for the person.

    Returns:
        The images, the first to label first.

    Raises:
        UserError: If the model or the images do not fit, or there are fewer images than asked for.
        PartlyDoneError: If some images could not be used, at the end.
    """
    if request.number < 1:
        raise UserError(f"{request.number} images are none to choose; ask for at least 1")
    if model.previous_stage is not None:
        raise UserError(f"{model.folder} is the second stage of a cascade; use its full-resolution or 2d model")
    unusable = Unusable()
    candidates, labelled = _candidates(model, request, unusable, tell)
    images = len(candidates) + len(unusable.reasons)
    _require_enough(request, len(candidates), unusable, images)
    patients = _patients([*candidates, *labelled])
    observer = None if request.random else Observer(model, mirroring=request.mirroring)
    writable_folder(request.output)
    if observer is None:
        drawn = _drawn(model, request, candidates, unusable)
        _require_enough(request, len(drawn), unusable, images)
        chosen, pictures = [Suggestion(case.name, patients[case]) for case in drawn], list(drawn.values())
    else:
        tell(observer.described())
        features = _features_of(observer, labelled, tell)
        looks = _looks(observer, candidates, unusable)
        _require_enough(request, len(looks), unusable, images)
        known = Labelled([patients[case] for case in labelled], features)
        chosen = _compared(observer, request, looks, known, patients, tell)
        pictures = [one.look.thumbnail for one in chosen if one.look is not None]
    write_csv(request.output / TABLE, COLUMNS, (_row(rank, one) for rank, one in enumerate(chosen, 1)))
    how = "by disagreement and distance; right: where the predictions disagree"
    how = f"drawn at random, seed {request.seed}" if request.random else how
    headings = [
        f"{rank}. {one.image}" + (f", {one.look.score:.4f}" if one.look else "") for rank, one in enumerate(chosen, 1)
    ]
    tiles = list(zip(headings, pictures, strict=True))
    write_suggestions(request.output / SHEET, tiles, title=f"Images to label next, {how}")
    unusable.raise_if_any(images)
    return chosen


def _require_enough(request: Request, usable: int, unusable: Unusable, images: int) -> None:
    """At least as many images can be used as are asked for."""
    if request.number > usable:
        left = f"{usable} of {images} can be used" if unusable.reasons else f"{usable} are there"
        told = f"{request.images}: {request.number} images are asked for, {left}"
        raise UserError("\n  ".join([told, *unusable.reasons]))


def _candidates(
    model: TrainedModel, request: Request, unusable: Unusable, tell: Callable[[str], None]
) -> tuple[list[CaseFiles], list[CaseFiles]]:
    """The images that nobody has labelled as far as is known, and those that are labelled."""
    plans, description = model.predictor.plans_manager, model.dataset_json

    def voxels(cases: Sequence[CaseFiles], shown: str, unusable: Unusable | None = None) -> dict[str, str]:
        return {name: one.voxels for name, one in checksums(cases, plans, description, shown, unusable).items()}

    cases = model.cases(request.images)
    raw = environment_folder("nnUNet_raw")
    places = own_images(raw / plans.dataset_name if raw is not None else None, description)
    if not places:
        tell("nnUNet_raw does not hold the model's data set: its labelled images may be among the suggestions")
    labelled: list[CaseFiles] = []
    seen: dict[str, str] = {}
    places |= {place: list_cases(place, model.ending, model.channels) for place in request.leave_out}
    for place, found in places.items():
        digests = voxels(found, place.name)
        for case in found:
            digest = digests[case.name]
            if digest not in seen and place.name != "imagesTs":  # test images stay unseen
                labelled.append(case)
            seen.setdefault(digest, f"{place.name}/{case.name}")
    own = voxels(cases, "unlabelled images", unusable)
    known = known_among(own, seen)
    if known:
        pairs = some_of(f"{case} = {other}" for case, other in known.items())
        tell(f"{len(known)} image(s) are left out because they are known already ({pairs})")
    return [case for case in cases if case.name in own and case.name not in known], labelled


def _patients(cases: Sequence[CaseFiles]) -> dict[CaseFiles, str]:
    """Whose each image is: as recorded beside its own folder, else as all names tell, else a patient of its own."""
    guessed = guessed_patients(case.name for case in cases)
    places = {case.files[0].parent for case in cases}
    known = {place: {**guessed, **recorded_patients(place.resolve().parent)} for place in places}
    return {case: known[case.files[0].parent].get(case.name) or case.name for case in cases}


def _drawn(
    model: TrainedModel, request: Request, candidates: Sequence[CaseFiles], unusable: Unusable
) -> dict[CaseFiles, Thumbnail]:
    """As many images as are asked for, in the order of a draw; one that cannot be read makes room for the next."""
    drawn: dict[CaseFiles, Thumbnail] = {}
    for index in np.random.default_rng(request.seed).permutation(len(candidates)):
        if len(drawn) < request.number:
            with unusable.going_on():
                drawn[candidates[index]] = pictured(*model.read(candidates[index]))
    return drawn


def _compared(
    observer: Observer,
    request: Request,
    looks: dict[CaseFiles, Look],
    known: Labelled,
    patients: dict[CaseFiles, str],
    tell: Callable[[str], None],
) -> list[Suggestion]:
    cases, features = list(looks), None
    if observer.has_encoder:
        features = np.stack([np.asarray(looks[case].features) for case in cases])
    else:
        tell("the network has no part named encoder: images are spread over patients, not over looks")
    scores = [looks[case].score for case in cases]
    choices = spread_out(scores, [patients[case] for case in cases], features, request.number, known)
    named = ((cases[one.index], one.distance) for one in choices)
    return [Suggestion(case.name, patients[case], looks[case], distance) for case, distance in named]


def _looks(observer: Observer, candidates: Sequence[CaseFiles], unusable: Unusable) -> dict[CaseFiles, Look]:
    """Every image that can be predicted, in the order of their names."""
    model, looks = observer.model, dict[CaseFiles, Look]()

    def keep(case: CaseFiles, sight: Sight) -> None:
        looks[case] = observer.look(sight)

    slices = len(model.patch_size) == 2 and model.device.type != "cpu"
    limits = Limits(at_once=IMAGES_TOGETHER if slices else 1)
    steps = Steps(
        model.prepare,
        lambda cases: together_or_alone(observer.observe, cases),
        keep,
        lambda case: COST * bytes_of(model, case),
    )
    bar = tqdm(convey(candidates, steps, limits), desc="compare", unit="image", total=len(candidates), disable=None)
    for _, error in bar:
        if error is not None:
            with unusable.going_on():
                raise error
    return {case: looks[case] for case in candidates if case in looks}


def _features_of(observer: Observer, labelled: Sequence[CaseFiles], tell: Callable[[str], None]) -> np.ndarray:
    """Of the labelled images that can be predicted; the others are told. Empty without an encoder."""
    bar = tqdm(labelled, desc="labelled images", unit="image", leave=False, disable=None if labelled else True)
    rows, left_out = [], Unusable()
    for case in bar:
        with left_out.going_on():
            prepared = observer.model.prepare(case)
            found = together_or_alone(lambda some: [observer.features(one) for one in some], [prepared])
            if isinstance(found[0], UserError):
                raise found[0]
            rows += [] if found[0] is None else [found[0]]
        if not observer.has_encoder:
            break
    if left_out.reasons:
        told = some_of(left_out.reasons)
        tell(f"{len(left_out.reasons)} labelled image(s) cannot be predicted, suggestions may look like them ({told})")
    return np.stack(rows) if rows else np.empty((0, 0))


def _row(rank: int, one: Suggestion) -> list[object]:
    numbers: list[float | None] = [None] * (len(PARTS) + 1)
    if one.look is not None:
        numbers = [one.look.score, *(one.look.parts[part] for part in PARTS)]
    cells = ["" if number is None else f"{number:.6g}" for number in [*numbers, one.distance]]
    return [rank, one.image, one.patient, *cells]
