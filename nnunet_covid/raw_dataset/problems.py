"""Collecting everything that is wrong with the input, so that the user hears of it once and completely."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from nnunet_covid.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One file that cannot be used, and what to do about it."""

    file: str
    reason: str


class UnusableFile(Exception):
    """Raised while one case is read; the conversion collects it and goes on with the other cases."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


@dataclass
class Problems:
    """All problems found below one source folder."""

    source: Path
    found: list[Problem] = field(default_factory=list)

    def add(self, path: Path, reason: str) -> None:
        """Remember that ``path`` cannot be used; ``reason`` ends with the remedy."""
        self.found.append(Problem(relative_name(path, self.source), reason))

    def raise_if_any(self) -> None:
        """Raise one ``UserError`` that lists every problem.

        Raises:
            UserError: If anything was added.
        """
        if not self.found:
            return
        if len(self.found) == 1:
            only = self.found[0]
            raise UserError(f"{self.source / only.file}: {only.reason}")
        head = f"{len(self.found)} problems in {self.source}, nothing was written:"
        lines = [f"  {problem.file}: {problem.reason}" for problem in self.found]
        raise UserError("\n".join([head, *lines]))


def some_of(names: Iterable[str], at_most: int = 5) -> str:
    """The first names in their order, and ``…`` where there are more."""
    ordered = sorted(names)
    return ", ".join(ordered[:at_most]) + (", …" if len(ordered) > at_most else "")


def relative_name(path: Path, base: Path) -> str:
    """``path`` as seen from ``base``, with forward slashes; the whole path where it lies elsewhere."""
    try:
        relative = path.relative_to(base).as_posix()
    except ValueError:
        return path.as_posix()
    return path.as_posix() if relative == "." else relative
