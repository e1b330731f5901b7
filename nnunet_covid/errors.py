"""The one exception that means: the user can put this right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the input, told in one line that names the file and the remedy.

    The command line prints it as ``error: …`` and exits with status 2; as a library it is an ordinary exception.

    Attributes:
        about: The argument or attribute that would put it right, where it is one; a command names its option.
        exit_status: Of the command that ends with it.
    """

    exit_status = 2

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


class PartlyDoneError(UserError):
    """Some images of a folder could not be used; everything else has been done."""

    exit_status = 1


class Unusable:
    """The images of a folder that cannot be used, where the work goes on with the others.

    Attributes:
        reasons: A sentence about each.
    """

    def __init__(self) -> None:
        self.reasons: list[str] = []

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Remember the ``UserError`` at which the work on one image ends."""
        try:
            yield
        except UserError as e:
            self.reasons.append(str(e))

    def raise_if_any(self, images: int) -> None:
        """End with what was remembered.

        Args:
            images: How many there were altogether.

        Raises:
            PartlyDoneError: If some of them could not be used.
            UserError: If none could.
        """
        count = len(self.reasons)
        if count == images == 1:
            raise UserError(self.reasons[0])
        if count == images and count:
            raise UserError("\n  ".join([f"none of {images} images can be used:", *self.reasons]))
        if count:
            raise PartlyDoneError(
                "\n  ".join([f"{count} of {images} images cannot be used, the others are done:", *self.reasons])
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """For the end of a message about a name that does not exist: ``; did you mean NEAREST?``, empty without one."""
    close = difflib.get_close_matches(name, sorted(known), 1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def reason_of(error: BaseException) -> str:
    """What an exception of another library says, in one line: its last one, which is where ITK's reason stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
