"""The grammar of trainer names: ``BASE[_consistency][_Nepochs][_Mits][_seedS][_pseudoNAME]``, without torch."""

from __future__ import annotations

import re

SUFFIXES = re.compile(
    r"^(?P<base>.+?)(?P<consistency>_consistency)?(?:_(?P<epochs>\d+)epochs)?(?:_(?P<its>\d+)its)?(?:_seed(?P<seed>\d+))?(?:_pseudo(?P<tag>[A-Za-z0-9]+))?$"
)
"""Matches every name; what it does not end with is ``None``."""
