"""What a user can mend: one clear line and a non-zero exit, never a traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_MOST_COMPARED = 20_000


class UserError(Exception):
    """The run cannot go on as asked; the message is one line that names the cure."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question to add to a message about a word that is not known; empty where no known one is like it.

    Of very many known ones, such as the videos of a large archive, none is looked at: that would take minutes.
    """
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1) if len(by_lower) <= _MOST_COMPARED else []
    return f", did you mean {by_lower[near[0]]}?" if near else ""
