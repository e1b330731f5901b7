"""Reading the commonest kind of case: a grey picture and, if labelled, a mask picture of the same size."""

from __future__ import annotations

from nnunet_covid.raw_dataset.case import SourceCase
from nnunet_covid.raw_dataset.classes import ClassScheme
from nnunet_covid.raw_dataset.label_table import map_colours, map_values
from nnunet_covid.raw_dataset.picture import picture_size, read_colours, read_grey
from nnunet_covid.raw_dataset.problems import Problems, UnusableFile
from nnunet_covid.raw_dataset.scan import Scan


def check_sizes(cases: list[SourceCase], problems: Problems) -> None:
    """Compare the sizes in the headers; masks and lung masks that differ from their image become problems."""
    for case in cases:
        try:
            width, height = picture_size(case.image)
            for mask in (case.mask, case.lungs):
                if mask is not None and (size := picture_size(mask)) != (width, height):
                    reason = (
                        f"is {size[0]}×{size[1]} pixels, its image {case.image.name} {width}×{height}; "
                        "export the mask at the size of the image"
                    )
                    problems.add(mask, reason)
        except UnusableFile as e:
            problems.add(e.path, e.reason)


def read_picture_pair(case: SourceCase, scheme: ClassScheme) -> Scan:
    """Read image, mask and lung mask of one case.

    Raises:
        UnusableFile: If one of them is not what it should be.
    """
    scan = Scan(image=read_grey(case.image))
    if case.mask is not None:
        if scheme.colours:
            values, snapped = map_colours(read_colours(case.mask), scheme.colours, case.mask)
            scan.notes["snapped_pixels"] = snapped
        else:
            values = read_grey(case.mask)
        scan.label = map_values(values, scheme.values, case.mask)
    if case.lungs is not None:
        scan.lungs = map_values(read_grey(case.lungs), {0: 0, 1: 1, 255: 1}, case.lungs).astype(bool)
    return scan
