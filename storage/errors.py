"""The one error that means: what lies in the store, or where it lies, is not usable as it is."""

from __future__ import annotations

import errno


class StoreError(Exception):
    """The store cannot be read or written as asked; the message is one line that names the file and the cure."""


def refusal(error: OSError) -> str:
    """Say in one line why the operating system refused, and the cure where there is just one."""
    match error.errno:
        case errno.ENOSPC:
            return "the disk is full (No space left on device); make room there, then run the same again"
        case errno.EDQUOT:
            return "the quota is used up (Disk quota exceeded); make room there, then run the same again"
    # Libraries put their own words around the system's, some of them over several lines.
    return " ".join(str(error).split()) if error.strerror is None else error.strerror
