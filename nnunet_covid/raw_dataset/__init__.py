"""Source files in, an nnU-Net raw data set out: the mechanics that every converter shares.

What is particular to one public data set (its folders, its label values, its licence) lives in
``nnunet_covid.dataset_conversion``; nothing here knows a data set by name. Start at ``convert.convert_dataset``.
"""

from nnunet_covid.raw_dataset.classes import ClassScheme, binary, map_values
from nnunet_covid.raw_dataset.convert import convert_dataset
from nnunet_covid.raw_dataset.images import read_scan
from nnunet_covid.raw_dataset.pictures import check_sizes, read_picture_pair
from nnunet_covid.raw_dataset.recipe import DatasetInfo, Options, Part, Recipe, SourceCase
from nnunet_covid.raw_dataset.scan import Scan, SliceSelection
from nnunet_covid.raw_dataset.source import (
    VOLUME_ENDINGS,
    Problems,
    UnusableFile,
    files_by_stem,
    find_files,
    find_root,
    padded,
    pair,
    read_patients,
)
from nnunet_covid.raw_dataset.volumes import check_grids, mean_by_class, read_volume_pair, read_voxels

__all__ = [
    "VOLUME_ENDINGS",
    "ClassScheme",
    "DatasetInfo",
    "Options",
    "Part",
    "Problems",
    "Recipe",
    "Scan",
    "SliceSelection",
    "SourceCase",
    "UnusableFile",
    "binary",
    "check_grids",
    "check_sizes",
    "convert_dataset",
    "files_by_stem",
    "find_files",
    "find_root",
    "map_values",
    "mean_by_class",
    "padded",
    "pair",
    "read_patients",
    "read_picture_pair",
    "read_scan",
    "read_volume_pair",
    "read_voxels",
]
