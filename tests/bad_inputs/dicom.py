"""DICOM as it leaves scanners, archives and anonymisers: no one whole series, not to be decoded, or no CT."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import (
    CORONAL,
    SECONDARY_CAPTURE,
    at,
    change,
    ct_slice,
    dicom_object,
    enhanced,
    multi_frame,
    structure_set,
    with_pixels,
    write,
    write_series,
)
from image_files import blob, hounsfield, write_volume
from pydicom.encaps import encapsulate

from bad_inputs.ingredients import Make, spoilt
from bad_inputs.registry import BadInput, Kind

VOLUME = hounsfield((6, 10, 12), 0)
IMAGES = Path("source/images")
CONVERT = "nnunet-covid convert folder source -o raw --workers 1"
LUNGS = "nnunet-covid lung-mask source/images lungs --method threshold"


def good(folder: Path) -> None:
    write_series(folder / IMAGES / "a", VOLUME)
    write_series(folder / IMAGES / "b", VOLUME, series="1.2.33")


def written(ds: Any, place: str) -> Make:
    return lambda folder: write(ds, folder / IMAGES / place)


def changed(place: str, **elements: Any) -> Make:
    def make(folder: Path) -> None:
        for path in sorted((folder / IMAGES).glob(place)):
            change(path, **elements)

    return make


def bytes_of(place: str, new: Callable[[bytes], bytes]) -> Make:
    def make(folder: Path) -> None:
        path = folder / IMAGES / place
        path.write_bytes(new(path.read_bytes() if path.exists() else b""))

    return make


def alone(ds: Any) -> Make:
    """Case a is this one file."""

    def make(folder: Path) -> None:
        shutil.rmtree(folder / IMAGES / "a")
        write(ds, folder / IMAGES / "a/image")

    return make


def scout_in_its_own_folder(folder: Path) -> None:
    for name in "ab":
        scout = ct_slice(VOLUME[0], 0, "1.2.4", ImageOrientationPatient=list(CORONAL), ImageType=["LOCALIZER"])
        write(scout, folder / IMAGES / name / "S1/scout.dcm")


def image_and_mask_in_one_folder(folder: Path) -> None:
    for name in "ab":
        write_volume(folder / f"together/{name}/ct.nii.gz", VOLUME)
        write_volume(folder / f"together/{name}/infection.nii.gz", blob(VOLUME.shape, 0))


def doubled(folder: Path) -> None:
    for number in (2, 3):
        write(ct_slice(VOLUME[number], number), folder / IMAGES / f"a/again{number}.dcm")


def exported_twice(folder: Path) -> None:
    shutil.copytree(folder / IMAGES / "a", folder / IMAGES / "a/copy")


def two_phases(folder: Path) -> None:
    for phase in (1, 2):
        write_series(folder / IMAGES / "a", VOLUME, f"p{phase}_{{}}.dcm", AcquisitionNumber=phase)
    for path in (folder / IMAGES / "a").glob("00*.dcm"):
        path.unlink()


def tilted(folder: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        x, y, z = at(number)
        write(
            ct_slice(pixels, number, ImagePositionPatient=[x, y + number, z]), folder / IMAGES / f"a/{number:03d}.dcm"
        )


def slice_missing(folder: Path) -> None:
    (folder / IMAGES / "a/003.dcm").unlink()


def second_series(folder: Path) -> None:
    write_series(folder / IMAGES / "a", VOLUME, "soft{}.dcm", series="1.2.4")


def series_per_slice(folder: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        write(ct_slice(pixels, number, f"1.2.{50 + number}"), folder / IMAGES / f"a/{number:03d}.dcm")


def modality(name: str) -> Make:
    return changed("a/*.dcm", Modality=name)


def compressed(syntax: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        ds = ct_slice(VOLUME[2], 2)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([content])
        ds["PixelData"].is_undefined_length = True
        write(ds, folder / IMAGES / "a/002.dcm")

    return make


def screenshot(folder: Path) -> None:
    pixels = np.zeros((10, 12, 3), np.uint8).tobytes()
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": pixels}
    write(
        ct_slice(VOLUME[0], 9, SamplesPerPixel=3, PhotometricInterpretation="RGB", **eight), folder / IMAGES / "a/9.dcm"
    )


def dose_report(folder: Path) -> None:
    ds = with_pixels(dicom_object(SECONDARY_CAPTURE, "CT", "1.2.8.1"), VOLUME[0], RescaleSlope=None)
    write(ds, folder / IMAGES / "a/dose.dcm")


def objects_alone(folder: Path) -> None:
    alone(structure_set())(folder)
    write(structure_set("SR"), folder / IMAGES / "a/report")


def loose(folder: Path) -> None:
    for number, name in enumerate("ab"):
        (folder / IMAGES / name / "000.dcm").rename(folder / IMAGES / f"p{number}.dcm")
        shutil.rmtree(folder / IMAGES / name)


def mask_as_dicom(folder: Path) -> None:
    write_volume(folder / "source/masks/b.nii.gz", blob(VOLUME.shape, 0), spacing=(0.8, 0.7, 2.5))
    write(structure_set("SEG"), folder / "source/masks/a/seg.dcm")


def nsclc(folder: Path) -> None:
    write_series(folder / "source/LUNG1-005/series", VOLUME)
    write_volume(folder / "source/masks/LUNG1-005_effusion_first_reviewer.nii.gz", blob(VOLUME.shape, 0))


def nsclc_second_series(folder: Path) -> None:
    write_series(folder / "source/LUNG1-005/series", VOLUME, "thin{}.dcm", series="1.2.4")


def nsclc_damaged(folder: Path) -> None:
    (folder / "source/LUNG1-005/series/002.dcm").write_bytes(b"")


def entry(name: str, kind: Kind, situation: str, spoil: Make, *says: str, command: str = CONVERT) -> BadInput:
    return BadInput(f"dicom_{name}", kind, situation, command, spoilt(good, spoil), says)


def of_nsclc(name: str, kind: Kind, situation: str, spoil: Make, *says: str) -> BadInput:
    command = "nnunet-covid convert nsclc-effusion source -o raw --workers 1"
    return BadInput(f"nsclc_{name}", kind, situation, command, spoilt(nsclc, spoil), says)


SEVERAL = [
    entry(
        "scout_in_its_own_folder",
        Kind.UNUSED,
        "a scout in a folder of its own beside every series",
        scout_in_its_own_folder,
        "images/a: holds 2 images or DICOM series (000.dcm (6 files, CT), S1 (1 file, a scout)); a case's folder must",
        "images/b: holds 2 images",
    ),
    entry(
        "image_and_mask_in_one_folder",
        Kind.UNUSED,
        "image and mask together in one folder per case",
        image_and_mask_in_one_folder,
        "a: holds 2 images or DICOM series (ct.nii.gz, infection.nii.gz); a case's folder must hold one, its masks",
        command="nnunet-covid convert folder together -o raw --workers 1",
    ),
    entry(
        "doubled_slices",
        Kind.UNUSED,
        "some slices were exported twice under other names",
        doubled,
        "images/a: 2 slices lie where another one does: 002.dcm and again2.dcm, 003.dcm and again3.dcm; leave one",
    ),
    entry(
        "exported_twice",
        Kind.UNUSED,
        "the whole series once more in a folder below",
        exported_twice,
        "images/a: 6 slices lie where another one does: 000.dcm and 000.dcm",
        "leave one of each",
    ),
    entry(
        "two_phases",
        Kind.UNUSED,
        "two acquisitions under one series number",
        two_phases,
        "images/a: 6 slices lie where another one does",
        "they differ in AcquisitionNumber (1, 2): leave one of these acquisitions",
    ),
    entry(
        "two_series_in_one_folder",
        Kind.UNUSED,
        "two reconstructions of one patient in one folder",
        second_series,
        "images/a: holds 2 images or DICOM series (000.dcm (6 files, CT), soft0.dcm (6 files, CT))",
    ),
    entry(
        "series_per_slice",
        Kind.UNUSED,
        "an anonymiser gave every slice a series of its own",
        series_per_slice,
        "source/images/a: holds 6 DICOM series",
        "every file names a series of its own: export a volume as one series, or as NIfTI",
        command="nnunet-covid lung-mask source/images lungs --method threshold",
    ),
    entry(
        "dose_report",
        Kind.UNUSED,
        "a dose report as picture, with a series number of its own",
        dose_report,
        "images/a: holds 2 images or DICOM series (000.dcm (6 files, CT), dose.dcm (1 file, a secondary capture))",
    ),
    entry(
        "loose_files",
        Kind.UNUSED,
        "DICOM files directly in images/",
        loose,
        "source/images: holds DICOM files without a folder (p0.dcm, p1.dcm); put them into one folder per case",
    ),
    entry(
        "loose_files_for_lungs",
        Kind.UNUSED,
        "DICOM files of several series directly in the folder for lung-mask",
        loose,
        "source/images: holds DICOM files without a folder (p0.dcm, p1.dcm); put them into one folder per case",
        command=LUNGS,
    ),
    entry(
        "zipped_case",
        Kind.UNUSED,
        "a case that is still packed",
        bytes_of("c.zip", lambda _: b"PK\3\4"),
        "images/c.zip: is packed; unpack it, one folder per case",
    ),
    entry(
        "zipped_case_for_lungs",
        Kind.UNUSED,
        "a case that is still packed",
        bytes_of("c.zip", lambda _: b"PK\3\4"),
        "images/c.zip: is packed; unpack it, one folder per case",
        command=LUNGS,
    ),
    entry(
        "empty_case",
        Kind.UNUSED,
        "the folder of a case is empty",
        lambda folder: (folder / IMAGES / "c").mkdir(),
        "images/c: is empty; add its image, or take the folder out",
    ),
    entry(
        "arrays",
        Kind.UNUSED,
        "a numpy file among the cases",
        bytes_of("c.npy", lambda _: b"\x93NUMPY"),
        "images/c.npy: is none of .nii.gz",
        "convert it, or take it out",
    ),
    entry(
        "objects_alone",
        Kind.UNUSED,
        "a case of a structure set and a report, without slices",
        objects_alone,
        "images/a: holds no image: image is a structure set (RTSTRUCT)",
        "report is a report (SR); add its image",
    ),
    entry(
        "mask_as_segmentation_object",
        Kind.UNUSED,
        "a mask as a DICOM segmentation object",
        mask_as_dicom,
        "masks/a: holds no image: seg.dcm is a segmentation (SEG); export it as NIfTI to use it as a mask",
    ),
    of_nsclc(
        "two_series_of_a_patient",
        Kind.UNUSED,
        "two CT series of one patient",
        nsclc_second_series,
        "2 CT series in a folder named LUNG1-005; there must be one",
    ),
]

VOLUMES = [
    entry(
        "scout_of_the_series",
        Kind.UNUSED,
        "a scout under the series number of the slices",
        written(ct_slice(VOLUME[0], 9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "a/scout.dcm"),
        "images/a/scout.dcm: is a scout (ImageType LOCALIZER); take it out",
    ),
    entry(
        "scout_alone",
        Kind.UNUSED,
        "a case of nothing but its scout",
        alone(ct_slice(VOLUME[0], 9, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
        "images/a/image: is a scout (ImageType LOCALIZER); take it out",
    ),
    entry(
        "reconstruction_of_the_series",
        Kind.UNUSED,
        "a coronal reconstruction under the series number of the slices",
        written(ct_slice(VOLUME[0], 9, ImageOrientationPatient=list(CORONAL)), "a/mpr.dcm"),
        "images/a/mpr.dcm: lies along 1×0×0×0×0×-1, 6 others along 1×0×0×0×1×0; take out what is no slice",
    ),
    entry(
        "slices_of_another_size",
        Kind.UNUSED,
        "slices of another size under the same series number",
        written(ct_slice(VOLUME[0, :8, :9], 9), "a/other.dcm"),
        "images/a/other.dcm: has 9×8 pixels, 6 others have 12×10; take out",
    ),
    entry(
        "slices_of_another_field_of_view",
        Kind.UNUSED,
        "slices of another field of view under the same series number",
        written(ct_slice(VOLUME[0], 9, PixelSpacing=[0.5, 0.5]), "a/other.dcm"),
        "images/a/other.dcm: has a pixel spacing of 0.5×0.5 mm, 6 others of 0.7×0.8; take out",
    ),
    entry(
        "slice_missing",
        Kind.UNUSED,
        "a slice is missing",
        slice_missing,
        "images/a: slices are missing (distances 2.5 to 5 mm), between 002.dcm and 004.dcm; download the whole series",
    ),
    entry(
        "tilted", Kind.UNITS, "the gantry was tilted", tilted, "images/a: the gantry was tilted; resample the series"
    ),
    entry(
        "positron_emission",
        Kind.UNITS,
        "the PET series was exported in place of the CT",
        modality("PT"),
        "images/a/000.dcm: is PT, not CT; take it out, or save it as NIfTI",
    ),
    entry(
        "magnetic_resonance",
        Kind.UNITS,
        "a series of magnetic resonance",
        modality("MR"),
        "images/a/000.dcm: is MR, not CT; take it out, or save it as NIfTI",
        command=LUNGS.replace("images lungs", "images/a lungs.nii.gz"),
    ),
    entry(
        "radiograph",
        Kind.UNITS,
        "a chest radiograph among the series",
        alone(with_pixels(dicom_object("1.2.840.10008.5.1.4.1.1.1", "CR", "1.2.3.1"), VOLUME[0], PixelSpacing=None)),
        "images/a/image: is CR, not CT; take it out",
    ),
    entry(
        "screenshot",
        Kind.DAMAGED,
        "a screenshot in colours under the series number of the slices",
        screenshot,
        "images/a/9.dcm: is in colours (RGB), such as a dose report or a screenshot; take it out",
    ),
    entry(
        "position_of_one_missing",
        Kind.UNITS,
        "a slice without its position",
        changed("a/002.dcm", ImagePositionPatient=None),
        "images/a: 1 slices do not say where they lie (ImagePositionPatient",
        "002.dcm; export the series again",
    ),
    entry(
        "positions_missing",
        Kind.UNITS,
        "slices without positions",
        changed("a/*.dcm", ImagePositionPatient=None),
        "images/a: 6 slices do not say where they lie",
        "000.dcm, 001.dcm, 002.dcm and 3 more; export the series again",
    ),
    entry(
        "pixel_spacing_missing",
        Kind.UNITS,
        "slices without the size of a pixel",
        changed("a/*.dcm", PixelSpacing=None),
        "images/a/000.dcm: does not say how large a pixel is (PixelSpacing); export the series again",
    ),
    entry(
        "pixel_spacing_zero",
        Kind.UNITS,
        "slices with pixels of 0 mm",
        changed("a/*.dcm", PixelSpacing=[0, 0]),
        "images/a/000.dcm: has pixels of 0×0 mm (PixelSpacing); export the series again",
    ),
    entry(
        "scale_of_one_missing",
        Kind.UNITS,
        "a slice without its scale to Hounsfield units",
        changed("a/002.dcm", RescaleIntercept=None),
        "images/a/002.dcm: has not a scale to Hounsfield units, 5 others has",
    ),
    entry(
        "scale_missing",
        Kind.UNITS,
        "slices without a scale to Hounsfield units",
        changed("a/*.dcm", RescaleIntercept=None, RescaleSlope=None),
        "images/a: has no scale to Hounsfield units (RescaleIntercept, RescaleSlope); export it with these",
    ),
]

DAMAGED = [
    entry(
        "slice_cut",
        Kind.DAMAGED,
        "a slice whose end is missing",
        bytes_of("a/002.dcm", lambda content: content[: len(content) - 150]),
        "images/a/002.dcm: is cut short",
        "download or export it again",
    ),
    entry(
        "header_cut",
        Kind.DAMAGED,
        "a slice of which nothing but the beginning of its header is left",
        bytes_of("a/002.dcm", lambda content: content[:200]),
        "images/a/002.dcm: is a damaged DICOM file; download or export it again",
    ),
    entry(
        "pixels_short",
        Kind.DAMAGED,
        "a slice with fewer pixels than its header says",
        changed("a/002.dcm", PixelData=bytes(100)),
        "images/a/002.dcm: is cut short (100 of 240 bytes of its pixels); download or export it again",
    ),
    entry(
        "no_pixels",
        Kind.DAMAGED,
        "a slice of which an anonymiser left the header alone",
        changed("a/002.dcm", PixelData=None),
        "images/a/002.dcm: holds no pixels; download or export it again",
    ),
    entry(
        "empty_slice",
        Kind.DAMAGED,
        "a slice of 0 bytes",
        bytes_of("a/002.dcm", lambda _: b""),
        "images/a/002.dcm: is empty; download or export it again",
    ),
    entry(
        "page_in_place_of_a_slice",
        Kind.DAMAGED,
        "a download that is a page for logging in",
        bytes_of("a/002.dcm", lambda _: b"<!DOCTYPE html><html>please log in</html>"),
        "images/a/002.dcm: is no DICOM file; download or export it again",
    ),
    entry(
        "new_compression",
        Kind.DAMAGED,
        "a slice in a compression that is newer than the decoder",
        compressed("1.2.840.10008.1.2.4.201", b"\xff\x4f\xff\x51" * 20),
        "images/a/002.dcm: is compressed as High-Throughput JPEG 2000",
        "cannot be decoded; export it again, uncompressed",
    ),
    entry(
        "broken_compression",
        Kind.DAMAGED,
        "a compressed slice that is damaged",
        compressed("1.2.840.10008.1.2.5", bytes(64)),
        "images/a/002.dcm: its pixels cannot be decoded (RLE Lossless); export it again, uncompressed",
    ),
    entry(
        "damaged_file_for_lungs",
        Kind.DAMAGED,
        "a single DICOM file that is damaged",
        bytes_of("a/002.dcm", lambda content: content[:200]),
        "images/a/002.dcm: is a damaged DICOM file; download or export it again",
        command="nnunet-covid lung-mask source/images/a/002.dcm lungs.nii.gz",
    ),
    entry(
        "segmentation_for_lungs",
        Kind.UNUSED,
        "a DICOM segmentation object in place of an image",
        written(structure_set("SEG"), "seg.dcm"),
        "images/seg.dcm: is a segmentation (SEG)",
        command="nnunet-covid lung-mask source/images/seg.dcm lungs.nii.gz",
    ),
    of_nsclc(
        "empty_slice",
        Kind.DAMAGED,
        "a slice of 0 bytes",
        nsclc_damaged,
        "LUNG1-005/series/002.dcm: is empty; download or export it again",
    ),
]

FRAMES = [
    entry(
        "frames_missing",
        Kind.UNUSED,
        "a multi-frame file with a gap between its frames",
        alone(enhanced(VOLUME, [at(number) for number in (0, 1, 2, 4, 5, 6)])),
        "images/a/image: slices are missing (distances 2.5 to 5 mm), between frame 3 and frame 4; download",
    ),
    entry(
        "frames_of_two_phases",
        Kind.UNUSED,
        "a multi-frame file of two phases",
        alone(enhanced(VOLUME, [at(number) for number in (0, 1, 2, 0, 1, 2)])),
        "images/a/image: 3 slices lie where another one does: frame 1 and frame 4, frame 2 and frame 5",
        "leave one",
    ),
    entry(
        "frames_of_different_scale",
        Kind.UNITS,
        "a multi-frame file with another scale for every frame",
        alone(enhanced(VOLUME, intercepts=[-1024, -1024, -1000, -1000, 0, 0])),
        "images/a/image: its frames have different scales",
        "export one file per slice",
    ),
    entry(
        "frames_without_distance",
        Kind.UNITS,
        "a multi-frame file that does not say how far its frames lie apart",
        alone(multi_frame(VOLUME, SliceThickness=None)),
        "images/a/image: does not say how far its slices lie apart (SpacingBetweenSlices, SliceThickness); export",
    ),
    entry(
        "frames_beside_slices",
        Kind.UNUSED,
        "a multi-frame file beside the slices of the same series",
        written(multi_frame(VOLUME), "a/all.dcm"),
        "images/a: holds multi-frame files of one series beside others (all.dcm); leave one",
    ),
]

BAD_INPUTS = [*SEVERAL, *VOLUMES, *DAMAGED, *FRAMES]
