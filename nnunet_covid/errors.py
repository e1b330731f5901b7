"""The one exception that means: the user can put this right."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """A mistake in the input, told in one line that names the file and the remedy.

    The command line prints it as ``error: …`` and exits with status 2; as a library it is an ordinary exception.

    Args:
        message: What is wrong with which thing, and the remedy, without the command line's flags.
        options: Names of the arguments that would put it right, such as ``"resize_maps"``; a command adds their flags.
    """

    def __init__(self, message: str, *, options: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.options = tuple(options)


def reason_of(error: BaseException) -> str:
    """What an exception of another library says, in one line: its last one, which is where ITK's reason stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
