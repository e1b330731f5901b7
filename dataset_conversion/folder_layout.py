"""A user's own images and masks: which files belong together, and what the masks' values mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_covid.dataset_conversion.folder_patients import patients_of
from nnunet_covid.errors import UserError
from nnunet_covid.raw_dataset.case import Part, SourceCase
from nnunet_covid.raw_dataset.dicom_series import series_folders
from nnunet_covid.raw_dataset.pairing import VOLUME_ENDINGS, ending_of, natural_key, padded
from nnunet_covid.raw_dataset.picture import PICTURE_ENDINGS
from nnunet_covid.raw_dataset.picture_pairs import check_sizes
from nnunet_covid.raw_dataset.problems import Problems
from nnunet_covid.raw_dataset.volume_pairs import check_grids

IMAGE_FOLDERS = ("images", "imgs", "Imgs", "image", "imagesTr", "ct")
MASK_FOLDERS = ("masks", "mask", "labels", "labelsTr", "GT", "gt", "segmentations")
LUNG_FOLDERS = ("lungs", "lung_masks", "lung")

IMAGE_SUFFIX = r"(_0000|_ct|_image|_img)$"
MASK_SUFFIX = r"(_mask|_seg|_segmentation|_label|_labels|_gt)$"

ENDINGS = (*VOLUME_ENDINGS, *PICTURE_ENDINGS)


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
        missing_masks_allowed: Images without a mask become unlabelled cases instead of a problem.
        resample_masks: Whether masks may lie on another grid than their image.
    """

    images: Path | None = None
    masks: Path | None = None
    lungs: Path | None = None
    patients: dict[str, str] = field(default_factory=dict)
    patient_pattern: str | None = None
    missing_masks_allowed: bool = False
    resample_masks: bool = False

    def find_cases(self, source: Path, problems: Problems) -> list[SourceCase]:
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
        images = _files_by_stem(image_folder, problems, apart_from=(mask_folder, lung_folder))
        if mask_folder is None:
            images, masks = _parted(images)
        else:
            masks = _files_by_stem(mask_folder, problems)
            if not masks:
                raise UserError(f"{mask_folder} holds no masks; name the right folder with --masks")
        lungs = _files_by_stem(lung_folder, problems) if lung_folder else {}
        images, masks, lungs = _with_common_names(images, masks, lungs, problems)
        if not images:
            state = "is empty" if not any(image_folder.iterdir()) else "holds no image"
            raise UserError(f"{image_folder} {state}; expected {', '.join(ENDINGS)} files or DICOM series")
        names = {stem: _accepted_names(stem, path.relative_to(image_folder)) for stem, path in images.items()}
        patients = patients_of(names, self.patients, self.patient_pattern)
        cases = list(self._cases(images, masks, lungs, patients, problems))
        _check_kinds(cases, source)
        if is_pictures(cases):
            check_sizes(cases, problems)
        elif not self.resample_masks:
            check_grids(cases, problems)
        return cases

    def _cases(
        self,
        images: dict[str, Path],
        masks: dict[str, Path],
        lungs: dict[str, Path],
        patients: dict[str, str],
        problems: Problems,
    ) -> Iterator[SourceCase]:
        for stem, mask in masks.items():
            if stem not in images:
                problems.add(mask, f"is a mask without an image; add the image {stem} or take the mask out")
        for stem, image in images.items():
            part = Part.TRAINING if stem in masks else Part.UNLABELLED if masks else Part.TEST
            if part is Part.UNLABELLED and not self.missing_masks_allowed:
                problems.add(image, "has no mask; add it, or convert with --allow-missing-masks")
            if lungs and stem not in lungs:
                problems.add(image, "has no lung mask; add it or take the image out")
            patient = patients.get(stem, "")
            yield SourceCase(padded(stem), image, masks.get(stem), lungs.get(stem), patient=patient, part=part)


def is_pictures(cases: list[SourceCase]) -> bool:
    """Whether the cases are PNG or JPEG slices."""
    return ending_of(cases[0].image, PICTURE_ENDINGS) is not None and not cases[0].image.is_dir()


def _check_kinds(cases: list[SourceCase], source: Path) -> None:
    if len({is_pictures([case]) for case in cases}) > 1:
        raise UserError(f"{source} holds pictures as well as volumes; convert them as two data sets")


def _chosen(source: Path, given: Path | None, usual: tuple[str, ...]) -> Path | None:
    if given is not None:
        folder = source / given
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder")
        return folder
    return next((source / name for name in usual if (source / name).is_dir()), None)


def _accepted_names(stem: str, path: Path) -> tuple[str, ...]:
    """How a table may name an image whose path starts at the image folder: in full, without ending, by its stem."""
    entry = path.parts[0]
    ending = ending_of(Path(entry), ENDINGS) or ""
    return entry, entry[: len(entry) - len(ending)], stem


def _files_by_stem(folder: Path, problems: Problems, apart_from: tuple[Path | None, ...] = ()) -> dict[str, Path]:
    """Files, folders with one file and DICOM series of a folder, by name without ending."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda p: natural_key(p.name)):
        if path.name.startswith(".") or path in apart_from:
            continue
        ending = ending_of(path, ENDINGS)
        if path.is_dir():
            inside = _images_inside(path)
            if len(inside) > 1:
                problems.add(path, f"holds {len(inside)} images or DICOM series; a case's folder must hold one")
            if len(inside) != 1:
                continue
            stem, path = path.name, inside[0]
        elif ending is not None:
            stem = path.name[: -len(ending)]
        else:
            continue
        if stem in found:
            problems.add(path, f"has the same name as {found[stem].name}; rename one of them")
        found.setdefault(stem, path)
    return found


def _with_common_names(
    images: dict[str, Path], masks: dict[str, Path], lungs: dict[str, Path], problems: Problems
) -> tuple[dict[str, Path], dict[str, Path], dict[str, Path]]:
    """Drop the usual suffixes of names, but only where a name has no partner as it is (``slice_0000`` may be one)."""
    named = _shortened(images, IMAGE_SUFFIX, {*masks, *lungs}, problems)
    return (
        named,
        _shortened(masks, MASK_SUFFIX, set(named), problems),
        _shortened(lungs, MASK_SUFFIX, set(named), problems),
    )


def _shortened(files: dict[str, Path], suffix: str, partners: set[str], problems: Problems) -> dict[str, Path]:
    all_have_it = all(re.search(suffix, stem) for stem in files)
    renamed: dict[str, Path] = {}
    for stem, path in files.items():
        name = stem if stem in partners or not (partners or all_have_it) else re.sub(suffix, "", stem)
        if name in renamed:
            problems.add(path, f"would get the name {name}, as {renamed[name].name} does; rename one of them")
        renamed.setdefault(name, path)
    return renamed


def _images_inside(folder: Path) -> list[Path]:
    """Image files directly in a folder, else the DICOM series at or below it."""
    files = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".") and path.is_file()]
    return [path for path in files if ending_of(path, ENDINGS)] or series_folders(folder)


def _parted(files: dict[str, Path]) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images, and the masks that lie beside them as ``<image>_mask``."""
    masks = {stem: path for stem, path in files.items() if re.search(MASK_SUFFIX, stem)}
    return {stem: path for stem, path in files.items() if stem not in masks}, masks
