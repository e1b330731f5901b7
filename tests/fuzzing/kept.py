"""Inputs that once ended in a traceback, a crash or a hang, as :mod:`fuzzing.worker` writes them; tried ever after."""

from __future__ import annotations

from typing import Any

WORD = "b64:////fwAAAAA="
KEPT: list[tuple[str, list[list[Any]]]] = [
    ("dataset.json of a model", [["node", 1, '"a"']]),  # channel_names is a word
    ("dataset.json of a model", [["node", 6, "delete"]]),  # no file_ending
    ("dataset.json", [["node", 1, "null"]]),  # channel_names is nothing
    ("tiff packed", [["put", 243, WORD], ["insert", 35, WORD], ["put", 243, WORD]]),  # directories without an end
    ("metaimage", [["token", 35, "0"]]),  # no voxels along an axis
    ("metaimage header", [["token", 3, "99999999999"]]),  # more axes than ITK has room for: it crashed
    ("plans", [["node", 0, "null"]]),  # no document
]
