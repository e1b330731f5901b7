"""The one exception that means: the user can put this right."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in the input, told in one line that names the file and the remedy.

    The command line prints it as ``error: …`` and exits with status 2; as a library it is an ordinary exception.
    """
