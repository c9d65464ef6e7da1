"""Errors that mean: what lies in the store, or where it lies, is not usable as it is."""

from __future__ import annotations

import errno
import os

# What reading bytes that are damaged, or made up, raises beside the parsers' own errors. Not MemoryError: that may be
# the machine's fault, and what bytes claim is held against their number before memory is taken.
MALFORMED = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)


class StoreError(Exception):
    """The store cannot be read or written as asked; the message is one line that names the file and the cure."""


class UnreachableError(StoreError):
    """Object storage cannot be asked, or refuses. This says nothing about what lies there: it need not be damaged."""


def is_full(error: OSError) -> bool:
    """Whether the operating system refused because there is no room left, on the disk or in the user's quota."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def refusal(error: OSError) -> str:
    """Say in one line why the operating system refused, and the cure where there is just one."""
    if is_full(error):
        return f"the disk is full ({os.strerror(error.errno)}); make room there, then run the same again"
    # Libraries put their own words around the system's, some of them over several lines.
    return " ".join(str(error).split()) if error.strerror is None else error.strerror
