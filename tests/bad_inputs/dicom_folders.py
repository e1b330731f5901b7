"""Folders of DICOM as archives export them: several series in a case, none, or something else beside the cases."""

from __future__ import annotations

import gzip
import shutil
from dataclasses import replace
from pathlib import Path

from dicom_files import (
    CORONAL,
    SECONDARY_CAPTURE,
    ct_slice,
    dicom_object,
    structure_set,
    with_pixels,
    write,
    write_series,
)
from image_files import blob, write_volume

from bad_inputs.dicom_ingredients import IMAGES, LUNGS, VOLUME, alone, bytes_of, entry, of_nsclc
from bad_inputs.registry import Kind


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


def in_two_folders(folder: Path) -> None:
    (folder / IMAGES / "c").mkdir()
    for path in sorted((folder / IMAGES / "a").iterdir())[3:]:
        path.rename(folder / IMAGES / "c" / path.name)


def copied_under_another_name(folder: Path) -> None:
    shutil.copytree(folder / IMAGES / "a", folder / IMAGES / "c")


def second_series(folder: Path) -> None:
    write_series(folder / IMAGES / "a", VOLUME, "soft{}.dcm", series="1.2.4")


def series_per_slice(folder: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        write(ct_slice(pixels, number, f"1.2.{50 + number}"), folder / IMAGES / f"a/{number:03d}.dcm")


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


def packed_slices(folder: Path) -> None:
    for path in sorted((folder / IMAGES / "a").iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def viewer(folder: Path) -> None:
    for name in ("DICOM/A/IM", "VIEWER/START"):
        (folder / "disc" / name).parent.mkdir(parents=True)
    write_series(folder / "disc/DICOM/A", VOLUME, "IM{}")
    write(dicom_object("1.2.840.10008.1.3.10", "", "1.2.5.1"), folder / "disc/DICOMDIR")
    (folder / "disc/VIEWER/START.EXE").write_bytes(b"MZ")


def two_patients_of_a_disc(folder: Path) -> None:
    for number in range(2):
        write_series(folder / f"disc/DICOM/PAT{number}/SER0", VOLUME, "IM{}", series=f"1.2.{number}")


def broken_link(folder: Path) -> None:
    (folder / IMAGES / "a/005.dcm").unlink()
    (folder / IMAGES / "a/005.dcm").symlink_to("../moved/005.dcm")


def mask_as_dicom(folder: Path) -> None:
    write_volume(folder / "source/masks/b.nii.gz", blob(VOLUME.shape, 0), spacing=(0.8, 0.7, 2.5))
    write(structure_set("SEG"), folder / "source/masks/a/seg.dcm")


def written_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def nsclc_second_series(folder: Path) -> None:
    write_series(folder / "source/LUNG1-005/series", VOLUME, "thin{}.dcm", series="1.2.4")


BAD_INPUTS = [
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
    replace(
        entry(
            "series_per_slice",
            Kind.UNUSED,
            "an anonymiser gave every slice a series of its own",
            series_per_slice,
            "source/images/a: holds 6 DICOM series",
            "every file names a series of its own: export a volume as one series, or as NIfTI",
            command="nnunet-covid lung-mask source/images lungs --method threshold",
        ),
        exit_status=1,
        leaves=("lungs/b.nii.gz",),
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
        "images/c.npy: is no image of a kind that is read (NIfTI",
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
    entry(
        "zip_in_the_folder_of_its_case",
        Kind.UNUSED,
        "a series that is still packed, in the folder of its case",
        lambda folder: written_bytes(folder / IMAGES / "c/ct.zip", b"PK\3\4"),
        "images/c/ct.zip: is packed; unpack it, one folder per case",
    ),
    entry(
        "packed_slices",
        Kind.UNUSED,
        "slices packed one by one",
        packed_slices,
        "images/a/000.dcm.gz: is packed; unpack it",
        "images/a/005.dcm.gz: is packed",
    ),
    entry(
        "source_packed_for_lungs",
        Kind.UNUSED,
        "a packed folder in place of the folder",
        lambda folder: written_bytes(folder / "source.zip", b"PK\3\4"),
        "source.zip is no image of a kind that is read (NIfTI",
        "convert it, or unpack it",
        command="nnunet-covid lung-mask source.zip lungs",
    ),
    entry(
        "disc_with_viewer",
        Kind.UNUSED,
        "a whole disc, with the program to look at it",
        viewer,
        "disc/VIEWER: holds no image: START.EXE is no DICOM file; add its image, or take the folder out",
        command="nnunet-covid convert folder disc -o raw",
    ),
    entry(
        "disc_of_two_patients",
        Kind.UNUSED,
        "a disc of two patients",
        two_patients_of_a_disc,
        "disc/DICOM: holds 2 images or DICOM series (PAT0/SER0 (6 files, CT), PAT1/SER0 (6 files, CT))",
        command="nnunet-covid convert folder disc -o raw",
    ),
    entry(
        "series_in_two_folders",
        Kind.UNUSED,
        "a series whose slices lie in two folders of cases",
        in_two_folders,
        "images/c: holds slices of the series in images/a; put them together into one folder",
    ),
    entry(
        "series_in_two_folders_for_lungs",
        Kind.UNUSED,
        "a series whose slices lie in two folders of cases",
        in_two_folders,
        "images/c: holds slices of the series in a; put them together into one folder",
        command=LUNGS,
    ),
    entry(
        "series_copied",
        Kind.UNUSED,
        "a series that was copied as a second case",
        copied_under_another_name,
        "images/c: holds slices that lie in images/a, too; leave one of the two",
    ),
    entry(
        "broken_link_to_a_slice",
        Kind.STALE,
        "a link to a slice that was moved",
        broken_link,
        "images/a/005.dcm: is a link to a file that is not there; download or export it again, or take it out",
    ),
    entry(
        "broken_link_to_a_case",
        Kind.STALE,
        "a link to the folder of a case that was moved",
        lambda folder: (folder / IMAGES / "c").symlink_to("../moved/c"),
        "images/c: is a link to ../moved/c, which is not there; bring it back, or take the link out",
    ),
    of_nsclc(
        "two_series_of_a_patient",
        Kind.UNUSED,
        "two CT series of one patient",
        nsclc_second_series,
        "2 CT series in a folder named LUNG1-005; there must be one",
    ),
]
