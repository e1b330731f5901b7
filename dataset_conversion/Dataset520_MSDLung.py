"""Medical Segmentation Decathlon, task 6: lung tumours, 63 labelled and 32 test volumes."""

from __future__ import annotations

from pathlib import Path

from nnunet_covid.dataset_conversion import run_as_script
from nnunet_covid.raw_dataset import (
    VOLUME_ENDINGS,
    DatasetInfo,
    Part,
    Problems,
    Recipe,
    SourceCase,
    binary,
    check_grids,
    files_by_stem,
    find_root,
    pair,
    read_volume_pair,
)

INFO = DatasetInfo(
    number=520,
    name="MSDLung",
    command="msd-lung",
    title="Medical Segmentation Decathlon, Task06_Lung",
    paper="Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 2022",
    url="http://medicaldecathlon.com",
    licence="CC BY-SA 4.0",
    expected_files=("imagesTr/lung_*.nii.gz", "labelsTr/lung_*.nii.gz", "imagesTs/lung_*.nii.gz (optional)"),
)


def find_cases(source: Path, problems: Problems) -> list[SourceCase]:
    """Training and test volumes of the unpacked archive; its hidden ``._`` files are passed over."""
    root = find_root(source, "imagesTr/lung_*.nii.gz", INFO.expected_files)
    images = files_by_stem(root / "imagesTr", problems, VOLUME_ENDINGS)
    masks = files_by_stem(root / "labelsTr", problems, VOLUME_ENDINGS)
    cases = [SourceCase(f"msd_{stem}", image, mask) for stem, image, mask in pair(images, masks, problems)]
    if (root / "imagesTs").is_dir():
        test = files_by_stem(root / "imagesTs", problems, VOLUME_ENDINGS)
        cases += [SourceCase(f"msd_{stem}", image, part=Part.TEST) for stem, image in test.items()]
    check_grids(cases, problems)
    return cases


RECIPE = Recipe(
    info=INFO,
    find_cases=find_cases,
    read=read_volume_pair,
    schemes={"tumour": binary("tumour")},
)


if __name__ == "__main__":
    raise SystemExit(run_as_script(RECIPE))
