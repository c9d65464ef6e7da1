"""Errors that a user can fix: they end a command with one line and a non-zero exit status, without a traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from difflib import get_close_matches

from extractors.assets.files import AssetError
from extractors.errors import DeviceError, LayerError
from flows.session import console
from fusion.errors import LabelError, TrainingError
from storage.errors import StoreError, is_full, refusal

_MOST_COMPARED = 20_000


class UserError(Exception):
    """A mistake of the user; the message is one line that names the cure."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a question to append to a message about an unknown word; empty if no known word is similar.

    Long lists, such as the videos of a large archive, are not searched: that would take minutes.
    """
    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, n=1) if len(by_lower) <= _MOST_COMPARED else []
    return f", did you mean {by_lower[near[0]]}?" if near else ""


USER_ERRORS = (UserError, AssetError, DeviceError, LayerError, LabelError, TrainingError, StoreError)


def mistake_in_words(error: Exception) -> str | None:
    """Describe a user's mistake, a full disk, a lost server or dead workers in one line; None for other errors."""
    if isinstance(error, USER_ERRORS):
        return console.one_line(console.masked(str(error)))
    httpx = sys.modules.get("httpx")  # Prefect's client uses it
    if httpx is not None and any(isinstance(cause, httpx.HTTPError) for cause in (error, error.__cause__)):
        return (
            f"Prefect's server has gone away or refuses a request ({console.one_line(str(error))}); finished work is "
            "kept, and the same command continues from there"
        )
    distributed = sys.modules.get("distributed")
    if distributed is not None and isinstance(error, distributed.KilledWorker):
        return (
            "Dask's workers died repeatedly at the same work, most likely for lack of memory: start fewer "
            "(dask.workers), or give each more (--memory-limit of `dask worker`); finished work is kept"
        )
    if isinstance(error, OSError) and is_full(error):
        # Libraries also write into temporary folders and caches.
        place = error.filename if error.filename is not None else "a temporary file"
        return f"cannot write {place}: {refusal(error)}"
    return None
