"""DCMTK's programs; pynetdicom puts some of the same names beside Python."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

_BESIDE_PYTHON = Path(sys.executable).parent
STORESCU = shutil.which(
    "storescu",
    path=os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(p) != _BESIDE_PYTHON),
)
