"""COVID-19 CT Segmentation by MedSeg: nine volumes with lung masks, 630 × 630 in plane.

The papers use them as slices cropped to the lungs: ``--crop 512 512 --slices all --window -1250 250``. Of the
829 slices Inf-Net reports on 638, SSA-Net on the 370 with lesions (``--slices lesion``); which 638 is not
published.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.dataset_conversion.Dataset503_MedSeg100 import INFO as SLICES
from nnunet_covid.dataset_conversion.Dataset503_MedSeg100 import MEDSEG_SCHEMES

INFO = replace(
    SLICES,
    number=504,
    name="MedSeg9",
    command="medseg-9",
    title="COVID-19 CT Segmentation data set, nine volumes",
    expected_files=("rp_im/*.nii.gz", "rp_msk/*.nii.gz", "rp_lung_msk/*.nii.gz (optional)"),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Volumes, masks and lung masks paired by their number."""
    root = raw.find_root(source, "rp_im", INFO.expected_files)
    lungs = root / "rp_lung_msk" if (root / "rp_lung_msk").is_dir() else None
    found = raw.pairs(root / "rp_im", root / "rp_msk", problems, lungs=lungs, endings=raw.VOLUME_ENDINGS)
    return [raw.SourceCase(f"medseg9_{raw.padded(stem)}", *files) for stem, *files in found]


RECIPE = raw.Recipe(INFO, find_cases, raw.read_volume_pair, schemes=MEDSEG_SCHEMES)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
