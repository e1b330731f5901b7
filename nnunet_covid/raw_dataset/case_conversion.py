"""The work done on one case, in whichever process: read, change as the options say, write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_covid.lung_mask.segment import segment_lungs
from nnunet_covid.raw_dataset.case import SourceCase, sha256_of
from nnunet_covid.raw_dataset.intensity_window import to_8_bit
from nnunet_covid.raw_dataset.lung_crop import crop_around_lungs
from nnunet_covid.raw_dataset.options import Options
from nnunet_covid.raw_dataset.problems import UnusableFile, relative_name
from nnunet_covid.raw_dataset.recipe import Recipe
from nnunet_covid.raw_dataset.scan import Scan
from nnunet_covid.raw_dataset.slice_extraction import extract_slices
from nnunet_covid.raw_dataset.staging import CaseRecord
from nnunet_covid.raw_dataset.writing import write_case


@dataclass(frozen=True)
class CaseConversion:
    """Converts cases one at a time; plain data, so that it travels to worker processes."""

    recipe: Recipe
    options: Options
    source: Path
    folder: Path

    def __call__(self, case: SourceCase) -> CaseRecord | UnusableFile:
        """Convert one case; a file that cannot be used is returned, not raised."""
        try:
            return self._convert(case)
        except UnusableFile as e:
            return e

    def _convert(self, case: SourceCase) -> CaseRecord:
        scan = self._changed(self.recipe.read(case, self.recipe.scheme(self.options)))
        pieces = {case.name: scan}
        if self.options.slices is not None:
            pieces = extract_slices(scan, case.name, self.options.slices)
        outputs = {
            name: write_case(
                self.folder,
                name,
                case.part,
                piece,
                lung_channel=self.options.lung_mask_channel,
                ending=self.recipe.file_ending,
            )
            for name, piece in pieces.items()
        }
        return CaseRecord(
            case=case.name,
            patient=case.group,
            part=case.part.value,
            sources=source_digests(case, self.source),
            outputs=outputs,
            notes=scan.notes,
        )

    def _changed(self, scan: Scan) -> Scan:
        """Lung mask first, while the values are still what the scanner measured; then window and crop."""
        options = self.options
        if options.needs_lungs:
            scan = with_lungs(scan, options)
        if options.window is not None:
            scan = replace(scan, image=to_8_bit(scan.image, *options.window), is_hu=False)
        if options.crop is not None:
            scan = crop_around_lungs(scan, *options.crop)
        return scan


def with_lungs(scan: Scan, options: Options) -> Scan:
    """The scan with a lung mask and a note where it comes from."""
    if scan.lungs is not None:
        return replace(scan, notes={**scan.notes, "lung_mask": "data set"})
    segmented = segment_lungs(
        scan.image,
        is_hu=scan.is_hu,
        spacing=scan.geometry.spacing if scan.geometry else None,
        method=options.lung_method,
        model=options.lung_model,
        weights=options.lung_weights,
    )
    return replace(scan, lungs=segmented.mask, notes={**scan.notes, "lung_mask": segmented.method})


def source_digests(case: SourceCase, source: Path) -> dict[str, dict[str, str]]:
    """Role to relative file name and SHA-256 of a case's source files."""
    return {
        role: {"file": relative_name(path, source), "sha256": sha256_of(path)} for role, path in case.files().items()
    }
