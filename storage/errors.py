"""Errors of a store, and of the disk or object storage that holds it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator

# Errors that damaged or forged bytes raise, in addition to the parsers' own. MemoryError is not among them: it may be
# the machine's fault, and sizes that a file claims are checked against its length before memory is allocated.
MALFORMED = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError)

# What the system answers to impossible offsets and sizes. Libraries that parse raise OSError without a number.
_BY_DAMAGE = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG)


class StoreError(Exception):
    """The store cannot be read or written as requested; the message is one line that names the file and the cure."""


class UnreachableError(StoreError):
    """The disk or object storage cannot be reached, or refuses the request. The files need not be damaged."""


class DamagedError(StoreError):
    """The bytes of a file are not those that were committed, or it is not a file of its kind."""


class NewerVersionError(StoreError):
    """A newer version of the program wrote the file, which need not be damaged."""


def is_full(error: OSError) -> bool:
    """Return whether the operating system refused because the disk or the user's quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def refusal(error: OSError) -> str:
    """Describe in one line why the operating system refused, with the cure if there is only one."""
    if error.errno is not None and is_full(error):
        return f"the disk is full ({os.strerror(error.errno)}); free some space there, then run the same command again"
    # Libraries wrap the system's message in their own words, sometimes over several lines.
    return " ".join(str(error).split()) if error.strerror is None else error.strerror


@contextlib.contextmanager
def reporting(action: str) -> Iterator[None]:
    """Turn an OSError in the block into a StoreError with the message "cannot ACTION: REASON"."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"cannot {action}: {refusal(error)}") from error


@contextlib.contextmanager
def reading(path: object) -> Iterator[None]:
    """Sort the errors of reading one file: it is gone, it cannot be reached, or its bytes are damaged.

    Raises:
        FileNotFoundError: it is gone; `filename` is `path`. A stale handle of a network file system counts as gone.
        UnreachableError: the operating system refuses (permission, input or output ...); the file need not be damaged.
        DamagedError: a parser or a checksum finds that its bytes are wrong.
    """
    try:
        yield
    except MALFORMED as error:
        number = _number(error)
        if number is None or number in _BY_DAMAGE:
            raise damaged(path, error) from error
        refused = OSError(number, os.strerror(number), str(path))
        if number in (errno.ENOENT, errno.ESTALE):
            raise FileNotFoundError(number, os.strerror(number), str(path)) from error
        raise UnreachableError(f"cannot read {path}: {refusal(refused)}; check the disk and its permissions") from error


def _number(error: BaseException) -> int | None:
    """Return the system's number of an error. HDF5 only has it in its words, in errors of any type."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    in_words = re.search(r"errno = (\d+)", str(error))
    return None if in_words is None else int(in_words[1])


def damaged(path: object, error: BaseException) -> DamagedError:
    """Return the error for a file whose bytes are not those that were committed."""
    return DamagedError(
        f"{path} is damaged: {' '.join(str(error).split())}; `traitline store repair` moves it aside, and the next run "
        "recomputes it"
    )
