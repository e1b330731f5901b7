"""DICOM series that are no one whole CT: slices too many or too few, no place, no unit, another modality."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_files import CORONAL, at, ct_slice, dicom_object, with_pixels, write

from bad_inputs.dicom_ingredients import IMAGES, LUNGS, VOLUME, alone, changed, entry, written
from bad_inputs.ingredients import Make
from bad_inputs.registry import Kind


def tilted(folder: Path) -> None:
    for number, pixels in enumerate(VOLUME):
        x, y, z = at(number)
        write(
            ct_slice(pixels, number, ImagePositionPatient=[x, y + number, z]), folder / IMAGES / f"a/{number:03d}.dcm"
        )


def slice_missing(folder: Path) -> None:
    (folder / IMAGES / "a/003.dcm").unlink()


def modality(name: str) -> Make:
    return changed("a/*.dcm", Modality=name)


def screenshot(folder: Path) -> None:
    pixels = np.zeros((10, 12, 3), np.uint8).tobytes()
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": pixels}
    write(
        ct_slice(VOLUME[0], 9, SamplesPerPixel=3, PhotometricInterpretation="RGB", **eight), folder / IMAGES / "a/9.dcm"
    )


BAD_INPUTS = [
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
        "images/a: slices are missing or unevenly spaced (distances 2.5 to 5 mm), between 002.dcm and 004.dcm",
        "download the whole series",
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
        "inverted",
        Kind.UNITS,
        "slices on an inverted scale",
        changed("a/*.dcm", PhotometricInterpretation="MONOCHROME1"),
        "images/a/000.dcm: is stored inverted (MONOCHROME1)",
        "export it as MONOCHROME2",
    ),
    entry(
        "not_at_right_angles",
        Kind.UNITS,
        "slices whose rows and columns are not at right angles",
        changed("a/*.dcm", ImageOrientationPatient=[1, 0, 0, 0.6, 0.8, 0]),
        "images/a/000.dcm: its rows and columns, along 1×0×0×0.6×0.8×0, are not at right angles",
        "export the series again",
    ),
    entry(
        "no_direction",
        Kind.DAMAGED,
        "a single slice whose direction was set to zeros",
        alone(ct_slice(VOLUME[0], 0, ImageOrientationPatient=[0] * 6)),
        "images/a/image: its rows and columns, along 0×0×0×0×0×0, are not at right angles",
    ),
    entry(
        "position_of_one_missing",
        Kind.UNITS,
        "a slice without its position",
        changed("a/002.dcm", ImagePositionPatient=None),
        "images/a: 1 of 6 slices do not say where they lie (ImagePositionPatient",
        "002.dcm; export the series again",
    ),
    entry(
        "positions_missing",
        Kind.UNITS,
        "slices without positions",
        changed("a/*.dcm", ImagePositionPatient=None),
        "images/a: 6 of 6 slices do not say where they lie",
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
        "images/a/002.dcm: has no scale to Hounsfield units (RescaleIntercept), 5 others have a scale; take out",
    ),
    entry(
        "scale_missing",
        Kind.UNITS,
        "slices without a scale to Hounsfield units",
        changed("a/*.dcm", RescaleIntercept=None, RescaleSlope=None),
        "images/a: has no scale to Hounsfield units (RescaleIntercept, RescaleSlope); export it with these",
    ),
]
