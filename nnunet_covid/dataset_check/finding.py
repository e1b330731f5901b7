"""One thing that a check found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Finding:
    """A sentence for the user, the cases it is about and, where it helps, a picture.

    Attributes:
        check: Short name of the check.
        message: What was found and what to do about it.
        cases: Names of the cases.
        picture: RGB, shape (y, x, 3).
    """

    check: str
    message: str
    cases: tuple[str, ...] = ()
    picture: NDArray[np.uint8] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The finding without its picture."""
        return {"check": self.check, "message": self.message, "cases": list(self.cases)}
