"""What a user can mend: one clear line and a non-zero exit, never a traceback."""

from __future__ import annotations


class UserError(Exception):
    """The run cannot go on as asked; the message is one line that names the cure."""
