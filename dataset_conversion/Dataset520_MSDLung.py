"""Medical Segmentation Decathlon, task 6: lung tumours, 63 labelled and 32 test volumes."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid import raw_dataset as raw
from nnunet_covid.dataset_conversion import run_as_script

INFO = raw.DatasetInfo(
    number=520,
    name="MSDLung",
    command="msd-lung",
    title="Medical Segmentation Decathlon, Task06_Lung",
    paper="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022",
    url="http://medicaldecathlon.com",
    licence="CC BY-SA 4.0",
    expected_files=("imagesTr/lung_*.nii.gz", "labelsTr/lung_*.nii.gz", "imagesTs/lung_*.nii.gz (optional)"),
)


def find_cases(source: Path, problems: raw.Problems) -> list[raw.SourceCase]:
    """Training and test volumes of the unpacked archive; its hidden ``._`` files are passed over."""
    root = raw.find_root(source, "imagesTr/lung_*.nii.gz", INFO.expected_files)
    found = raw.pairs(root / "imagesTr", root / "labelsTr", problems, endings=raw.VOLUME_ENDINGS)
    cases = [raw.SourceCase(f"msd_{stem}", image, mask) for stem, image, mask, _ in found]
    if (root / "imagesTs").is_dir():
        test = raw.files_by_stem(root / "imagesTs", problems, raw.VOLUME_ENDINGS)
        cases += [raw.SourceCase(f"msd_{stem}", image, part=raw.Part.TEST) for stem, image in test.items()]
    return cases


RECIPE = raw.Recipe(INFO, find_cases, raw.read_volume_pair, schemes={"tumour": raw.binary("tumour")})


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
