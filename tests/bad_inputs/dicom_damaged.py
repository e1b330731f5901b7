"""DICOM files that are damaged or cannot be decoded, and multi-frame files."""

from __future__ import annotations

from pathlib import Path

from dicom_files import at, ct_slice, enhanced, multi_frame, structure_set, write
from pydicom.encaps import encapsulate

from bad_inputs.dicom_ingredients import IMAGES, VOLUME, alone, bytes_of, changed, entry, of_nsclc, written
from bad_inputs.ingredients import Make
from bad_inputs.registry import Kind


def compressed(syntax: str, content: bytes) -> Make:
    def make(folder: Path) -> None:
        ds = ct_slice(VOLUME[2], 2)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([content])
        ds["PixelData"].is_undefined_length = True
        write(ds, folder / IMAGES / "a/002.dcm")

    return make


def nsclc_damaged(folder: Path) -> None:
    (folder / "source/LUNG1-005/series/002.dcm").write_bytes(b"")


BAD_INPUTS = [
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
    entry(
        "under_the_name_of_a_picture",
        Kind.DAMAGED,
        "a DICOM file under the name of a picture",
        written(ct_slice(VOLUME[0], 0), "a.png"),
        "images/a.png: is DICOM under the name of a picture; name it .dcm in a folder per case",
        command="nnunet-covid lung-mask source/images/a.png lungs.png",
    ),
    entry(
        "frames_missing",
        Kind.UNUSED,
        "a multi-frame file with a gap between its frames",
        alone(enhanced(VOLUME, [at(number) for number in (0, 1, 2, 4, 5, 6)])),
        "images/a/image: slices are missing or unevenly spaced (distances 2.5 to 5 mm), between frame 3 and frame 4",
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
