"""COVID-19 CT Segmentation by MedSeg: nine volumes with lung masks, 630 × 630 in plane.

The papers use them as slices cropped to the lungs: ``--crop 512 512 --slices all --window -1250 250``. Of the
829 slices Inf-Net reports on 638, SSA-Net on the 370 with lesions (``--slices lesion``); which 638 is not
published.
"""

from __future__ import annotations

from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.dataset_conversion.Dataset503_MedSeg100 import INFO as SLICES
from nnunet_covid.dataset_conversion.Dataset503_MedSeg100 import MEDSEG_SCHEMES

INFO = raw.DatasetInfo(
    number=504,
    name="MedSeg9",
    command="medseg-9",
    title="COVID-19 CT Segmentation data set, nine volumes",
    paper=SLICES.paper,
    url=SLICES.url,
    licence=SLICES.licence,
    expected_files=("rp_im/*.nii.gz", "rp_msk/*.nii.gz", "rp_lung_msk/*.nii.gz (optional)"),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Volumes, masks and lung masks paired by their number."""
    root = raw.find_root(source, "rp_im", INFO.expected_files)
    images = raw.files_by_stem(root / "rp_im", problems, raw.VOLUME_ENDINGS)
    masks = raw.files_by_stem(root / "rp_msk", problems, raw.VOLUME_ENDINGS)
    lungs: dict[str, Path] = {}
    if (root / "rp_lung_msk").is_dir():
        lungs = raw.files_by_stem(root / "rp_lung_msk", problems, raw.VOLUME_ENDINGS)
        raw.pair(images, lungs, problems)
    cases = [
        raw.SourceCase(name=f"medseg9_{raw.padded(stem)}", image=image, mask=mask, lungs=lungs.get(stem))
        for stem, image, mask in raw.pair(images, masks, problems)
    ]
    raw.check_grids(cases, problems)
    return cases


RECIPE = raw.Recipe(info=INFO, find_cases=find_cases, read=raw.read_volume_pair, schemes=MEDSEG_SCHEMES)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
