"""The two documents beside the images: nnU-Net's ``dataset.json`` and our ``conversion.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nnunet_covid.raw_dataset.options import Options
from nnunet_covid.raw_dataset.recipe import Recipe
from nnunet_covid.raw_dataset.staging import CaseRecord


def dataset_json(recipe: Recipe, options: Options, number_of_training_cases: int) -> dict[str, Any]:
    """nnU-Net's description of the data set.

    The lung mask is named ``nonorm``, the name under which nnU-Net leaves its values 0 and 1 alone.
    """
    info = recipe.info
    channels = {"0": "grey_ct" if options.window else recipe.channel}
    if options.lung_mask_channel:
        channels["1"] = "nonorm"
    entries: dict[str, Any] = {
        "name": info.name,
        "description": info.title,
        "reference": f"{info.paper}; {info.url}",
        "licence": info.licence,
        "converted_by": f"nnunet-covid convert {info.command}, conversion version {info.version}",
        "channel_names": channels,
        **recipe.scheme(options).dataset_json_entries(),
        "numTraining": number_of_training_cases,
        "file_ending": recipe.file_ending,
    }
    if recipe.file_ending == ".png":
        entries["overwrite_image_reader_writer"] = "NaturalImage2DIO"
    return entries


def conversion_request(recipe: Recipe, options: Options) -> dict[str, Any]:
    """What was asked for: two conversions of the same files with the same request give the same bytes."""
    scheme = recipe.scheme(options)
    return {
        "data_set": recipe.info.command,
        "version": recipe.info.version,
        "options": options.to_json(),
        "label_table": {str(source): value for source, value in scheme.values.items()},
        **scheme.dataset_json_entries(),
    }


def conversion_json(request: dict[str, Any], records: Iterable[CaseRecord]) -> dict[str, Any]:
    """Where every case comes from: source files and outputs with their checksums."""
    ordered = sorted(records, key=lambda record: (record.part, record.case))
    return {**request, "cases": [record.to_json() for record in ordered]}
