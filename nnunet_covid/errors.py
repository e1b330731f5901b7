"""The one exception that means: the user can put this right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input, told in one line that names the file and the remedy.

    The command line prints it as ``error: …`` and exits with status 2; as a library it is an ordinary exception.

    Attributes:
        about: The argument or attribute that would put it right, where it is one; a command names its option.
    """

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


def reason_of(error: BaseException) -> str:
    """What an exception of another library says, in one line: its last one, which is where ITK's reason stands."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].removeprefix("sitk::ERROR: ") if lines else type(error).__name__
