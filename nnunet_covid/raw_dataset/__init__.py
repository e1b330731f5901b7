"""Source files in, an nnU-Net raw data set out: the mechanics that every converter shares.

What is particular to one public data set (its folders, its label values, its licence) lives in
``nnunet_covid.dataset_conversion``; nothing here knows a data set by name. Start at ``convert.convert_dataset``.
"""
# ruff: noqa: F401

from nnunet_covid.endings import IMAGE_ENDINGS, VOLUME_ENDINGS, ending_of
from nnunet_covid.raw_dataset.case_folders import described, images_by_entry, is_one_series
from nnunet_covid.raw_dataset.classes import ClassScheme, binary, map_values, whole_labels
from nnunet_covid.raw_dataset.convert import checked_destination, convert_dataset
from nnunet_covid.raw_dataset.dicom import is_dicom
from nnunet_covid.raw_dataset.dicom_folder import dicom_folder
from nnunet_covid.raw_dataset.images import check_headers, read_scan
from nnunet_covid.raw_dataset.names import LUNG_WORDS, case_stems, composed, masks_among, padded, pairing
from nnunet_covid.raw_dataset.patients import OWN_IMAGES, guessed_patients, patients_in_headers
from nnunet_covid.raw_dataset.pictures import picture_recipe, read_grey
from nnunet_covid.raw_dataset.recipe import DatasetInfo, Options, Part, Recipe, SourceCase
from nnunet_covid.raw_dataset.scan import PLANE, Scan, SliceSelection, from_8_bit
from nnunet_covid.raw_dataset.source import (
    Problems,
    UnusableFile,
    files_by_stem,
    find_files,
    find_root,
    is_lossy,
    is_picture,
    pairs,
    read_patients,
    stem_of,
    visible,
)
from nnunet_covid.raw_dataset.splits import few_training_folds
from nnunet_covid.raw_dataset.volumes import (
    mean_by_class,
    read_header,
    read_volume_pair,
    read_voxels,
)
