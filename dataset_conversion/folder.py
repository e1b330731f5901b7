"""A user's own folder of images, with or without masks, as an nnU-Net raw data set.

Which files belong together, which patient each image shows, and what the values of the masks mean.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_covid import raw_dataset as raw
from nnunet_covid.errors import UserError
from nnunet_covid.files import some_of
from nnunet_covid.label_maps import MOST_CLASSES, distinct_values, listed_values

INFO = raw.DatasetInfo(
    number=599,
    name="Folder",
    command=raw.OWN_IMAGES,
    title="your own images, with or without masks",
    paper="unpublished",
    url="your own folder",
    licence="yours",
    expected_files=(
        "images/ and masks/ with equal file names, or <name>.* and <name>_mask.* side by side",
        "NIfTI, NRRD, MetaImage, PNG, JPEG; a DICOM series as one folder per case",
    ),
)

IMAGE_FOLDERS = ("images", "imgs", "Imgs", "image", "imagesTr", "ct")
MASK_FOLDERS = ("masks", "mask", "labels", "labelsTr", "GT", "gt", "segmentations")
LUNG_FOLDERS = ("lungs", "lung_masks", "lung")


@dataclass(frozen=True)
class FolderLayout:
    """Where the files lie, relative to the source; folders that are not given are recognised by name.

    Masks lie in a folder of their own under the name of their image, or beside it as ``<image>_mask.*``.

    Attributes:
        images: Folder of the images.
        masks: Folder of the masks.
        lungs: Folder of lung masks.
        patients: File name, with or without ending, to patient; a DICOM series goes by its case's folder.
        patient_pattern: Regular expression on the case name; its first group (or all of it) is the patient.
            Where both are given, it stands in for the lines that the table lacks.
        allow_missing_masks: Images without a mask become unlabelled cases instead of a problem.
        resample_masks: Whether masks may lie on another grid than their image.
    """

    images: Path | None = None
    masks: Path | None = None
    lungs: Path | None = None
    patients: dict[str, str] = field(default_factory=dict)
    patient_pattern: str | None = None
    allow_missing_masks: bool = False
    resample_masks: bool = False

    def find_cases(self, source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
        """Pair the files below the source.

        Raises:
            UserError: If the source is no folder or holds no image, or images are left without a patient though a
                table or a pattern is given.
        """
        if not source.is_dir():
            raise UserError(f"{source} is not a folder; give the folder that holds your images")
        image_folder = _chosen(source, self.images, IMAGE_FOLDERS) or source
        mask_folder = _chosen(source, self.masks, MASK_FOLDERS)
        lung_folder = _chosen(source, self.lungs, LUNG_FOLDERS)
        chosen = (image_folder, mask_folder, lung_folder)
        if image_folder == source and raw.is_one_series(source, problems):
            images = {source.resolve().name: source}
        else:
            images = _files_by_stem(image_folder, problems, apart_from=chosen)
        for entry in raw.visible(source) if image_folder != source else ():
            if entry not in chosen:
                problems.leave_out(entry, "beside the folder of images, not in it")
        if mask_folder is None:
            beside = raw.masks_among(images)
            masks = {stem: path for stem, path in images.items() if stem in beside}
            images = {stem: path for stem, path in images.items() if stem not in beside}
        else:
            masks = _files_by_stem(mask_folder, problems)
            if not masks:
                problems.raise_if_any()
                raise UserError(f"{mask_folder} holds no masks; name the right folder", about="masks")
        lungs = _files_by_stem(lung_folder, problems) if lung_folder else {}
        if not images:
            problems.raise_if_any()
            state = "is empty" if not any(image_folder.iterdir()) else "holds no image"
            if masks and mask_folder is None:
                state = f"holds no image, since {some_of(path.name for path in masks.values())} are named as masks are"
            raise UserError(f"{image_folder} {state}; expected {', '.join(raw.IMAGE_ENDINGS)} files or DICOM series")
        images, masks, lungs = _by_case(images, masks, lungs, problems)
        entries = {stem: Path((*path.relative_to(image_folder).parts, stem)[0]) for stem, path in images.items()}
        names = {stem: (raw.composed(entry.name), raw.stem_of(entry), stem) for stem, entry in entries.items()}
        patients = patients_of(names, self.patients, self.patient_pattern)
        cases = list(self._cases(images, masks, lungs, patients, problems))
        _refuse_slices_among_volumes(cases, source, problems)
        if not self.resample_masks or raw.is_picture(cases[0].image):
            raw.check_headers(cases, problems)
        return cases

    def _cases(
        self,
        images: dict[str, Path],
        masks: dict[str, Path],
        lungs: dict[str, Path],
        patients: dict[str, str],
        problems: raw.Problems,
    ) -> Iterator[raw.SourceCase]:
        for stem, mask in masks.items():
            if stem not in images:
                problems.add(mask, f"is a mask without an image; add the image {stem} or take the mask out")
        for stem, image in images.items():
            part = raw.Part.TRAINING if stem in masks else raw.Part.UNLABELLED if masks else raw.Part.TEST
            if part is raw.Part.UNLABELLED and not self.allow_missing_masks:
                problems.add(image, "has no mask; add it, or allow missing masks", about="allow_missing_masks")
            if lungs and stem not in lungs:
                problems.add(image, "has no lung mask; add it or take the image out")
            patient = patients.get(stem, "")
            yield raw.SourceCase(raw.padded(stem), image, masks.get(stem), lungs.get(stem), patient=patient, part=part)


def _refuse_slices_among_volumes(cases: Sequence[raw.SourceCase], source: Path, problems: raw.Problems) -> None:
    flat: list[str] = []
    pictures = [case.image.name for case in cases if raw.is_picture(case.image)]
    for image in () if pictures else (case.image for case in cases if case.image.is_file()):
        with problems.collecting():
            flat += [image.name] if len(raw.read_header(image).GetSize()) == 2 else []
    for kind, names in (("pictures", pictures), ("slices of two axes", flat)):
        if 0 < len(names) < len(cases):
            problems.raise_if_any()
            remedy = "convert them as two data sets, or take out what is no case"
            raise UserError(f"{source} holds {kind} as well as volumes ({some_of(names, 3)}); {remedy}")


def _chosen(source: Path, given: Path | None, usual: tuple[str, ...]) -> Path | None:
    if given is not None:
        folder = source / given
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        return folder
    return next((source / name for name in usual if (source / name).is_dir()), None)


def _files_by_stem(folder: Path, problems: raw.Problems, apart_from: tuple[Path | None, ...] = ()) -> dict[str, Path]:
    """By name without ending: image files, and the one image file or DICOM series at or below a folder."""
    found: dict[str, Path] = {}
    for entry, inside in raw.images_by_entry(folder, problems, apart_from).items():
        if len(inside) > 1:
            listed = raw.described(inside, entry)
            remedy = "a case's folder must hold one, its masks lie elsewhere under the same name"
            problems.add(entry, f"holds {len(inside)} images or DICOM series ({listed}); {remedy}")
        else:
            stem = raw.stem_of(entry)  # some programs unpack a.nii.gz to a folder of this name
            if stem in found:
                problems.add(inside[0], f"has the same name as {found[stem].name}; rename one of them")
            found.setdefault(stem, inside[0])
    return found


def _by_case(
    images: dict[str, Path], masks: dict[str, Path], lungs: dict[str, Path], problems: raw.Problems
) -> tuple[dict[str, Path], dict[str, Path], dict[str, Path]]:
    """Images, masks and lung masks by the name of the case, or by their own where they belong to no image."""
    of_masks, of_lungs = raw.pairing(images, masks), raw.pairing(images, lungs, raw.LUNG_WORDS)
    names = raw.case_stems(images, (of_masks, of_lungs))
    renamed: tuple[dict[str, Path], dict[str, Path], dict[str, Path]] = {}, {}, {}
    image_of = ({image: image for image in images}, of_masks.image_of, of_lungs.image_of)
    for files, to_image, into in zip((images, masks, lungs), image_of, renamed, strict=True):
        for stem, path in files.items():
            name = names[to_image[stem]] if stem in to_image else stem
            if name in into:
                problems.add(path, f"would get the name {name}, as {into[name].name} does; rename one of them")
            into.setdefault(name, path)
    return renamed


def patients_of(names: Mapping[str, tuple[str, ...]], table: Mapping[str, str], pattern: str | None) -> dict[str, str]:
    """Image to patient; empty where neither a table nor a pattern is given.

    Args:
        names: Image to the names that the table may give it, the file's own first.
        table: Name to patient.
        pattern: Regular expression on the case names, for the images that the table lacks.

    Raises:
        UserError: If a line of the table names no image, or an image is left without a patient.
    """
    found = _from_table(table, names)
    missing = [image for image in names if image not in found]
    if pattern is not None:
        return found | _from_case_names(pattern, missing)
    if table and missing:
        files = some_of(names[image][0] for image in missing)
        raise UserError(f"the table of patients lacks the images {files}; add a line for each", about="patients")
    return found


def _from_table(table: Mapping[str, str], names: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    image_of = {name: image for image, accepted in names.items() for name in accepted}
    found: dict[str, str] = {}
    if unknown := set(table) - set(image_of):
        files = some_of(accepted[0] for accepted in names.values())
        message = f"the table of patients names no images: {some_of(unknown)}; correct these lines, known are {files}"
        raise UserError(message, about="patients")
    for name, patient in table.items():
        image = image_of[name]
        if found.setdefault(image, patient) != patient:
            message = f"the table of patients says {found[image]} and {patient} for {image}; keep one line"
            raise UserError(message, about="patients")
    return found


def _from_case_names(pattern: str, images: Iterable[str]) -> dict[str, str]:
    """By the pattern's first group, or all that it matches."""
    matches = {image: re.search(pattern, raw.padded(image)) for image in images}
    found = {image: (match[min(1, match.re.groups)] or "") if match else "" for image, match in matches.items()}
    if missing := [raw.padded(image) for image, patient in found.items() if not patient]:
        message = f"the pattern {pattern!r} finds no patient in {some_of(missing)}; it must in every case"
        raise UserError(message, about="patient_pattern")
    return found


TEMPLATE = raw.Recipe(INFO, FolderLayout().find_cases, raw.read_volume_pair, schemes={}, check_headers=False)
"""What the command line offers before the folder has been looked at."""


def convert_folder(
    source: Path,
    *,
    layout: FolderLayout | None = None,
    name: str = INFO.name,
    labels: Mapping[str, int] | None = None,
    **arguments: Any,
) -> Path:
    """Convert a folder; for the other arguments see ``convert_dataset``.

    Args:
        source: The folder.
        layout: Where its files lie.
        name: Name of the data set.
        labels: Class name to value in the masks; recognised where the masks have a single value beside 0.

    Raises:
        UserError: If anything in the folder cannot be used.
    """
    info = replace(INFO, name=name)
    where = {key: arguments[key] for key in ("options", "number", "output") if key in arguments}
    raw.checked_destination(replace(TEMPLATE, info=info), **where)
    problems = raw.Problems(source)
    layout = layout or FolderLayout()
    cases = layout.find_cases(source, problems)
    problems.raise_if_any()
    note = None
    if not (layout.patients or layout.patient_pattern):
        cases, note = _with_patients_of_headers(cases)
    scheme = _scheme(labels) if labels else _recognised_scheme(cases, source)

    def found(_: Path, of_conversion: raw.Problems) -> list[raw.SourceCase]:
        of_conversion.left_out += problems.left_out
        return cases

    schemes = {"own": scheme}
    if raw.is_picture(cases[0].image):
        recipe = raw.picture_recipe(info, found, schemes)
    else:
        read = partial(raw.read_volume_pair, is_hu=None, resample=layout.resample_masks)
        recipe = raw.Recipe(info, found, read, schemes, channel=None)
    folder = raw.convert_dataset(replace(recipe, check_headers=False), source, **arguments)
    tell = arguments.get("tell", print)
    if note:
        tell(f"note: {note}")
    if guessed := raw.guessed_patients(case.name for case in cases if not case.patient):
        tell(
            f"note: {some_of(guessed)} are named like several images of a patient, yet each counts as a patient of its "
            "own; give a table of patients, or a patient pattern such as '^(.+)[_-]'"
        )
    return folder


def _with_patients_of_headers(cases: Sequence[raw.SourceCase]) -> tuple[list[raw.SourceCase], str | None]:
    """The cases, each with the first case of its patient as its patient where DICOM headers tell, and a note on it."""
    first = raw.patients_in_headers({case.name: case.image for case in cases})
    patients = set(first.values())
    if len(patients) == 1 and len(first) == len(cases) > 1:
        said = "all series have the same PatientID, as anonymised ones may, so that it tells no patient; where they are"
        return list(cases), f"{said} of several visits, give a table of patients"
    told = f"by their PatientID {len(first)} series are of {len(patients)} patients, each named by its first case"
    found = [replace(case, patient=first.get(case.name, "")) for case in cases]
    return found, told if len(patients) < len(first) else None


def _scheme(labels: Mapping[str, int]) -> raw.ClassScheme:
    """Classes in the order given; ``ignore`` comes last, where nnU-Net wants it."""
    if len({0, *labels.values()}) != len(labels) + 1:
        raise UserError("every class needs a value of its own, other than 0, which is background", about="label")
    if "background" in labels:
        raise UserError("background is always the value 0; give this class another name", about="label")
    if set(labels) == {"ignore"}:
        raise UserError("ignore is no class, it marks what is not labelled; name a class as well", about="label")
    names = sorted(labels, key=lambda name: name == "ignore")
    return raw.ClassScheme(
        values={0: 0, **{labels[name]: index for index, name in enumerate(names, start=1)}},
        labels={"background": 0, **{name: index for index, name in enumerate(names, start=1)}},
    )


def _recognised_scheme(cases: Sequence[raw.SourceCase], source: Path) -> raw.ClassScheme:
    """One class, named ``infection``, where the masks hold a single value beside 0.

    Masks that cannot be read are passed over: the conversion names them, together with the images.
    """
    files_of: dict[int, list[str]] = defaultdict(list)
    for mask in (case.mask for case in cases if case.mask is not None):
        with suppress(raw.UnusableFile):
            values = raw.read_grey(mask) if raw.is_picture(mask) else raw.read_voxels(mask, is_mask=True)
            for value in set(distinct_values(raw.whole_labels(values, mask))) - {0}:
                files_of[value].append(mask.name)
    if len(files_of) > 1:
        raise UserError(_unnamed_values(files_of, source), about="label")
    return _scheme({"infection": min(files_of, default=1)})


def _unnamed_values(files_of: Mapping[int, Sequence[str]], source: Path) -> str:
    """That the masks hold several values, and what to do; from values and the files that hold them."""
    values = sorted(files_of)
    message = f"the masks of {source} hold the values {listed_values(values)}"
    if lossy := sorted({name for names in files_of.values() for name in names if raw.is_lossy(Path(name))}):
        return f"{message}; JPEG changes values: export {some_of(lossy, 3)} as PNG, or name each class NAME=VALUE"
    if len(values) > MOST_CLASSES:
        return f"{message}, as images do; put the masks into masks, or name the folder that holds them"
    if len({tuple(names) for names in files_of.values()}) > 1:
        message += " (" + "; ".join(f"{value} in {some_of(files_of[value], 2)}" for value in values) + ")"
    unlabelled = "; where -1 marks what is not labelled, ignore=-1" if -1 in values else ""
    return f"{message}; name each class NAME=VALUE{unlabelled}"
