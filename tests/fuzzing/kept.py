"""Inputs that once ended in a traceback, a crash or a hang, as :mod:`fuzzing.worker` writes them; tried ever after."""

from __future__ import annotations

from typing import Any

KEPT: list[tuple[str, list[list[Any]]]] = [
    ("dataset.json of a model", [["node", 1, '"a"']]),  # channel_names is a word
    ("dataset.json of a model", [["node", 6, "delete"]]),  # no file_ending
    # a chain of directories that takes hours
    (
        "tiff packed",
        [["put", 243, "b64:////fwAAAAA="], ["insert", 35, "b64:////fwAAAAA="], ["put", 243, "b64:////fwAAAAA="]],
    ),
    ("metaimage", [["token", 35, "0"]]),  # no voxels along an axis
    ("plans", [["node", 0, "null"]]),  # no document
]
